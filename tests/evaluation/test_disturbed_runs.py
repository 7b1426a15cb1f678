"""What a reviewer does to a run and its judgements; trec_eval's code is asked about the same file.

The oracle is pytrec_eval, which is trec_eval 9 as a library, with a reader of its own. We depart
from trec_eval on purpose in one rule, the order of tied documents: ours has the lower document id
first and compares scores in double precision; trec_eval has the higher id first and compares them
in single precision.
"""

import json
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from jaxrank import evaluate, search
from jaxrank.evaluation.measures import evaluate_run
from jaxrank.evaluation.qrels import read_qrels
from jaxrank.evaluation.runs import read_run, write_run

pytrec_eval = pytest.importorskip("pytrec_eval")

NIST = Path(__file__).resolve().parents[3] / "shared" / "data" / "trec-eval"
MEASURES = {
    "AP": "map", "RR": "recip_rank", "nDCG": "ndcg", "nDCG@10": "ndcg_cut_10", "P@10": "P_10",
    "R@100": "recall_100", "Rprec": "Rprec", "Bpref": "bpref", "infAP": "infAP",
    "Success@5": "success_5", "IPrec@0.2": "iprec_at_recall_0.20", "NumRet(rel=1)": "num_rel_ret",
}  # fmt: skip
Values = dict[str, dict[str, float]]
"""Our name of a measure -> query id -> value."""


def trec_eval(qrels: Path, run: Path, rel: int = 1) -> Values:
    """What trec_eval finds; 0 where the run lacks a query, as with its option -c."""
    with open(qrels) as qrels_file, open(run) as run_file:
        judged, results = pytrec_eval.parse_qrel(qrels_file), pytrec_eval.parse_run(run_file)
    evaluator = pytrec_eval.RelevanceEvaluator(judged, set(MEASURES.values()), relevance_level=rel)
    found = evaluator.evaluate(results)
    return {
        ours: {query: found[query][theirs] if query in found else 0.0 for query in judged}
        for ours, theirs in MEASURES.items()
    }


def at_level(name: str, rel: int) -> str:
    if rel == 1 or name.startswith("nDCG"):
        return name
    head, at, cutoff = name.replace("(rel=1)", "").partition("@")
    return f"{head}(rel={rel}){at}{cutoff}"


def ours(qrels: Path, run: Path, rel: int = 1) -> Values:
    names = [at_level(name, rel) for name in MEASURES]
    found = evaluate_run(read_qrels(qrels), read_run(run), names).per_query
    return dict(zip(MEASURES, found.values(), strict=True))


ours_undisturbed = cache(ours)


def assert_equal(a: Values, b: Values) -> None:
    for name in MEASURES:
        assert a[name] == pytest.approx(b[name], abs=1e-9), name


Rows = list[list[str]]


def read_rows(path: Path) -> Rows:
    return [line.split() for line in path.read_text().splitlines()]


