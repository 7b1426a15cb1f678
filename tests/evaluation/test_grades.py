"""Grades below 0, several levels, and queries that have nothing relevant."""

import math

import pytest

from jaxrank.evaluation.measures import evaluate_run

RUN = {"q": {"a": 5.0, "b": 4.0, "c": 3.0, "d": 2.0, "e": 1.0}}


@pytest.mark.parametrize("negative", [-1, -2])
@pytest.mark.parametrize("measure", ["nDCG@10", "nDCG", "AP", "RR@10", "P@5", "R@2", "Judged@5"])
def test_negative_grades_are_judged_and_not_relevant(measure: str, negative: int) -> None:
    negatives = {"q": {"a": negative, "b": 1, "c": negative, "d": 2}}
    zeros = {"q": {"a": 0, "b": 1, "c": 0, "d": 2}}
    assert evaluate_run(negatives, RUN, [measure]) == evaluate_run(zeros, RUN, [measure])


def test_the_gain_of_a_negative_grade_is_0() -> None:
    value = evaluate_run({"q": {"a": -2, "b": 2}}, RUN, ["nDCG@10"]).means["nDCG@10"]
    assert value == pytest.approx(1 / math.log2(3))


def test_a_query_with_negative_grades_only_counts_0() -> None:
    """trec_eval's nDCG may never end there, so memory is filled with other queries first."""
    judged = {"q": {"a": -1, "b": -2}}
    other = {"q": {"a": -2, "b": 1, "d": 2}}
    for _ in range(20):
        for qrels in (other, judged):
            evaluation = evaluate_run(qrels, RUN, ["nDCG@10", "nDCG", "AP", "Judged@5"])
        assert evaluation.means == {"nDCG@10": 0.0, "nDCG": 0.0, "AP": 0.0, "Judged@5": 0.4}


def test_a_query_without_relevant_documents_is_part_of_the_mean() -> None:
    qrels = {"q": {"a": 1}, "none": {"a": 0}}
    run = RUN | {"none": {"a": 1.0}}
    evaluation = evaluate_run(qrels, run, ["RR@10", "AP", "nDCG@10", "R@10"])
    assert evaluation.means == pytest.approx(dict.fromkeys(evaluation.means, 0.5))


def test_the_relevance_level_is_that_of_its_measure_alone() -> None:
    qrels = {"q": {"b": 1, "d": 2, "e": 3}}
    names = ["RR@10", "RR(rel=2)@10", "RR(rel=3)@10", "R(rel=2)@4", "nDCG@10"]
    together = evaluate_run(qrels, RUN, names).means
    assert together["RR@10"] == pytest.approx(1 / 2)
    assert together["RR(rel=2)@10"] == pytest.approx(1 / 4)
    assert together["RR(rel=3)@10"] == pytest.approx(1 / 5)
    assert together["R(rel=2)@4"] == pytest.approx(1 / 2)
    assert together == {name: evaluate_run(qrels, RUN, [name]).means[name] for name in names}


def test_judged_counts_documents_of_any_grade() -> None:
    qrels = {"q": {"a": -1, "c": 0, "d": 2, "far": 1}}
    assert evaluate_run(qrels, RUN, ["Judged@4"]).means["Judged@4"] == pytest.approx(3 / 4)


def test_many_queries_given_one_by_one_are_those_of_the_whole_run() -> None:
    qrels = {f"q{i}": {f"d{i % 7}": 1} for i in range(1500)}
    run = {f"q{i}": {f"d{j}": float(-j) for j in range(7)} for i in range(1400)}
    whole = evaluate_run(qrels, run, ["RR@10", "nDCG@10", "NumQ"])
    assert evaluate_run(qrels, iter(run.items()), ["RR@10", "nDCG@10", "NumQ"]) == whole
    assert len(whole.missing_queries) == 100
    assert whole.depth == 7
    expected = sum(1 / (i % 7 + 1) for i in range(1400)) / 1500
    assert whole.means["RR@10"] == pytest.approx(expected)
