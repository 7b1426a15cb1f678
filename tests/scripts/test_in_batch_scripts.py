"""The tables of the scripts on in-batch negatives, and what one of their steps counts."""

from dataclasses import replace

import pytest

from jaxrank.models.mamba import PRESETS
from jaxrank.models.module import RerankerConfig
from scripts.in_batch_cost import compare_steps, make_table, plain_batch, shared_batch
from scripts.in_batch_study import MEASURES, compare, describe_clocks
from scripts.in_batch_study import make_table as make_study_table


def test_both_kinds_of_batches_hold_as_many_documents_and_queries():
    plain, shared = plain_batch(4, 3, 7, 2), shared_batch(4, 3, 7, 2)
    assert plain["mask"].sum() == 4 * 3 * (7 + 2)
    assert shared["document_mask"].sum() == 4 * 3 * 7
    assert shared["query_mask"].sum() == 4 * 2
    assert shared["candidate_mask"].sum() == 4 * plain["candidate_mask"].sum()


@pytest.mark.slow
def test_a_case_counts_documents_once_and_queries_behind_each_of_them():
    backbone = replace(PRESETS["mamba-tiny"], num_layers=1, hidden_size=16, vocab_size=1_000)
    found = compare_steps(RerankerConfig("mamba", backbone), (2, 2, 8, 3), repeats=1)
    assert found["tokens"] == {"plain": 4 * 11, "in_batch": 4 * 8 + 2 * 4 * 3}
    assert found["time_ratio"] > 0


def test_the_table_of_costs_has_a_row_for_each_model_and_number_of_groups():
    rows = [
        {"family": "mamba", "groups": groups, "document_tokens": length, "time_ratio": 1.234}
        | {"token_ratio": 1 + groups / length}
        for groups in (2, 4)
        for length in (128, 512)
    ]
    assert make_table(rows) == [
        "| Model | Groups | 128 document tokens | 512 document tokens |",
        "|---|---:|---:|---:|",
        "| mamba | 2 | 1.23 (1.02) | 1.23 (1.00) |",
        "| mamba | 4 | 1.23 (1.03) | 1.23 (1.01) |",
    ]


def test_recipes_are_compared_by_each_query_s_mean_over_seeds():
    def seed(plain: list[float], in_batch: list[float]) -> dict[str, dict[str, dict[str, float]]]:
        values = {"plain": plain, "in_batch": in_batch}
        return {
            recipe: {
                measure: {f"q{place}": value for place, value in enumerate(of_queries)}
                for measure in MEASURES
            }
            for recipe, of_queries in values.items()
        }

    seeds = [seed([0.0, 1.0, 0.5], [1.0, 1.0, 0.5]), seed([0.5, 0.0, 0.5], [0.5, 0.0, 0.0])]
    found = compare(seeds)
    for measure in MEASURES:
        assert found[measure]["plain"] == pytest.approx(2.5 / 6)
        assert found[measure]["difference"] == pytest.approx((0.5 + 0.0 - 0.25) / 3)
        assert (found[measure]["wins"], found[measure]["ties"], found[measure]["losses"]) == (
            1,
        ) * 3
    trained = {"plain": {"time_s": 400.0}, "in_batch": {"time_s": 412.0}}
    first = compare(seeds[:1]) | {"seed": 0, "trained": trained}
    rows = make_study_table({"seeds": [first], "all": found})
    assert rows[2].startswith("| 0 | RR@10 | 0.500 | 0.833 | +0.333 (")
    assert rows[4].startswith("| mean of 1 | RR@10 | 0.417 | 0.500 | +0.083 (")
    assert rows[6:] == [
        "",
        "Seed 0: trained for 400 s plain, 412 s in-batch (+3.0%), compiling included.",
    ]


def test_runs_of_unequal_time_are_not_passed_over():
    def seed(in_batch: float) -> dict[str, object]:
        return {"seed": 1, "trained": {"plain": {"time_s": 100}, "in_batch": {"time_s": in_batch}}}

    assert len(describe_clocks([seed(96), seed(104)])) == 2
    *_, last = describe_clocks([seed(104), seed(94)])
    assert last.startswith("NOT at equal time: -6.0%, 5% counts as equal.")
