"""Against NIST's own qrels, runs and expected outputs of trec_eval, by every name in them.

The run's rank column contradicts its scores on purpose. NIST's files do not ship with the project.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jaxrank.errors import InputError
from jaxrank.evaluation.measures import evaluate_run, parse_measures
from jaxrank.evaluation.qrels import Qrels, read_qrels
from jaxrank.evaluation.runs import Run, ranking, read_run, write_run

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data" / "trec-eval"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="NIST's trec_eval data is not here")

# trec_eval's name, or its beginning up to the cutoff -> ours, at the relevance level {rel}.
COUNTERPARTS = {
    "num_q": "NumQ",
    "num_ret": "NumRet",
    "num_rel": "NumRel(rel={rel})",
    "num_rel_ret": "NumRet(rel={rel})",
    "map": "AP(rel={rel})",
    "Rprec": "Rprec(rel={rel})",
    "bpref": "Bpref(rel={rel})",
    "recip_rank": "RR(rel={rel})",
    "infAP": "infAP(rel={rel})",
    "ndcg": "nDCG",
    "set_P": "SetP(rel={rel})",
    "set_relative_P": "SetP(rel={rel}, relative=True)",
    "set_recall": "SetR(rel={rel})",
    "set_map": "SetAP(rel={rel})",
    "set_F": "SetF(rel={rel})",
    "iprec_at_recall_": "IPrec(rel={rel})@",
    "P_": "P(rel={rel})@",
    "recall_": "R(rel={rel})@",
    "ndcg_cut_": "nDCG@",
    "map_cut_": "AP(rel={rel})@",
    "success_": "Success(rel={rel})@",
    "unj_": "Judged@",  # its complement
}
# What trec_eval prints and no package behind ir-measures, as installed here, computes.
WITHOUT_COUNTERPART = {
    "runid", "gm_map", "gm_bpref", "Rprec_mult_", "utility", "11pt_avg", "binG", "G", "ndcg_rel",
    "Rndcg", "relative_P_", "num_nonrel_judged_ret", "relstring", "rbp", "rbp_resid",
}  # fmt: skip
HALF_A_UNIT = 0.5001e-4  # of the last printed digit

Output = dict[str, dict[str, float]]
"""Query id, or `all` -> trec_eval's name -> value."""


def stem(name: str) -> str:
    head, _, cutoff = name.rpartition("_")
    return f"{head}_" if cutoff.replace(".", "").isdigit() else name


def ours(name: str, rel: int = 1) -> str:
    template = COUNTERPARTS[stem(name)]
    text = template.format(rel=rel) + (name.removeprefix(stem(name)) if "@" in template else "")
    return str(parse_measures([text])[0])


def read_output(file: str) -> Output:
    output: Output = {}
    for line in (FOLDER / file).read_text().splitlines():
        name, query, text = line.split()
        if stem(name) in COUNTERPARTS:
            output.setdefault(query, {})[name] = float(text)
    return output


def in_order_of_trec_eval(run: Run, depth: int | None = None) -> Run:
    """The run with trec_eval's ties (float32, higher document id first) and its -M made explicit.

    Falling whole numbers take the scores' place, so that our rule finds nothing to decide.
    """
    result: Run = {}
    for query, scores in run.items():
        order = sorted(scores, key=lambda d: (np.float32(scores[d]), d), reverse=True)
        result[query] = {document: -float(rank) for rank, document in enumerate(order[:depth])}
    return result


def without_rounding_of_recall(name: str) -> bool:
    return not name.startswith("iprec_at_recall_")


def check(
    output: Output, qrels: Qrels, run: Run, which: Callable[[str], bool], rel: int = 1
) -> int:
    """Compare all values that both have; returns their number."""
    names = sorted({name for values in output.values() for name in values if which(name)})
    evaluation = evaluate_run(qrels, run, [ours(name, rel) for name in names])
    compared = 0
    for query, values in output.items():
        for name in filter(which, values):
            measure = ours(name, rel)
            means = evaluation.means
            found = means[measure] if query == "all" else evaluation.per_query[measure][query]
            if stem(name) == "unj_":
                found = 1 - found
            assert found == pytest.approx(values[name], abs=HALF_A_UNIT), (query, name, measure)
            compared += 1
    return compared


