import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from jaxrank.data.groups import Group
from jaxrank.errors import InputError
from jaxrank.retrieval.mining import Miner, mine_negatives, read_exclusions
from jaxrank.retrieval.mining_config import MiningConfig

IDS = [f"d{rank:02}" for rank in range(1, 21)]
RUN = {
    "q1": {document_id: 20.0 - i for i, document_id in enumerate(IDS)},
    "q2": dict.fromkeys(IDS, 5.0),
}
QRELS = {"q1": {"d03": 1, "d07": 2, "d05": 0}, "q2": {"d99": 1}}


def drawn(groups: list[Group], query_id: str) -> set[str]:
    return {d for group in groups if group.query_id == query_id for d in group.negative_ids}


def test_negatives_come_from_the_ranks_and_are_never_judged_relevant() -> None:
    groups, report = mine_negatives(RUN, QRELS, negatives=6, first_rank=2, last_rank=9)
    assert [(g.query_id, g.positive_id) for g in groups] == [
        ("q1", "d03"), ("q1", "d07"), ("q2", "d99")
    ]  # fmt: skip
    assert drawn(groups, "q1") == {"d02", "d04", "d05", "d06", "d08", "d09"}
    assert all(len(set(group.negative_ids)) == 6 for group in groups)
    assert report.positives_in_range == 2
    assert (report.groups, report.queries, report.short_groups) == (3, 2, 0)


def test_a_document_judged_zero_may_be_a_negative() -> None:
    groups, _ = mine_negatives(RUN, QRELS, negatives=1, first_rank=5, last_rank=5)
    assert drawn(groups, "q1") == {"d05"}


def test_ranks_follow_score_then_document_id() -> None:
    groups, _ = mine_negatives(RUN, QRELS, negatives=3, first_rank=1, last_rank=3)
    assert drawn(groups, "q2") == {"d01", "d02", "d03"}


def test_excluded_pairs_are_left_out_and_counted() -> None:
    exclude = {("q2", "d01"), ("q2", "d02"), ("q1", "d20"), ("q7", "d03")}
    groups, report = mine_negatives(RUN, QRELS, negatives=3, last_rank=5, exclude=exclude)
    assert drawn(groups, "q2") == {"d03", "d04", "d05"}
    assert report.excluded == 2


def test_the_groups_of_a_positive_share_no_negative_while_they_last() -> None:
    groups, _ = mine_negatives(RUN, QRELS, negatives=7, last_rank=14, groups_per_positive=2, seed=3)
    first, second = (set(g.negative_ids) for g in groups if g.query_id == "q2")
    assert first.isdisjoint(second)
    assert first | second == set(IDS[:14])
    again = [g.negative_ids for g in groups if g.positive_id == "d03"]
    assert all(len(set(ids)) == 7 for ids in again)  # 12 candidates: the second goes round


def test_negatives_that_a_second_group_repeats_are_counted() -> None:
    groups, report = mine_negatives(
        RUN, {"q1": {"d03": 1}}, negatives=3, last_rank=5, groups_per_positive=2
    )
    assert report.repeated_negatives == 2  # of 4 candidates
    assert len(set(groups[0].negative_ids) & set(groups[1].negative_ids)) == 2
    assert any(line.startswith("2 negatives are in another group") for line in report.lines())
    _, report = mine_negatives(RUN, QRELS, negatives=3, last_rank=10, groups_per_positive=2)
    assert report.repeated_negatives == 0
    assert not any("in another group" in line for line in report.lines())


def test_short_groups_and_their_missing_negatives_are_counted() -> None:
    groups, report = mine_negatives(RUN, QRELS, negatives=5, first_rank=3, last_rank=7)
    assert [len(group.negative_ids) for group in groups] == [3, 3, 5]
    assert (report.short_groups, report.missing_negatives) == (2, 4)


def test_the_seed_decides_and_other_queries_change_nothing() -> None:
    settings = {"negatives": 4, "last_rank": 20}
    groups, _ = mine_negatives(RUN, QRELS, **settings, seed=1)
    assert mine_negatives(RUN, QRELS, **settings, seed=1)[0] == groups
    assert mine_negatives(RUN, QRELS, **settings, seed=2)[0] != groups
    assert mine_negatives(RUN, {"q2": QRELS["q2"]}, **settings, seed=1)[0] == groups[2:]


def test_draws_are_spread_evenly_over_the_ranks() -> None:
    qrels = {"q1": {f"p{i}": 1 for i in range(2000)}}
    groups, _ = mine_negatives(RUN, qrels, negatives=5, last_rank=20)
    counts = [sum(d in g.negative_ids for g in groups) for d in IDS]
    assert all(400 < count < 600 for count in counts)  # 500 expected, standard deviation 19


