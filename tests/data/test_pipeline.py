from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from jaxrank.data.collection import Collection
from jaxrank.data.groups import Group
from jaxrank.data.pipeline import training_batches
from jaxrank.errors import InputError
from jaxrank.text.templates import TextConfig
from jaxrank.text.tokenize import PairTokenizer, load_tokenizer

NUM_GROUPS = 22


@pytest.fixture(scope="module")
def collection(medquad_mini: Path) -> Collection:
    return Collection.open(medquad_mini)


@pytest.fixture(scope="module")
def tokenizer(bert_tokenizer_folder: Path) -> PairTokenizer:
    return PairTokenizer(load_tokenizer(bert_tokenizer_folder), TextConfig(max_length=64))


@pytest.fixture(scope="module")
def groups(collection: Collection) -> list[Group]:
    """Real questions; each with ten negatives, but the first with two."""
    names = list(collection.documents)
    judged = list(collection.qrels("train").items())[:NUM_GROUPS]
    groups = []
    for number, (query_id, judgements) in enumerate(judged):
        pool = [name for name in names[number * 20 :] if name not in judgements]
        count = 10 if number else 2
        groups.append(Group(query_id, next(iter(judgements)), tuple(pool[:count])))
    return groups


@pytest.fixture
def batches(collection: Collection, groups: list[Group], tokenizer: PairTokenizer):
    def make(**changes: object) -> Iterator[dict[str, np.ndarray]]:
        settings = {"groups_per_batch": 4, "negatives": 5, "seed": 7} | changes
        return iter(
            training_batches(
                groups, collection.queries, collection.documents, tokenizer, **settings
            )
        )

    return make


def assert_equal(left: list[dict[str, np.ndarray]], right: list[dict[str, np.ndarray]]) -> None:
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


def test_a_batch_holds_its_groups_with_the_positive_first(
    batches, groups: list[Group], collection: Collection, tokenizer: PairTokenizer
):
    for batch in islice(batches(), 6):
        for row, index in enumerate(batch["indices"]):
            group = groups[index]
            query = collection.queries[group.query_id]
            pools = [(group.positive_id,), *[group.negative_ids] * 5]
            for place, real in enumerate(batch["candidate_mask"][row]):
                if not real:
                    continue
                ids = batch["input_ids"][row, place][batch["mask"][row, place]].tolist()
                texts = [(query, collection.documents[name]) for name in pools[place]]
                assert ids in [pair.input_ids.tolist() for pair in tokenizer.encode(texts)]


def test_shapes_and_types_are_as_promised(batches):
    batch = next(batches(buckets=(32, 48, 64)))
    length = batch["input_ids"].shape[-1]
    assert length in (32, 48, 64)
    assert batch["mask"].any(axis=(0, 1))[-1] or length == 32
    for name, dtype in (("input_ids", np.int32), ("token_type_ids", np.int32), ("mask", np.bool_)):
        assert (batch[name].shape, batch[name].dtype) == ((4, 6, length), dtype)
    assert (batch["candidate_mask"].shape, batch["indices"].dtype) == ((4, 6), np.int32)
    assert batch["candidate_mask"][:, 0].all()


def test_a_batch_takes_the_smallest_bucket_that_holds_it(batches):
    for batch in islice(batches(buckets=range(1, 65)), 3):
        assert batch["mask"].sum(axis=-1).max() == batch["input_ids"].shape[-1]


def test_each_epoch_visits_every_group_once_and_no_batch_is_short(batches):
    indices = np.concatenate([batch["indices"] for batch in islice(batches(), 11)])
    first, second = indices[:NUM_GROUPS], indices[NUM_GROUPS:]
    assert sorted(first) == sorted(second) == list(range(NUM_GROUPS))
    assert first.tolist() != second.tolist()