@pytest.fixture(scope="module")
def qrels() -> Qrels:
    return read_qrels(FOLDER / "qrels.test")


@pytest.fixture(scope="module")
def run() -> Run:
    return in_order_of_trec_eval(read_run(FOLDER / "results.test"))


@pytest.fixture(scope="module")
def truncated(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Lacks query 302. Its lines carry words after the sixth column, cut off here."""
    path = tmp_path_factory.mktemp("trec-eval") / "results.trunc"
    lines = (FOLDER / "results.trunc").read_text().splitlines()
    path.write_text("".join(" ".join(line.split()[:6]) + "\n" for line in lines))
    return read_run(path)


@pytest.mark.parametrize("file", ["out.test", "out.test.a", "out.test.aq", "out.test.aqcM"])
def test_every_name_of_the_outputs_has_a_counterpart_or_is_listed_as_without(file: str) -> None:
    names = {line.split()[0] for line in (FOLDER / file).read_text().splitlines()}
    stems = {stem(name) for name in names}
    assert stems <= set(COUNTERPARTS) | WITHOUT_COUNTERPART
    if file != "out.test":
        never_printed = (set(COUNTERPARTS) | WITHOUT_COUNTERPART) - stems
        assert never_printed <= {"relstring"}  # which has no mean


@pytest.mark.parametrize(
    ("file", "values"), [("out.test", 17), ("out.test.a", 57), ("out.test.aq", 57 + 3 * 56)]
)
def test_means_and_each_query_equal_trec_eval(
    qrels: Qrels, run: Run, file: str, values: int
) -> None:
    output = read_output(file)
    assert (output["all"]["map"], output["all"]["recip_rank"]) == (0.1785, 0.4064)
    assert check(output, qrels, run, without_rounding_of_recall) == values


@pytest.mark.parametrize(("file", "depth"), [("out.test.aqc", None), ("out.test.aqcM", 100)])
def test_a_missing_query_counts_zero_as_with_option_c_and_depth_as_with_m(
    qrels: Qrels, truncated: Run, file: str, depth: int | None
) -> None:
    output, cut = read_output(file), in_order_of_trec_eval(truncated, depth)
    assert "302" in output
    assert "302" not in cut

    def common(name: str) -> bool:
        # Nothing retrieved is nothing unjudged to trec_eval; to ours, it is nothing judged.
        return without_rounding_of_recall(name) and not name.startswith("unj_")

    assert check(output, qrels, cut, common) == 54 + 3 * 53
    answered = {query: values for query, values in output.items() if query in cut}
    assert check(answered, qrels, cut, lambda name: name.startswith("unj_")) == 2 * 3


def test_the_rank_column_plays_no_part(tmp_path: Path, qrels: Qrels) -> None:
    lines = [line.split() for line in (FOLDER / "results.test").read_text().splitlines()]
    by_rank = sorted(lines, key=lambda columns: (columns[0], int(columns[3])))
    by_score = sorted(lines, key=lambda columns: (columns[0], -float(columns[4])))
    assert [row[2] for row in by_rank] != [row[2] for row in by_score]
    path = tmp_path / "constant.run"
    path.write_text("".join(" ".join([*row[:3], "1", *row[4:]]) + "\n" for row in lines))
    assert read_run(path) == read_run(FOLDER / "results.test")


def test_a_rewritten_run_has_the_values_of_the_run(tmp_path: Path, qrels: Qrels) -> None:
    run = read_run(FOLDER / "results.test")
    write_run(tmp_path / "again.run", run, tag="again")
    names = ["AP", "RR", "RR@10", "P@10", "nDCG", "Bpref"]
    again = evaluate_run(qrels, read_run(tmp_path / "again.run"), names)
    assert again == evaluate_run(qrels, run, names)


def test_words_after_the_sixth_column_are_refused_with_their_line() -> None:
    with pytest.raises(InputError, match=r"results\.trunc:1: 9 columns; a run has 6"):
        read_run(FOLDER / "results.trunc")


def test_our_order_of_ties_moves_means_of_this_run_by_less_than_a_thousandth(qrels: Qrels) -> None:
    """NIST's run has tied scores; we put the lower document id first, trec_eval the higher."""
    run = read_run(FOLDER / "results.test")
    theirs = in_order_of_trec_eval(run)
    assert [sorted(theirs[q], key=theirs[q].__getitem__)[::-1] for q in run] != [
        ranking(run[q]) for q in run
    ]
    names = ["AP", "RR", "nDCG", "nDCG@100", "P@10", "R@100"]
    a, b = evaluate_run(qrels, run, names).means, evaluate_run(qrels, theirs, names).means
    assert a != b
    assert a == pytest.approx(b, abs=1e-3)


# NIST's out.test.aql, of `trec_eval -l2 qrels.rel_level results.test` (usnistgov/trec_eval
# @54a70fbd), which does not lie beside the other outputs. Queries 301, 302, 303, and all.
LEVEL_2 = """
num_rel_ret 1 50 8 59
map 0.0003 0.4175 0.0823 0.1667
Rprec 0.0000 0.5065 0.0000 0.1688
bpref 0.0000 0.4712 0.0000 0.1571
recip_rank 0.0033 1.0000 0.0526 0.3520
infAP 0.0003 0.4175 0.1200 0.1792
ndcg 0.1396 0.6617 0.3669 0.3894
ndcg_cut_10 0.0439 0.7530 0.0000 0.2656
ndcg_cut_100 0.1390 0.6046 0.3294 0.3577
P_10 0.0000 0.7000 0.0000 0.2333
P_20 0.0000 0.8000 0.0500 0.2833
P_100 0.0000 0.4200 0.0700 0.1633
recall_20 0.0000 0.2078 0.1250 0.1109
recall_1000 0.0833 0.6494 1.0000 0.5776
map_cut_10 0.0000 0.0768 0.0000 0.0256
map_cut_100 0.0000 0.3983 0.0729 0.1571
success_5 0.0000 1.0000 0.0000 0.3333
set_P 0.0020 0.1000 0.0160 0.0393
set_relative_P 0.0833 0.6494 1.0000 0.5776
set_recall 0.0833 0.6494 1.0000 0.5776
set_map 0.0002 0.0649 0.0160 0.0270
set_F 0.0039 0.1733 0.0315 0.0696
"""


def test_a_relevance_level_of_two_equals_l2_with_grades_of_minus_one_to_four(run: Run) -> None:
    qrels = read_qrels(FOLDER / "qrels.rel_level")
    assert {grade for judged in qrels.values() for grade in judged.values()} == {-1, 0, 1, 2, 3, 4}
    output: Output = {query: {} for query in ("301", "302", "303", "all")}
    for name, *values in map(str.split, LEVEL_2.split("\n")[1:-1]):
        for query, text in zip(output, values, strict=True):
            output[query][name] = float(text)
    assert check(output, qrels, run, lambda name: True, rel=2) == 22 * 4


@pytest.mark.parametrize("level", range(11))
def test_precision_at_recall_differs_by_the_rounding_of_version_10_alone(
    qrels: Qrels, run: Run, level: int
) -> None:
    """`lround(recall x relevant)` took the place of `int(recall x relevant + 0.9)` in version 10.

    NIST's outputs are of version 10; ir-measures computes version 9's. See m_iprec_at_recall.c.
    """
    output, name = read_output("out.test.aq"), f"iprec_at_recall_{level / 10:.2f}"
    found = evaluate_run(qrels, run, [ours(name)]).per_query[ours(name)]
    for query in qrels:
        relevant = [qrels[query].get(document, 0) > 0 for document in ranking(run[query])]
        share = level / 10 * sum(qrels[query].values())
        version_9 = best_precision(relevant, int(share + 0.9))
        version_10 = best_precision(relevant, int(share + 0.5))
        assert found[query] == pytest.approx(version_9, abs=1e-9)
        assert output[query][name] == pytest.approx(version_10, abs=HALF_A_UNIT)


def best_precision(relevant: list[bool], least: int) -> float:
    """The best precision at any rank that has `least` relevant documents or more."""
    found = np.cumsum(relevant)
    precisions = found / np.arange(1, len(relevant) + 1)
    return float(max(precisions[(found >= least) & relevant], default=0.0))