def test_positives_outside_the_collection_and_queries_outside_the_run_are_counted() -> None:
    qrels = QRELS | {"q3": {"d01": 1}, "q4": {"d01": 0}}
    groups, report = mine_negatives(RUN, qrels, negatives=2, documents=set(IDS))
    assert {group.query_id for group in groups} == {"q1"}
    assert (report.positives_not_in_collection, report.queries_not_in_run) == (1, 1)
    missing = next(name for name, grade in qrels["q2"].items() if grade > 0)
    assert report.first_not_in_collection == missing
    line = f"1 positives are not in the collection, first {missing}: left out"
    assert line in report.lines()


def test_a_positive_without_candidates_is_left_out_and_counted() -> None:
    run = {"q1": {"d03": 1.0, "d07": 0.5}, "q2": {"d01": 1.0}}
    groups, report = mine_negatives(run, QRELS, negatives=2)
    assert groups == [Group("q2", "d99", ("d01",))]
    assert report.positives_without_negatives == 2
    assert "2 positives have no negative: left out" in report.lines()


def test_a_run_of_another_collection_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"^run: query 'q1' has document 'd20', which the collection lacks; give"
    ):
        mine_negatives(RUN, QRELS, negatives=2, documents={*IDS[:19], "d99"})


def test_a_document_of_many_queries_is_looked_up_once() -> None:
    asked: list[str] = []

    class Asked(set[str]):
        def __contains__(self, name: object) -> bool:
            asked.append(str(name))
            return super().__contains__(name)

    mine_negatives(RUN, QRELS, negatives=2, last_rank=20, documents=Asked([*IDS, "d99"]))
    assert sorted(asked) == [*IDS, "d99"]


def test_no_group_at_all_is_refused() -> None:
    with pytest.raises(InputError) as error:
        mine_negatives({"q1": {"d03": 1.0}}, QRELS, negatives=2)
    assert str(error.value) == (
        "no group could be made: 1 queries are not in the run, with 1 positives: left out; "
        "2 positives have no negative: left out; 1 candidates are judged relevant: left out"
    )


def test_a_run_of_another_split_is_named_as_such() -> None:
    with pytest.raises(
        InputError, match=r"^run: none of its 1 queries is judged \(first 'x', judged is 'q1'\)"
    ):
        mine_negatives({"x": {"d": 1.0}}, QRELS, negatives=2)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"negatives": 0}, "negatives: 0"),
        ({"negatives": 2, "first_rank": 0}, "first_rank"),
        ({"negatives": 2, "first_rank": 9, "last_rank": 8}, "first_rank"),
        ({"negatives": 9, "first_rank": 3, "last_rank": 10}, "are only 8"),
        ({"negatives": 2, "groups_per_positive": 0}, "groups_per_positive"),
        ({"negatives": 2, "min_grade": 0}, "min_grade: 0; at least 1"),
        ({"negatives": 2, "score_margin": float("nan")}, "score_margin: nan; a finite number"),
    ],
)
def test_numbers_out_of_range_are_refused(settings: dict[str, int], words: str) -> None:
    with pytest.raises(InputError, match=words):
        mine_negatives(RUN, QRELS, **settings)


def test_an_exclusion_list_has_two_columns(tmp_path: Path) -> None:
    path = tmp_path / "exclude.tsv"
    path.write_text("q1\td1\n\nq2 d2\r\n")
    assert read_exclusions(path) == {("q1", "d1"), ("q2", "d2")}
    path.write_text("q1\td1\nq2\n")
    with pytest.raises(InputError, match=r"exclude\.tsv:2: 1 columns"):
        read_exclusions(path)


def test_groups_come_query_by_query_in_the_order_of_the_run() -> None:
    asked: list[str] = []

    def run() -> Iterator[tuple[str, dict[str, float]]]:
        for query_id in ("q2", "other", "q1"):
            asked.append(query_id)
            yield query_id, RUN["q1"]

    miner = Miner(QRELS, MiningConfig(negatives=2))
    groups = miner.mine(run())
    assert next(groups).query_id == "q2"
    assert asked == ["q2"]
    assert [group.query_id for group in groups] == ["q1", "q1"]
    assert miner.report().queries_not_judged == 1


def test_the_margin_leaves_out_what_scores_close_to_each_positive_or_above() -> None:
    # Scores fall by 1 from 20 on: d03 has 18, d07 14.
    groups, report = mine_negatives(RUN, QRELS, negatives=9, last_rank=12, score_margin=2.0)
    by_positive = {group.positive_id: set(group.negative_ids) for group in groups}
    assert by_positive["d03"] == {"d05", "d06", "d08", "d09", "d10", "d11", "d12"}
    assert by_positive["d07"] == {"d09", "d10", "d11", "d12"}
    assert (report.above_margin, report.positives_without_score) == (3 + 6, 1)
    assert len(by_positive["d99"]) == 9  # q2's positive is not in the run
    assert any("9 candidates score above the margin" in line for line in report.lines())


