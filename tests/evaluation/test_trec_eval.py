"""Against NIST's own qrels, run and outputs; they do not ship with the project."""

from pathlib import Path

import pytest

from jaxrank.evaluation.measures import evaluate_run
from jaxrank.evaluation.qrels import read_qrels
from jaxrank.evaluation.runs import read_run, write_run

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data" / "trec-eval"
MEASURES = {
    "AP": "map", "RR": "recip_rank", "P@10": "P_10", "P@5": "P_5", "P@1000": "P_1000",
    "Rprec": "Rprec", "Bpref": "bpref", "IPrec@0.2": "iprec_at_recall_0.20",
}  # fmt: skip

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="NIST's trec_eval data is not here")


def expected(file: str, query: str) -> dict[str, float]:
    rows = (line.split() for line in (FOLDER / file).read_text().splitlines())
    texts = ("runid", "relstring")
    return {name: float(value) for name, of, value in rows if of == query and name not in texts}


def test_means_equal_trec_eval() -> None:
    evaluation = evaluate_run(
        read_qrels(FOLDER / "qrels.test"), read_run(FOLDER / "results.test"), list(MEASURES)
    )
    trec_eval = expected("out.test", "all")
    assert (trec_eval["map"], trec_eval["recip_rank"], trec_eval["P_10"]) == (0.1785, 0.4064, 0.3)
    for ours, theirs in MEASURES.items():
        assert evaluation.means[ours] == pytest.approx(trec_eval[theirs], abs=5e-5), ours


@pytest.mark.parametrize("query", ["301", "302", "303"])
def test_each_query_equals_trec_eval_also_after_rewriting_the_run(
    tmp_path: Path, query: str
) -> None:
    write_run(tmp_path / "again.run", read_run(FOLDER / "results.test"), tag="again")
    qrels, run = read_qrels(FOLDER / "qrels.test"), read_run(tmp_path / "again.run")
    values = evaluate_run(qrels, run, ["AP", "RR", "P@10", "nDCG"]).per_query
    trec_eval = expected("out.test.aq", query)
    for ours, theirs in {"AP": "map", "RR": "recip_rank", "P@10": "P_10", "nDCG": "ndcg"}.items():
        assert values[ours][query] == pytest.approx(trec_eval[theirs], abs=5e-5), ours
