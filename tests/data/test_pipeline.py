from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from jaxrank.data.collection import Collection
from jaxrank.data.groups import Group
from jaxrank.data.pipeline import training_batches
from jaxrank.data.tokens.table import GroupTokens, tokenise_groups
from jaxrank.errors import InputError
from jaxrank.text.templates import TextConfig
from jaxrank.text.tokenize import PairTokenizer, TruncationCounts, load_tokenizer

NUM_GROUPS = 22

Batch = dict[str, np.ndarray]


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
    def make(**changes: object) -> Iterator[Batch]:
        settings = {"groups_per_batch": 4, "negatives": 5, "seed": 7} | changes
        return iter(
            training_batches(
                groups, collection.queries, collection.documents, tokenizer, **settings
            )
        )

    return make


def assert_equal(left: list[Batch], right: list[Batch]) -> None:
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


@pytest.fixture(scope="module")
def tokens(collection: Collection, groups: list[Group], tokenizer: PairTokenizer) -> GroupTokens:
    return tokenise_groups(groups, collection.queries, collection.documents, tokenizer)


def merge_parts(batch: Batch) -> Batch:
    """An accumulated batch as if it were of one part; of a packed one, rows are joined too."""
    merged = {
        name: array.reshape(-1, *array.shape[2:])
        for name, array in batch.items()
        if name != "places"
    }
    if "places" in batch:
        parts = len(batch["places"])
        slots = batch["first"][0].size
        shift = np.arange(parts, dtype=np.int32)[:, None, None] * slots
        assert not batch["places"][~batch["candidate_mask"]].any()
        places = np.where(batch["candidate_mask"], batch["places"] + shift, 0)
        merged["places"] = places.reshape(merged["candidate_mask"].shape)
    return merged


def unpack(batch: Batch) -> list[list[tuple[list[int], list[int]] | None]]:
    """Ids and token types of each candidate, taken from rows by what a model reads of them."""
    num_texts = batch["first"].shape[1]
    groups = []
    for places, mask in zip(batch["places"], batch["candidate_mask"], strict=True):
        found: list[tuple[list[int], list[int]] | None] = []
        for place, is_real in zip(places.tolist(), mask, strict=True):
            row, number = divmod(place, num_texts)
            inside = np.flatnonzero(batch["segment_ids"][row] == number + 1)
            if not is_real:
                assert place == 0
                found.append(None)
                continue
            assert (batch["first"][row, number], batch["last"][row, number]) == (
                inside[0],
                inside[-1],
            )
            assert batch["positions"][row, inside].tolist() == list(range(len(inside)))
            found.append(
                (
                    batch["input_ids"][row, inside].tolist(),
                    batch["token_type_ids"][row, inside].tolist(),
                )
            )
        groups.append(found)
    return groups


def unpad(batch: Batch) -> list[list[tuple[list[int], list[int]] | None]]:
    """As `unpack`, of a padded batch."""
    return [
        [
            (ids[mask].tolist(), types[mask].tolist()) if is_real else None
            for ids, types, mask, is_real in zip(*rows, strict=True)
        ]
        for rows in zip(
            batch["input_ids"], batch["token_type_ids"], batch["mask"], batch["candidate_mask"],
            strict=True,
        )
    ]  # fmt: skip


def by_group(batch: Batch, texts: list) -> list:
    """Groups with their candidates, in an order that is not the batch's own."""
    masks = batch["candidate_mask"].tolist()
    return sorted(zip(batch["indices"].tolist(), masks, texts, strict=True), key=repr)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_packed_batches_hold_exactly_the_tokens_of_the_padded_ones(
    batches, tokenizer: PairTokenizer, accumulation: int
):
    packed = batches(packing=True, accumulation=accumulation)
    for padded, batch in islice(zip(batches(), packed, strict=False), 6):
        whole = merge_parts(batch) if accumulation > 1 else batch
        assert by_group(whole, unpack(whole)) == by_group(padded, unpad(padded))
        if accumulation == 1:
            np.testing.assert_array_equal(whole["indices"], padded["indices"])
        is_padding = whole["segment_ids"] == 0
        num_tokens = padded["mask"][padded["candidate_mask"]].sum()
        assert (~is_padding).sum() == num_tokens
        assert (whole["input_ids"][is_padding] == tokenizer.pad_token_id).all()
        assert not whole["positions"][is_padding].any()