def write_rows(path: Path, rows: Rows, separator: str = " ") -> Path:
    path.write_text("".join(separator.join(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module", params=["medquad-mini", "NIST"])
def files(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, medquad_mini: Path
) -> tuple[Path, Path]:
    """Graded judgements from -2 to 3, and a run without ties that has unjudged documents too."""
    folder = tmp_path_factory.mktemp("real")
    if request.param == "NIST":
        if not NIST.is_dir():
            pytest.skip("NIST's trec_eval data is not here")
        qrels, run = NIST / "qrels.test", folder / "nist.run"
        write_run(run, read_run(NIST / "results.test"), tag="untied")
    else:
        qrels, run = medquad_mini / "qrels.test.txt", folder / "bm25.run"
        search.main(
            [f"--collection={medquad_mini}", "--split=test", f"--output={run}", "--depth=10"]
        )
    draw = random.Random(0)
    judged = {query: dict(grades) for query, grades in read_qrels(qrels).items()}
    for query, scores in read_run(run).items():
        for document in scores:
            if document not in judged[query] and draw.random() < 0.3:
                judged[query][document] = draw.choice([-2, -1, 0, 0, 1, 2, 3])
    rows = [[q, "0", d, str(grade)] for q, grades in judged.items() for d, grade in grades.items()]
    return write_rows(folder / "qrels.txt", rows), run


def as_it_is(rows: Rows) -> Rows:
    return rows


def shuffled(rows: Rows) -> Rows:
    return random.Random(1).sample(rows, len(rows))


def with_other_ranks(rows: Rows) -> Rows:
    draw = random.Random(2)
    return [[*row[:3], str(draw.randint(0, 10**6)), *row[4:]] for row in rows]


def with_scores_in_scientific_notation(rows: Rows) -> Rows:
    forms = ("{:.9e}", "{:.9E}", "+{:.9e}")
    return [[*row[:4], forms[i % 3].format(float(row[4])), row[5]] for i, row in enumerate(rows)]


def with_negative_scores(rows: Rows) -> Rows:
    order = sorted(rows, key=lambda row: -float(row[4]))
    return [[*row[:4], str(-rank / 8), row[5]] for rank, row in enumerate(order, start=1)]


def without_a_third_of_the_queries(rows: Rows) -> Rows:
    kept = set(sorted({row[0] for row in rows})[::3])
    return [row for row in rows if row[0] not in kept]


def with_queries_that_nobody_judged(rows: Rows) -> Rows:
    return [*([f"x{row[0]}", *row[1:]] for row in rows[:50]), *rows]


def with_two_documents_a_query(rows: Rows) -> Rows:
    best: dict[str, Rows] = {}
    for row in sorted(rows, key=lambda row: -float(row[4])):
        best.setdefault(row[0], []).append(row)
    return [row for found in best.values() for row in found[:2]]


@pytest.mark.parametrize(
    ("disturb", "rel"),
    [
        (as_it_is, 1),
        (as_it_is, 2),
        (shuffled, 1),
        (with_other_ranks, 1),
        (with_scores_in_scientific_notation, 1),
        (with_negative_scores, 1),
        (without_a_third_of_the_queries, 1),
        (without_a_third_of_the_queries, 2),
        (with_queries_that_nobody_judged, 1),
        (with_two_documents_a_query, 1),
    ],
)
def test_measures_are_what_trec_eval_says(
    tmp_path: Path, files: tuple[Path, Path], disturb: Callable[[Rows], Rows], rel: int
) -> None:
    qrels, run = files
    changed = write_rows(tmp_path / "changed.run", disturb(read_rows(run)))
    values = ours(qrels, changed, rel)
    assert_equal(values, trec_eval(qrels, changed, rel))
    keeps_the_order = disturb not in (without_a_third_of_the_queries, with_two_documents_a_query)
    assert (values == ours_undisturbed(qrels, run, rel)) == keeps_the_order


def test_the_command_prints_what_trec_eval_says_of_a_run_in_disorder_that_lacks_queries(
    tmp_path: Path, files: tuple[Path, Path]
) -> None:
    qrels, run = files
    rows = shuffled(without_a_third_of_the_queries(read_rows(run)))
    changed = write_rows(tmp_path / "changed.run", rows)
    names = [name for name in MEASURES if name != "NumRet(rel=1)"]  # which is no mean
    evaluate.main(
        [
            f"--qrels={qrels}",
            f"--runs={json.dumps([str(changed)])}",
            f"--measures={' '.join(names)}",
            f"--json={tmp_path / 'out.json'}",
        ]
    )
    (found,) = json.loads((tmp_path / "out.json").read_text())["runs"].values()
    oracle = trec_eval(qrels, changed)
    expected = {name: float(np.mean(list(oracle[name].values()))) for name in names}
    assert found["means"] == pytest.approx(expected, abs=1e-9)


def test_tabs_and_line_ends_of_windows_change_nothing(
    tmp_path: Path, files: tuple[Path, Path]
) -> None:
    qrels, run = files
    changed = write_rows(tmp_path / "tabs.run", read_rows(run), separator="\t")
    changed.write_bytes(changed.read_bytes().replace(b"\n", b"\r\n"))
    assert ours(qrels, changed) == ours(qrels, run)


def test_grades_below_one_gain_nothing_and_below_zero_no_less(
    tmp_path: Path, files: tuple[Path, Path]
) -> None:
    qrels, run = files
    rows = read_rows(qrels)
    assert {int(row[3]) for row in rows} >= {-2, -1, 0, 1, 2}
    raised = write_rows(tmp_path / "q", [[*row[:3], str(max(0, int(row[3])))] for row in rows])
    with_negative, without = ours(qrels, run), ours(raised, run)
    assert_equal(with_negative, trec_eval(qrels, run))
    # These two ask how many are judged; to trec_eval's code -1 is "in the pool, not judged".
    assert {name for name in MEASURES if with_negative[name] != without[name]} <= {"Bpref", "infAP"}


def with_ties(rows: Rows) -> Rows:
    return [[*row[:4], f"{float(row[4]):.0f}", row[5]] for row in rows]


def test_tied_documents_come_by_rising_id_where_trec_eval_has_them_by_falling_id(
    tmp_path: Path, files: tuple[Path, Path]
) -> None:
    qrels, run = files
    tied = write_rows(tmp_path / "tied.run", with_ties(read_rows(run)))
    assert not same(ours(qrels, tied), trec_eval(qrels, tied)), "no tie matters here"

    # Ids named in falling order: what trec_eval puts first is now what we do.
    documents = sorted({row[2] for row in [*read_rows(tied), *read_rows(qrels)]}, reverse=True)
    names = {document: f"{number:06d}" for number, document in enumerate(documents)}
    renamed = [
        write_rows(
            tmp_path / f"{path.name}.renamed",
            [[*row[:2], names[row[2]], *row[3:]] for row in read_rows(path)],
        )
        for path in (qrels, tied)
    ]
    assert_equal(ours(qrels, tied), trec_eval(*renamed))
    assert_equal(ours(*renamed), trec_eval(qrels, tied))


def test_runs_that_we_write_mean_the_same_to_trec_eval_though_they_had_ties(
    tmp_path: Path, files: tuple[Path, Path]
) -> None:
    qrels, run = files
    tied = write_rows(tmp_path / "tied.run", with_ties(read_rows(run)))
    write_run(tmp_path / "written.run", read_run(tied), tag="written")
    assert_equal(ours(qrels, tied), trec_eval(qrels, tmp_path / "written.run"))


def test_scores_that_only_doubles_tell_apart_are_ties_to_trec_eval_alone(tmp_path: Path) -> None:
    qrels = write_rows(tmp_path / "qrels", [["q", "0", "a", "1"]])
    run = write_rows(
        tmp_path / "run",
        [["q", "Q0", "a", "1", "1.000000001", "t"], ["q", "Q0", "b", "2", "1.0", "t"]],
    )
    assert np.float32(1.000000001) == np.float32(1.0)
    assert ours(qrels, run)["RR"] == {"q": 1.0}
    assert trec_eval(qrels, run)["RR"] == {"q": 0.5}
    write_run(tmp_path / "written.run", read_run(run), tag="t")
    assert trec_eval(qrels, tmp_path / "written.run")["RR"] == {"q": 1.0}


def same(a: Values, b: Values) -> bool:
    return all(a[name] == pytest.approx(b[name], abs=1e-9) for name in MEASURES)