def test_a_margin_of_zero_keeps_what_scores_as_the_positive() -> None:
    run = {"q1": {"d01": 3.0, "d03": 2.0, "d04": 2.0, "d08": 1.0}}
    groups, _ = mine_negatives(run, QRELS, negatives=3, last_rank=4, score_margin=0.0)
    assert drawn(groups[:1], "q1") == {"d04", "d08"}


def test_without_a_margin_no_positive_needs_a_score() -> None:
    _, report = mine_negatives(RUN, QRELS, negatives=2)
    assert (report.above_margin, report.positives_without_score) == (None, 0)
    assert not any("margin" in line for line in report.lines())


def test_duplicates_of_a_relevant_document_and_of_a_better_candidate_are_left_out() -> None:
    bodies = dict.fromkeys(IDS, 0) | {name: place for place, name in enumerate(IDS)}
    bodies |= {"d02": bodies["d07"], "d09": bodies["d04"], "d10": bodies["d04"]}
    settings = {"negatives": 6, "last_rank": 10}
    groups, report = mine_negatives(
        {"q1": RUN["q1"]},
        QRELS,
        documents=set(IDS),
        fingerprint=bodies.__getitem__,
        drop_duplicates=True,
        **settings,
    )
    assert drawn(groups, "q1") == {"d01", "d04", "d05", "d06", "d08"}
    assert (report.duplicates_of_relevant, report.duplicates_of_candidates) == (1, 2)
    assert "left out" in next(line for line in report.lines() if "duplicates" in line)
    assert mine_negatives(RUN, QRELS, **settings)[1].duplicates_of_relevant is None


def test_duplicates_that_are_not_to_be_dropped_are_counted_and_kept() -> None:
    bodies = dict(zip(IDS, range(20), strict=True)) | {"d99": 99, "d09": 3, "d02": 2}
    settings = {"negatives": 8, "last_rank": 10}
    groups, report = mine_negatives(RUN, QRELS, fingerprint=bodies.__getitem__, **settings)
    assert groups == mine_negatives(RUN, QRELS, **settings)[0]
    # d02 has the body of q1's positive d03; d09 that of d04; in q2 both repeat a better one.
    assert (report.duplicates_of_relevant, report.duplicates_of_candidates) == (1, 1 + 2)
    assert any("kept (drop_duplicates leaves them out)" in line for line in report.lines())


def test_a_guard_that_leaves_nothing_out_changes_no_draw() -> None:
    settings = {"negatives": 5, "last_rank": 20, "groups_per_positive": 2, "seed": 4}
    plain, _ = mine_negatives(RUN, QRELS, **settings)
    guarded, report = mine_negatives(
        RUN,
        QRELS,
        score_margin=-1000.0,
        drop_duplicates=True,
        fingerprint=[*IDS, "d99"].index,
        **settings,
    )
    assert guarded == plain
    assert (report.above_margin, report.duplicates_of_relevant) == (0, 0)


def test_a_lowest_grade_chooses_positives_and_lets_no_relevant_document_be_a_negative() -> None:
    qrels = {"q1": {"d03": 1, "d07": 3, "d05": 0}, "q2": {"d01": 1}}
    groups, report = mine_negatives(RUN, qrels, negatives=8, last_rank=10, min_grade=2)
    assert [(group.query_id, group.positive_id) for group in groups] == [("q1", "d07")]
    assert drawn(groups, "q1") == set(IDS[:10]) - {"d03", "d07"}
    assert (report.positives, report.queries_without_positives) == (1, 1)


def test_the_counts_say_where_every_positive_went() -> None:
    draw = random.Random(0)
    run = {f"q{n}": dict.fromkeys(draw.sample(IDS, 2), 1.0) for n in range(50)}
    qrels = {
        f"q{n}": {name: draw.randint(0, 1) for name in draw.sample([*IDS, "x1", "x2"], 8)}
        for n in range(10, 70)
    }
    groups, report = mine_negatives(
        run, qrels, negatives=2, groups_per_positive=2, documents=set(IDS), score_margin=0.5
    )
    assert report.positives == sum(sum(judged.values()) for judged in qrels.values())
    gone = (
        report.positives_not_in_collection,
        report.positives_of_queries_not_in_run,
        report.positives_without_negatives,
    )
    assert all(count > 0 for count in gone)
    assert report.positives_used + sum(gone) == report.positives
    assert len(groups) == report.groups == 2 * report.positives_used