def test_negatives_are_drawn_anew_each_epoch_and_never_twice_in_a_group(tokenizer: PairTokenizer):
    groups = [Group("q", "yes", tuple(map(str, range(g, g + 30)))) for g in (100, 200, 300)]
    documents = {name: name for group in groups for name in ("yes", *group.negative_ids)}
    stream = training_batches(
        groups, {"q": "query"}, documents, tokenizer, groups_per_batch=3, negatives=4, seed=0
    )
    drawn: dict[int, set] = {}
    for batch in islice(stream, 20):
        for row, group in enumerate(batch["indices"].tolist()):
            texts = batch["input_ids"][row, 1:, 3].tolist()
            assert len(set(texts)) == 4
            drawn.setdefault(group, set()).add(tuple(sorted(texts)))
    assert min(map(len, drawn.values())) > 15
    # 80 draws of 30 leave hardly one out.
    assert len(set().union(*map(set, drawn[0]))) > 25


def test_a_smaller_group_is_masked_with_one_pad_token(batches, tokenizer: PairTokenizer):
    found = [
        (batch, row)
        for batch in islice(batches(), 6)
        for row in np.flatnonzero(batch["indices"] == 0)
    ]
    assert found
    for batch, row in found:
        assert batch["candidate_mask"][row].tolist() == [True] * 3 + [False] * 3
        assert batch["mask"][row].sum(axis=-1)[3:].tolist() == [1, 1, 1]
        assert (batch["input_ids"][row][3:] == tokenizer.pad_token_id).all()
    others = Counter(batch["candidate_mask"].sum() for batch in islice(batches(), 6))
    assert set(others) <= {24, 21}


def test_the_number_of_threads_changes_nothing(batches):
    one = list(islice(batches(num_threads=0), 8))
    assert_equal(one, list(islice(batches(num_threads=1), 8)))
    assert_equal(one, list(islice(batches(num_threads=6), 8)))


def test_another_seed_gives_other_batches(batches):
    orders = {
        seed: np.concatenate([batch["indices"] for batch in islice(batches(seed=seed), 11)])
        for seed in (0, 1, 2)
    }
    assert (orders[0] != orders[1]).any()
    # The second epoch of one seed is not the first of the next.
    assert (orders[0][NUM_GROUPS:] != orders[1][:NUM_GROUPS]).any()


def test_a_restored_state_continues_exactly(batches):
    expected = list(islice(batches(), 9))
    iterator = batches()
    for _ in range(5):
        next(iterator)
    state = iterator.get_state()
    next(iterator)
    fresh = batches(num_threads=0)
    fresh.set_state(state)
    assert_equal(expected[5:], list(islice(fresh, 4)))
    iterator.set_state(state)
    assert_equal(expected[5:], list(islice(iterator, 4)))


def test_one_group_alone_makes_batches(collection, groups: list[Group], tokenizer: PairTokenizer):
    stream = training_batches(
        groups[:1], collection.queries, collection.documents, tokenizer,
        groups_per_batch=1, negatives=1, seed=0,
    )  # fmt: skip
    drawn = {tuple(batch["input_ids"][0, 1].tolist()) for batch in islice(stream, 12)}
    assert len(drawn) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"groups_per_batch": 23}, "22 groups do not fill a batch of 23"),
        ({"groups_per_batch": 0}, "at least 1 of each"),
        ({"negatives": 0}, "at least 1 of each"),
    ],
)
def test_impossible_batches_are_refused(batches, changes: dict, message: str):
    with pytest.raises(InputError, match=message):
        batches(**changes)


def test_buckets_must_hold_the_longest_pair(batches):
    with pytest.raises(ValueError, match="64 tokens exceeds the largest bucket, 48"):
        batches(buckets=(32, 48))


def test_an_error_in_a_thread_reaches_the_caller(
    collection, groups: list[Group], tokenizer: PairTokenizer
):
    stream = training_batches(
        groups, {}, collection.documents, tokenizer, groups_per_batch=4, negatives=5, seed=0
    )
    with pytest.raises(KeyError):
        next(iter(stream))
