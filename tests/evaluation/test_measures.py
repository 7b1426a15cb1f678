import math

import pytest

from jaxrank.errors import InputError
from jaxrank.evaluation.measures import evaluate_run, parse_measures, split_measures

QRELS = {"q1": {"d1": 1, "d2": 0}, "q2": {"d3": 2}, "q3": {"d1": 1}}


def test_values_by_hand() -> None:
    run = {"q1": {"d2": 2.0, "d1": 1.0}, "q2": {"d3": 9.0, "d4": 8.0}, "q3": {"d9": 1.0}}
    evaluation = evaluate_run(QRELS, run, ["RR@10", "nDCG@10", "R@1", "P@2"])
    assert evaluation.per_query["RR@10"] == {"q1": 0.5, "q2": 1.0, "q3": 0.0}
    assert evaluation.per_query["nDCG@10"] == pytest.approx(
        {"q1": 1 / math.log2(3), "q2": 1, "q3": 0}
    )
    assert evaluation.per_query["R@1"] == {"q1": 0.0, "q2": 1.0, "q3": 0.0}
    assert evaluation.means["P@2"] == pytest.approx((0.5 + 0.5 + 0) / 3)


def test_gain_is_linear_in_the_grade() -> None:
    run = {"q": {"low": 2.0, "high": 1.0}}
    ndcg = evaluate_run({"q": {"low": 1, "high": 3}}, run, ["nDCG@10"]).means["nDCG@10"]
    assert ndcg == pytest.approx((1 + 3 / math.log2(3)) / (3 + 1 / math.log2(3)))


def test_queries_missing_from_the_run_count_zero_and_are_named() -> None:
    evaluation = evaluate_run(QRELS, {"q2": {"d3": 1.0}}, ["RR@10", "RR"])
    assert evaluation.means == pytest.approx({"RR@10": 1 / 3, "RR": 1 / 3})
    assert evaluation.missing_queries == ("q1", "q3")
    assert list(evaluation.per_query["RR"].items()) == [("q1", 0.0), ("q2", 1.0), ("q3", 0.0)]


def test_counts_of_the_qrels_count_queries_that_the_run_lacks() -> None:
    evaluation = evaluate_run(QRELS, {"q2": {"d3": 1.0}}, ["NumQ", "NumRel", "NumRet"])
    assert evaluation.means == {"NumQ": 3, "NumRel": 3, "NumRet": 1}


def test_queries_without_judgements_are_left_out_and_named() -> None:
    run = {"q1": {"d1": 1.0}, "q2": {"d3": 1.0}, "q3": {"d1": 1.0}, "q7": {"d1": 1.0}}
    evaluation = evaluate_run(QRELS, run, ["RR@10"])
    assert evaluation.means["RR@10"] == 1.0
    assert evaluation.unjudged_queries == ("q7",)


@pytest.mark.parametrize(("relevant", "value"), [("a", 1.0), ("b", 0.5), ("c", 1 / 3)])
def test_every_measure_breaks_ties_by_rising_document_id(relevant: str, value: float) -> None:
    run = {"q": {"b": 1.0, "c": 1.0, "a": 1.0}}
    evaluation = evaluate_run({"q": {relevant: 1}}, run, ["RR", "RR@10", "AP", "IPrec@1.0"])
    assert evaluation.means == pytest.approx(dict.fromkeys(evaluation.means, value))
    assert len(evaluation.means) == 4


def test_scores_closer_than_float32_still_order_the_run() -> None:
    run = {"q": {"a": 1.0, "b": 1.0 + 1e-9}}
    assert evaluate_run({"q": {"b": 1}}, run, ["RR", "RR@10"]).means == {"RR": 1.0, "RR@10": 1.0}


def test_measures_are_split_at_blanks_and_commas_outside_brackets() -> None:
    text = " RR@10 nDCG@10,R@50, SetF(rel=2, beta=2) AP(rel=2)@100 "
    assert split_measures(text) == [
        "RR@10",
        "nDCG@10",
        "R@50",
        "SetF(rel=2, beta=2)",
        "AP(rel=2)@100",
    ]


def test_parameters_and_cutoffs_reach_ir_measures() -> None:
    names = ["AP(rel=2)@100", "IPrec@0.1", "nDCG(gains={0: 0, 1: 5})@10", "RR@10", "RR@10"]
    parsed = parse_measures(names)
    assert [str(m) for m in parsed] == [
        "AP(rel=2)@100", "IPrec@0.1", "nDCG(gains={1:5})@10", "RR@10"
    ]  # fmt: skip
    qrels, run = {"q": {"d": 1, "e": 2}}, {"q": {"d": 2.0, "e": 1.0}}
    assert evaluate_run(qrels, run, ["RR(rel=2)@10"]).means == {"RR(rel=2)@10": 0.5}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ndgc@10", "did you mean 'nDCG@10'?"),
        ("ndgc(dcg='exp-log2')@10", "did you mean \"nDCG(dcg='exp-log2')@10\"?"),
        ("RR@-3", "the cutoff must be a whole number from 1 to 1,000,000,000"),
        ("RR@ten", "the cutoff must be a whole number from 1"),
        ("mrr@10", "did you mean 'RR@10'?"),
        ("accuracy99@1", "unknown"),
        ("RR@0", "cutoff"),
        ("nDCG@99999999999999999999", "the cutoff must be a whole number from 1 to 1,000,000,000"),
        ("P", "cutoff"),
        ("RR(level=2)", "level"),
        ("RR(2)", "key=value"),
        ("RR@10@5", "Name"),
        ("RR(rel=two)", "measure 'RR(rel=two)'"),
        ("RR@1.5", "measure 'RR@1.5': the cutoff must be a whole number"),
        ("AP(rel=0)", "must be 1 or more"),
    ],
)
def test_a_bad_measure_is_named_with_advice(name: str, words: str) -> None:
    with pytest.raises(InputError) as error:
        parse_measures([name])
    assert words in str(error.value)
    assert "object at" not in str(error.value)


def test_no_measures_and_no_common_query_are_refused() -> None:
    with pytest.raises(InputError, match="none given"):
        evaluate_run(QRELS, {"q1": {"d1": 1.0}}, [])
    with pytest.raises(InputError, match="share no query"):
        evaluate_run(QRELS, {"x1": {"d1": 1.0}}, ["RR"])