def test_packed_batches_come_in_few_shapes_and_are_nearly_full(batches):
    shapes, filled = set(), []
    for batch in islice(batches(packing=True, negatives=7), 40):
        (num_rows, length), (_, num_texts) = batch["input_ids"].shape, batch["first"].shape
        assert length == 64
        assert batch["places"].max() < num_rows * num_texts
        shapes.add((num_rows, num_texts))
        filled.append((batch["segment_ids"] > 0).mean())
    assert len(shapes) <= 3
    assert np.mean(filled) > 0.85


@pytest.mark.parametrize("rows_multiple", [1, 4, 7])
def test_packed_rows_are_a_multiple_and_equal_in_all_parts(batches, rows_multiple: int):
    batch = next(batches(packing=True, accumulation=2, rows_multiple=rows_multiple))
    parts, num_rows, length = batch["input_ids"].shape
    assert (parts, num_rows % rows_multiple, length) == (2, 0, 64)
    for name in ("token_type_ids", "segment_ids", "positions"):
        assert (batch[name].shape, batch[name].dtype) == ((2, num_rows, 64), np.int32)
    assert batch["first"].shape == batch["last"].shape
    assert batch["places"].shape == batch["candidate_mask"].shape == (2, 2, 6)
    assert "mask" not in batch


def test_accumulation_cuts_a_batch_into_its_groups_in_order(batches):
    cut = batches(accumulation=2)
    for whole, batch in islice(zip(batches(), cut, strict=False), 6):
        assert batch["input_ids"].shape[:3] == (2, 2, 6)
        assert batch["indices"].shape == (2, 2)
        assert_equal([merge_parts(batch)], [whole])


@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_padded_shards_join_to_the_whole_batch(
    batches, tokens: GroupTokens, processes: int, accumulation: int
):
    options = {"groups_per_batch": 8, "accumulation": accumulation, "tokens": tokens}
    shards = [batches(shard=(index, processes), **options) for index in range(processes)]
    axis = 0 if accumulation == 1 else 1
    for whole, *parts in islice(zip(batches(**options), *shards, strict=False), 4):
        assert len({array["input_ids"].shape for array in parts}) == 1
        joined = {name: np.concatenate([part[name] for part in parts], axis) for name in whole}
        assert_equal([joined], [whole])


@pytest.mark.parametrize("packing", [False, True])
def test_shapes_are_those_of_the_fullest_process(tokenizer: PairTokenizer, packing: bool):
    """One process gets two short pairs, which need little, the other two long ones."""
    groups = [Group("q", f"a{size}", (f"b{size}",)) for size in (1, 40)]
    documents = {f"{kind}{size}": "a " * size for kind in "ab" for size in (1, 40)}
    tokens = tokenise_groups(groups, {"q": "a"}, documents, tokenizer)
    shards = [
        training_batches(
            groups, {}, {}, tokenizer, tokens=tokens, shard=(index, 2), packing=packing,
            groups_per_batch=2, negatives=1, seed=0, buckets=range(1, 65), num_threads=0,
        )
        for index in range(2)
    ]  # fmt: skip
    for parts in islice(zip(*shards, strict=False), 3):
        shapes = [part["input_ids"].shape for part in parts]
        assert shapes == [(2, 64) if packing else (1, 2, 44)] * 2


@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_packed_shards_join_to_the_whole_batch(
    batches, tokens: GroupTokens, processes: int, accumulation: int
):
    options = {"groups_per_batch": 8, "accumulation": accumulation, "tokens": tokens}
    shards = [
        batches(shard=(index, processes), packing=True, rows_multiple=2, **options)
        for index in range(processes)
    ]
    for whole, *parts in islice(zip(batches(**options), *shards, strict=False), 4):
        for name in parts[0]:
            assert len({part[name].shape for part in parts}) == 1
        if accumulation == 1:
            joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        else:
            whole = merge_parts(whole)
            joined = {name: np.concatenate([part[name] for part in parts], 1) for name in parts[0]}
            joined = merge_parts(joined)
        assert by_group(joined, unpack(joined)) == by_group(whole, unpad(whole))


def test_shards_count_what_they_encode(
    collection: Collection, groups: list[Group], tokens: GroupTokens, bert_tokenizer_folder: Path
):
    def count(shard: tuple[int, int]) -> TruncationCounts:
        tokenizer = PairTokenizer(load_tokenizer(bert_tokenizer_folder), TextConfig(max_length=64))
        stream = training_batches(
            groups, {}, {}, tokenizer, tokens=tokens, shard=shard,
            groups_per_batch=4, negatives=5, seed=0, num_threads=0,
        )  # fmt: skip
        list(islice(stream, 3))
        return tokenizer.counts

    assert count((0, 2)) + count((1, 2)) == count((0, 1))


