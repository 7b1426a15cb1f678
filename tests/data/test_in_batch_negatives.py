"""Which documents of a batch's other groups are negatives of a query."""

from pathlib import Path

from jaxrank.data.groups import Group, read_training_data
from jaxrank.data.in_batch_negatives import (
    PairCounts,
    RelevantDocuments,
    count_pairs,
    count_repeated_queries,
    known_relevant,
    mask_pairs,
)
from jaxrank.data.samples import Sample

NAMES = {"q1": ["a", "b"], "q2": ["c", "d"], "q3": ["e", "f"]}
NOTHING: RelevantDocuments = {}
TEXTS = {"q1": "one", "q2": "two", "q3": "three"}


def mask(
    names: dict[str, list[str]] = NAMES,
    relevant: RelevantDocuments = NOTHING,
    candidates: int = 2,
) -> tuple[list[str], PairCounts]:
    """Each query's row, as letters for what counts."""
    rows, counts = mask_pairs(list(names), list(names.values()), relevant, candidates=candidates)
    return ["".join("1" if counted else "0" for counted in row) for row in rows.tolist()], counts


def test_a_query_has_all_documents_of_the_others_behind_its_own():
    assert mask() == (["111111"] * 3, PairCounts(12, 0, 0))


def test_what_is_relevant_to_a_query_is_no_negative_of_it_but_of_others():
    rows, counts = mask(relevant={"q1": {"d"}, "q3": {"a"}})
    # Behind its own, q3 has the documents of q1.
    assert rows == ["111011", "111111", "110111"]
    assert counts == PairCounts(12, 2, 0)


def test_a_document_counts_once_for_a_query():
    rows, counts = mask({"q1": ["a", "b"], "q2": ["c", "b"], "q3": ["c", "f"]})
    assert rows == ["111001", "110110", "111100"]
    assert counts == PairCounts(12, 0, 6)


def test_places_without_a_document_do_not_count():
    rows, _ = mask({"q1": ["a", "b"], "q2": ["c"], "q3": ["e", "f"]})
    assert rows == ["111011", "101111", "111110"]


def test_a_group_alone_has_its_own_documents_even_if_one_is_judged_relevant():
    assert mask({"q1": ["a", "b"]}, {"q1": {"b"}})[0] == ["11"]


def test_a_document_that_an_own_group_has_twice_counts_twice():
    rows, _ = mask({"q1": ["p", "n", "n", "m"], "q2": ["a", "b"]}, candidates=4)
    assert rows == ["11111100", "11001101"]


def test_grades_above_0_and_the_positives_of_all_groups_of_a_query_are_relevant():
    groups = [Group("q1", "a", ("b",)), Group("q1", "c", ("d",)), Group("q2", "e", ("f",))]
    qrels = {"q1": {"x": 2, "y": 0}, "q9": {"z": 1}}
    assert known_relevant(groups, qrels, TEXTS) == {"q1": {"a", "c", "x"}, "q2": {"e"}}


def test_queries_of_one_text_share_what_is_relevant():
    groups = [Group(name, name.upper(), ("n",)) for name in ("a", "b", "c")]
    texts = {"a": "same", "b": "other", "c": "same"}
    relevant = known_relevant(groups, {"c": {"x": 1}}, texts)
    assert relevant == {"a": {"A", "C", "x"}, "b": {"B"}, "c": {"A", "C", "x"}}
    assert count_repeated_queries(groups, texts) == 1


def test_a_line_of_texts_is_no_negative_of_another_line_of_the_same_query(tmp_path: Path):
    (tmp_path / "groups.jsonl").write_text(
        '{"query": "a", "pos": ["x"], "neg": ["n"]}\n{"query": "a", "pos": ["y"], "neg": ["m"]}\n'
    )
    data = read_training_data(tmp_path / "groups.jsonl")
    rows, counts = mask(
        {group.query_id: [group.positive_id, *group.negative_ids] for group in data.groups},
        known_relevant(data.groups, {}, data.queries),
    )
    assert rows == ["1101", "1101"]
    assert counts == PairCounts(4, 2, 0)


def test_pairs_are_counted_by_parts_of_what_is_drawn():
    groups = [Group("q1", "a", ("b", "c")), Group("q2", "d", ("a", "e")), Group("q3", "f", ("g",))]
    samples = [Sample(0, [1]), Sample(1, [0]), Sample(2, [0]), Sample(1, [1])]
    counts = count_pairs(
        groups,
        samples,
        known_relevant(groups, {"q3": {"d": 1}}, TEXTS),
        groups_together=2,
        candidates=2,
    )
    # q1 meets its own positive again and q3 a judged one; q2 meets its own negative again.
    assert counts == PairCounts(8, 2, 1)
