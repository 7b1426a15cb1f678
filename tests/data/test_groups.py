import json
from pathlib import Path

import pytest

from jaxrank.data.groups import Group, read_groups, read_training_data, write_groups
from jaxrank.errors import InputError

GROUPS = [Group("q1", "d1", ("d2", "d3")), Group("q2", "é", ("d1",))]


def line(**changes: object) -> str:
    entry = {"query_id": "q1", "positive_id": "d1", "negative_ids": ["d2", "d3"]} | changes
    return json.dumps({key: value for key, value in entry.items() if value != "absent"})


def test_groups_are_read_back_as_written(tmp_path: Path):
    write_groups(tmp_path / "groups.jsonl", GROUPS)
    assert read_groups(tmp_path / "groups.jsonl") == GROUPS


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (line(positive_id="absent"), "lacks positive_id"),
        (line(positive_id=""), "'positive_id': got ''; an id is needed"),
        (line(positive_id=None), "'positive_id': got None"),
        (line(negative_ids=["d2"]), "1 negatives; at least 2 are needed"),
        (line(negative_ids="d2"), "'negative_ids': a list of strings"),
        (line(negative_ids=["d2", 3]), "'negative_ids': a list of strings"),
        (line(negative_ids=["d2", "d2"]), "a document is named twice"),
        (line(negative_ids=["d1", "d2"]), "a document is named twice"),
        (line(negatives=[]), "has an unknown key, negatives"),
        (line(query_id="q9"), "query 'q9' is not in the collection"),
        (line(negative_ids=["d2", "d9"]), "document 'd9' is not in the collection"),
        ("{", "not valid JSON"),
    ],
)
def test_a_bad_group_is_named_by_file_and_line(tmp_path: Path, bad: str, message: str):
    path = tmp_path / "groups.jsonl"
    path.write_text(f"{line()}\n{bad}\n")
    texts = {"d1": "", "d2": "", "d3": ""}
    with pytest.raises(InputError, match=rf"groups\.jsonl:2: {message}"):
        read_groups(path, min_negatives=2, queries={"q1": ""}, documents=texts)


def test_fewer_negatives_pass_where_they_are_allowed(tmp_path: Path):
    (tmp_path / "groups.jsonl").write_text(line(negative_ids=["d2"]))
    assert read_groups(tmp_path / "groups.jsonl")[0].negative_ids == ("d2",)


def test_an_empty_file_is_refused(tmp_path: Path):
    (tmp_path / "groups.jsonl").write_text("\n")
    with pytest.raises(InputError, match="no groups"):
        read_training_data(tmp_path / "groups.jsonl")


def test_groups_by_texts_give_one_group_for_each_positive(tmp_path: Path):
    path = tmp_path / "groups.jsonl"
    entry = {"query": "Q?", "pos": ["yes", "yea"], "neg": ["no", "nay", "no"], "prompt": "p"}
    path.write_text(json.dumps(entry) + "\n" + json.dumps(entry | {"pos": ["yes"]}))
    data = read_training_data(path, min_negatives=2)
    texts = [
        (data.queries[g.query_id], data.documents[g.positive_id],
         [data.documents[name] for name in g.negative_ids])
        for g in data.groups
    ]  # fmt: skip
    negatives = ["no", "nay"]
    assert texts == [("Q?", "yes", negatives), ("Q?", "yea", negatives), ("Q?", "yes", negatives)]
    assert len(data.documents) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pos": []}, "'pos' is empty; a group needs a positive"),
        ({"pos": "yes"}, "'pos': a list of strings"),
        ({"neg": ["no", "no"]}, "1 negatives; at least 2"),
        ({"neg": ["yes", "no"]}, "a text is both in 'pos' and in 'neg'"),
        ({"query": 3}, "'query': got 3"),
        ({"pos": ["\ud83d"]}, "'pos': half of a surrogate pair"),
        ({"query_id": "q"}, "has an unknown key, query_id"),
    ],
)
def test_a_bad_group_by_texts_is_named_by_file_and_line(
    tmp_path: Path, changes: dict, message: str
):
    entry = {"query": "Q?", "pos": ["yes"], "neg": ["no", "nay"]}
    path = tmp_path / "groups.jsonl"
    path.write_text(json.dumps(entry) + "\n" + json.dumps(entry | changes))
    with pytest.raises(InputError, match=rf"groups\.jsonl:2: {message}"):
        read_training_data(path, min_negatives=2)


def test_groups_by_ids_take_their_texts_from_the_collection(tmp_path: Path):
    path = tmp_path / "groups.jsonl"
    write_groups(path, GROUPS)
    queries, documents = {"q1": "a", "q2": "b"}, dict.fromkeys(["d1", "d2", "d3", "é"], "text")
    data = read_training_data(path, queries=queries, documents=documents)
    assert (list(data.groups), data.queries, data.documents) == (GROUPS, queries, documents)
    with pytest.raises(InputError, match="need the collection"):
        read_training_data(path)
