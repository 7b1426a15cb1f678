import json
from dataclasses import replace
from pathlib import Path

import pytest

from jaxrank.data.groups import (
    Group,
    copy_with_scores,
    read_groups,
    read_training_data,
    write_groups,
)
from jaxrank.errors import InputError

GROUPS = [Group("q1", "d1", ("d2", "d3")), Group("q2", "é", ("d1",))]
TAUGHT = [
    Group("q1", "d1", ("d2", "d3"), labels=(2.0, 1.0, 0.0)),
    Group("q2", "é", ("d1",), teacher_scores=(0.1, -1e-30)),
    Group("q2", "d3", ("d1",), (3.0, 0.5), (7.25, -3.0)),
]
TEXTS = {"query": "Q?", "pos": ["yes", "yea"], "neg": ["no", "nay", "no"], "prompt": "p"}


def passage(docid: str, text: object, title: str | None = None) -> dict[str, object]:
    """A passage in Tevatron's layout, with the empty title that many of its files have."""
    return {"docid": docid, "title": title or "", "text": text}


TEVATRON = {
    "query_id": "7",
    "query": "Q?",
    "positive_passages": [passage("p1", "yes", "Title"), {"docid": "p2", "text": "yea"}],
    "negative_passages": [passage("n1", "no"), passage("n2", "nay")],
}


def line(**changes: object) -> str:
    entry = {"query_id": "q1", "positive_id": "d1", "negative_ids": ["d2", "d3"]} | changes
    return json.dumps({key: value for key, value in entry.items() if value != "absent"})


def scored(positive: object, negatives: object) -> str:
    return line(positive_score=positive, negative_scores=negatives)


def test_groups_are_read_back_as_written(tmp_path: Path):
    write_groups(tmp_path / "groups.jsonl", GROUPS)
    assert read_groups(tmp_path / "groups.jsonl") == GROUPS


def test_labels_and_scores_are_read_back_to_the_bit(tmp_path: Path):
    write_groups(tmp_path / "groups.jsonl", TAUGHT)
    assert read_groups(tmp_path / "groups.jsonl") == TAUGHT
    keys = [
        set(json.loads(entry)) for entry in (tmp_path / "groups.jsonl").read_text().split("\n")[:3]
    ]
    ids = {"query_id", "positive_id", "negative_ids"}
    assert keys[0] == ids | {"positive_label", "negative_labels"}
    assert keys[1] == ids | {"positive_score", "negative_scores"}


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
        (
            line(query_id="q9"),
            "query 'q9' is not in the collection; give the one that the groups were made from",
        ),
        (line(negative_ids=["d2", "d9"]), "document 'd9' is not in the collection"),
        ("{", "not valid JSON"),
        (line(positive_score=1.0), "'negative_scores': got None; 2 are needed, one for each"),
        (line(negative_labels=[1, 0]), "'positive_label': got None; a finite number is needed"),
        (scored(2.0, [1.0]), "'negative_scores': got 1 numbers; 2 are needed"),
        (scored(2.0, [1.0, 0.5, 0.1]), "'negative_scores': got 3 numbers; 2 are needed"),
        (scored(2.0, 1.0), "'negative_scores': got 1.0; 2 are needed"),
        (scored([2.0], [1.0, 0.5]), r"'positive_score': got \[2.0\]; a finite number"),
        (scored("2.0", [1.0, 0.5]), "'positive_score': got '2.0'; a finite number is needed"),
        (scored(2.0, [1.0, True]), "'negative_scores': got True; a finite number is needed"),
        (scored(2.0, [1.0, float("nan")]), "'negative_scores': got nan; a finite number"),
        (scored(float("inf"), [1.0, 0.0]), "'positive_score': got inf; a finite number"),
        (scored(1e39, [1.0, 0.0]), r"'positive_score': got 1e\+39; a finite number"),
        (scored(10**400, [1.0, 0.0]), "'positive_score': got 1000.*; a finite number"),
        (
            line(positive_label=0, negative_labels=[0, 0]),
            "'positive_label': got 0.0; a grade above",
        ),
        (
            line(positive_label=2, negative_labels=[-1, 0]),
            "'negative_labels': got -1.0; a grade of",
        ),
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
    path.write_text(json.dumps(TEXTS) + "\n" + json.dumps(TEXTS | {"pos": ["yes"]}))
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
        ({"pos_scores": [1.0]}, "'neg_scores': got None; 2 are needed, one for each document"),
        ({"pos_scores": [], "neg_scores": [1, 2]}, "'pos_scores': got 0 numbers; 1 are needed"),
        ({"pos_scores": [1.0], "neg_scores": [1]}, "'neg_scores': got 1 numbers; 2 are needed"),
        ({"pos_scores": [None], "neg_scores": [1, 2]}, "'pos_scores': got None; a finite number"),
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


def test_groups_by_texts_have_the_scores_of_their_own_documents(tmp_path: Path):
    path = tmp_path / "groups.jsonl"
    scores = {"pos_scores": [9, 8], "neg_scores": [3.5, 2, 3.25]}
    path.write_text(json.dumps(TEXTS | scores) + "\n" + json.dumps(TEXTS | {"pos_scores": None}))
    found = [group.teacher_scores for group in read_training_data(path).groups]
    assert found == [(9.0, 3.5, 2.0), (8.0, 3.5, 2.0), None, None]


def test_empty_lists_of_scores_are_no_scores(tmp_path: Path):
    path = tmp_path / "groups.jsonl"
    path.write_text(json.dumps(TEXTS | {"pos_scores": [], "neg_scores": []}))
    assert read_training_data(path).groups[0].teacher_scores is None