@pytest.mark.parametrize("packing", [False, True])
def test_pretokenised_batches_and_counts_equal_those_made_on_the_fly(
    collection: Collection, groups: list[Group], bert_tokenizer_folder: Path, packing: bool
):
    made = []
    for is_ahead in (False, True):
        tokenizer = PairTokenizer(load_tokenizer(bert_tokenizer_folder), TextConfig(max_length=48))
        texts = collection.queries, collection.documents
        tokens = tokenise_groups(groups, *texts, tokenizer) if is_ahead else None
        assert tokenizer.counts.pairs == 0
        stream = training_batches(
            groups, *(({}, {}) if is_ahead else texts), tokenizer, tokens=tokens, packing=packing,
            groups_per_batch=4, negatives=5, seed=3, num_threads=0,
        )  # fmt: skip
        made.append((list(islice(stream, 6)), tokenizer.counts))
    (on_the_fly, counts), (ahead, counts_ahead) = made
    assert_equal(on_the_fly, ahead)
    assert counts == counts_ahead
    assert counts.pairs >= 6 * 21
    assert counts.lost_document_tokens > 1000


def test_targets_go_with_their_candidates(tokenizer: PairTokenizer):
    """Each document's text is a number, and its label and teacher score are that number."""
    groups = [
        Group(
            "q", "1", tuple(map(str, range(start, start + 5))),
            labels=(1.0, *map(float, range(start, start + 5))),
            teacher_scores=(-1.0, *(-float(number) for number in range(start, start + 5))),
        )
        for start in (10, 20, 30)
    ]  # fmt: skip
    documents = {name: name for group in groups for name in ("1", *group.negative_ids)}
    vocabulary = {tokenizer.encode([("", name)])[0].input_ids[2]: float(name) for name in documents}
    assert len(vocabulary) == len(documents)
    for targets, sign in (("labels", 1.0), ("teacher_scores", -1.0)):
        stream = training_batches(
            groups, {"q": ""}, documents, tokenizer,
            groups_per_batch=2, negatives=7, seed=0, targets=targets, accumulation=2,
        )  # fmt: skip
        for batch in islice(stream, 3):
            assert batch["targets"].dtype == np.float32
            assert not batch["targets"][:, :, 6:].any()
            ids = batch["input_ids"][:, :, :6, 2]
            found = np.vectorize(vocabulary.get)(ids) * sign
            np.testing.assert_array_equal(batch["targets"][:, :, :6], found)


def test_groups_without_labels_have_1_for_the_positive(batches):
    batch = next(batches(targets="labels"))
    np.testing.assert_array_equal(batch["targets"], [[1.0, 0, 0, 0, 0, 0]] * 4)
    assert "targets" not in next(batches())


@pytest.mark.parametrize(
    "options",
    [
        {"packing": True},
        {"accumulation": 2, "targets": "labels"},
        {"packing": True, "accumulation": 2, "rows_multiple": 3},
        {"shard": (1, 2)},
        {"packing": True, "shard": (1, 2)},
    ],
)
def test_a_restored_state_continues_exactly_under_every_option(
    batches, tokens: GroupTokens, options: dict
):
    expected = list(islice(batches(tokens=tokens, **options), 8))
    iterator = batches(tokens=tokens, **options)
    for _ in range(5):
        next(iterator)
    state = iterator.get_state()
    without_tokens = {} if "shard" not in options else {"tokens": tokens}
    fresh = batches(num_threads=0, **without_tokens, **options)
    fresh.set_state(state)
    assert_equal(expected[5:], list(islice(fresh, 3)))


def test_a_state_serves_any_number_of_processes(batches, tokens: GroupTokens):
    one, two = batches(), batches(shard=(1, 2), tokens=tokens)
    for _ in range(3):
        next(one), next(two)
    assert one.get_state() == two.get_state()
    two.set_state(one.get_state())
    assert next(two)["indices"].tolist() == next(one)["indices"][2:].tolist()


def test_several_processes_need_tokens(batches):
    with pytest.raises(ValueError, match="several processes need tokens"):
        batches(shard=(0, 2))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"groups_per_batch": 23}, "22 groups do not fill a batch of 23"),
        ({"groups_per_batch": 0}, "at least 1 of each"),
        ({"negatives": 0}, "at least 1 of each"),
        ({"accumulation": 3}, "got 4; 3 equal parts for 1 processes need a multiple of 3"),
        ({"accumulation": 2, "shard": (0, 4)}, "need a multiple of 8"),
        ({"targets": "teacher_scores"}, "22 of 22 groups have no teacher scores"),
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
