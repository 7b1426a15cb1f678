from pathlib import Path

import pytest

from jaxrank.data.groups import Group
from jaxrank.errors import InputError
from jaxrank.retrieval.mining import mine_negatives, read_exclusions

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


def test_a_positive_without_candidates_is_left_out_and_counted() -> None:
    run = {"q1": {"d03": 1.0, "d07": 0.5}, "q2": {"d01": 1.0}}
    groups, report = mine_negatives(run, QRELS, negatives=2)
    assert groups == [Group("q2", "d99", ("d01",))]
    assert report.positives_without_negatives == 2
    assert "2 positives have no negative: left out" in report.lines()


def test_a_run_of_another_collection_is_refused() -> None:
    with pytest.raises(InputError, match="'d20', which is not in the collection"):
        mine_negatives(RUN, QRELS, negatives=2, documents={*IDS[:19], "d99"})


def test_no_group_at_all_is_refused() -> None:
    with pytest.raises(InputError, match=r"no group could be made.*2 queries are not in the run"):
        mine_negatives({"x": {"d": 1.0}}, QRELS, negatives=2)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"negatives": 0}, "negatives: 0"),
        ({"negatives": 2, "first_rank": 0}, "first_rank"),
        ({"negatives": 2, "first_rank": 9, "last_rank": 8}, "first_rank"),
        ({"negatives": 9, "first_rank": 3, "last_rank": 10}, "are only 8"),
        ({"negatives": 2, "groups_per_positive": 0}, "groups_per_positive"),
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