def test_tevatrons_groups_give_one_group_for_each_positive_passage(tmp_path: Path):
    path = tmp_path / "groups.jsonl"
    path.write_text(json.dumps(TEVATRON) + "\n" + json.dumps(TEVATRON | {"query_id": "8"}))
    data = read_training_data(path, min_negatives=2)
    assert data.groups == [
        Group(query_id, positive_id, ("n1", "n2"))
        for query_id in ("7", "8") for positive_id in ("p1", "p2")
    ]  # fmt: skip
    assert data.queries == {"7": "Q?", "8": "Q?"}
    assert data.documents == {"p1": "Title yes", "p2": "yea", "n1": "no", "n2": "nay"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"positive_passages": []}, "'positive_passages' is empty; a group needs a positive"),
        ({"positive_passages": "p1"}, r"'positive_passages': a list of passages \(docid, title"),
        ({"negative_passages": [passage("n1", "no")]}, "1 negatives; at least 2"),
        ({"negative_passages": [passage("n1", "no")] * 2}, "1 negatives; at least 2"),
        (
            {"negative_passages": [passage("p1", "yes", "Title"), passage("n1", "no")]},
            "passage 'p1' is both positive and negative",
        ),
        (
            {"negative_passages": [passage("n1", "no"), passage("n2", "other")]},
            "passage 'n2' had another text before",
        ),
        ({"query": "another?"}, "query '7' had another text before"),
        ({"query_id": 7}, "'query_id': got 7; an id is needed"),
        ({"positive_passages": [{"docid": "p1"}]}, "'positive_passages', passage 1: lacks text"),
        (
            {"positive_passages": [passage("p2", "yea"), passage("p1", 3)]},
            "'positive_passages', passage 2: 'text': got 3; a string is needed",
        ),
        (
            {"positive_passages": [passage("p2", "yea") | {"url": "x"}]},
            "'positive_passages', passage 1: has an unknown key, url",
        ),
        (
            {"positive_passages": [passage("p2", "yea") | {"score": 1.0}]},
            "'score': got None; a finite number is needed",
        ),
        ({"pos": ["yes"]}, "has an unknown key, pos"),
    ],
)
def test_a_bad_group_of_tevatrons_is_named_by_file_and_line(
    tmp_path: Path, changes: dict, message: str
):
    path = tmp_path / "groups.jsonl"
    path.write_text(json.dumps(TEVATRON) + "\n" + json.dumps(TEVATRON | changes))
    with pytest.raises(InputError, match=rf"groups\.jsonl:2: {message}"):
        read_training_data(path, min_negatives=2)


def test_a_copy_of_tevatrons_groups_has_the_scores_in_its_passages(tmp_path: Path):
    path, copy = tmp_path / "groups.jsonl", tmp_path / "scored.jsonl"
    path.write_text(json.dumps(TEVATRON | {"answers": ["yes"]}))
    groups = read_training_data(path).groups
    scored = [
        replace(group, teacher_scores=(float(place), 0.5, 0.25))
        for place, group in enumerate(groups)
    ]
    copy_with_scores(path, copy, scored)
    assert read_training_data(copy, targets="teacher_scores").groups == scored
    entry = json.loads(copy.read_text())
    assert [passage.pop("score") for passage in entry["positive_passages"]] == [0.0, 1.0]
    assert [passage.pop("score") for passage in entry["negative_passages"]] == [0.5, 0.25]
    assert entry == TEVATRON | {"answers": ["yes"]}


def test_teacher_scores_that_a_loss_needs_and_labels_of_some_are_refused(tmp_path: Path):
    path = tmp_path / "groups.jsonl"
    texts = {"q1": "", "q2": ""}, dict.fromkeys(["d1", "d2", "d3", "é"], "")

    def read(targets: str | None) -> None:
        read_training_data(path, queries=texts[0], documents=texts[1], targets=targets)

    write_groups(path, TAUGHT)
    read(None)
    refusal = r"groups.jsonl: no teacher scores in 1 of 3 groups, first that of query 'q1'; .*"
    with pytest.raises(InputError, match=refusal + r"jaxrank.rerank --model TEACHER .* --groups"):
        read("teacher_scores")
    with pytest.raises(InputError, match=r"no labels in 1 of 3 groups, first that of query 'q2'"):
        read("labels")
    write_groups(path, TAUGHT[1:])
    read("teacher_scores")
    write_groups(path, GROUPS)
    read("labels")


def test_a_copy_with_scores_keeps_all_else(tmp_path: Path):
    source, target = tmp_path / "groups.jsonl", tmp_path / "scored.jsonl"
    write_groups(source, TAUGHT)
    scored = [
        replace(group, teacher_scores=(float(place), *(-float(place) for _ in group.negative_ids)))
        for place, group in enumerate(TAUGHT)
    ]
    copy_with_scores(source, target, scored)
    assert read_groups(target) == scored
    source.write_text(json.dumps(TEXTS) + "\n\n" + json.dumps(TEXTS | {"pos": ["yes"]}))
    groups = read_training_data(source).groups
    scored = [
        replace(group, teacher_scores=(float(place), 0.5, 0.25))
        for place, group in enumerate(groups)
    ]
    copy_with_scores(source, source, scored)
    entries = [json.loads(entry) for entry in source.read_text().splitlines()]
    scores = {"pos_scores": [0.0, 1.0], "neg_scores": [0.5, 0.25, 0.5]}
    assert entries == [TEXTS | scores, TEXTS | scores | {"pos": ["yes"], "pos_scores": [2.0]}]
