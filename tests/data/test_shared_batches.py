"""Batches of documents and queries apart: the same texts, cuts and order as padded ones."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from jaxrank.data.collection import Collection
from jaxrank.data.groups import Group
from jaxrank.data.in_batch_negatives import known_relevant
from jaxrank.data.pipeline import training_batches
from jaxrank.data.tokens.table import tokenise_groups
from jaxrank.errors import InputError
from jaxrank.text.templates import TextConfig
from jaxrank.text.tokenize import PairTokenizer, load_tokenizer

Batch = dict[str, np.ndarray]
PER_BATCH, CANDIDATES = 4, 4
TEXT = TextConfig(template="paper-decoder", max_length=96, query_length=24)


@pytest.fixture(scope="module")
def collection(medquad_mini: Path) -> Collection:
    return Collection.open(medquad_mini)


@pytest.fixture(scope="module")
def loaded(neox_tokenizer_folder: Path) -> PreTrainedTokenizerFast:
    return load_tokenizer(neox_tokenizer_folder)


@pytest.fixture(scope="module")
def tokenizer(loaded: PreTrainedTokenizerFast) -> PairTokenizer:
    return PairTokenizer(loaded, TEXT)


@pytest.fixture(scope="module")
def groups(collection: Collection) -> list[Group]:
    """Real questions; each with five negatives, but the first with two."""
    names = list(collection.documents)
    judged = list(collection.qrels("train").items())[:10]
    return [
        Group(
            query_id,
            next(iter(documents)),
            tuple(names[number * 20 : number * 20 + (5 if number else 2)]),
        )
        for number, (query_id, documents) in enumerate(judged)
    ]


@pytest.fixture
def batches(collection: Collection, groups: list[Group], tokenizer: PairTokenizer):
    def make(*, is_shared: bool = True, **changes: object) -> Iterator[Batch]:
        settings = {"groups_per_batch": PER_BATCH, "negatives": CANDIDATES - 1, "seed": 7}
        if is_shared:
            settings["relevant_documents"] = known_relevant(groups, {}, collection.queries)
        return iter(
            training_batches(
                groups,
                collection.queries,
                collection.documents,
                tokenizer,
                **(settings | {"num_threads": 0} | changes),
            )
        )

    return make


def test_a_document_s_side_and_its_query_s_are_the_pair_of_the_padded_batch(batches):
    for shared, padded in zip(islice(batches(), 3), batches(is_shared=False), strict=False):
        np.testing.assert_array_equal(shared["indices"], padded["indices"])
        own = shared["candidate_mask"][:, :CANDIDATES]
        np.testing.assert_array_equal(own, padded["candidate_mask"])
        for row, column in np.argwhere(own).tolist():
            sides = [
                shared["document_ids"][row, column][shared["document_mask"][row, column]],
                shared["query_ids"][row][shared["query_mask"][row]],
            ]
            expected = padded["input_ids"][row, column][padded["mask"][row, column]]
            np.testing.assert_array_equal(np.concatenate(sides), expected)


def test_shapes_and_types_are_as_promised(batches):
    batch = next(batches())
    document_length, query_length = (
        batch[f"{side}_ids"].shape[-1] for side in ("document", "query")
    )
    assert document_length in (16, 32, 48, 64, 72)
    assert query_length in (16, 24)
    shapes = {name: (array.shape, array.dtype) for name, array in batch.items()}
    assert shapes == {
        "document_ids": ((PER_BATCH, CANDIDATES, document_length), np.int32),
        "document_mask": ((PER_BATCH, CANDIDATES, document_length), np.bool_),
        "query_ids": ((PER_BATCH, query_length), np.int32),
        "query_mask": ((PER_BATCH, query_length), np.bool_),
        "candidate_mask": ((PER_BATCH, PER_BATCH * CANDIDATES), np.bool_),
        "indices": ((PER_BATCH,), np.int32),
    }
    assert batch["document_mask"][..., 0].all()


def test_cuts_are_counted_as_those_of_padded_batches(batches, tokenizer: PairTokenizer):
    before = tokenizer.counts
    next(batches())
    with_shared = tokenizer.counts
    next(batches(is_shared=False))
    assert with_shared.truncated_documents > before.truncated_documents
    assert before + tokenizer.counts == with_shared + with_shared


def test_what_is_relevant_to_a_query_does_not_count_for_it(
    batches, groups: list[Group], collection: Collection
):
    first = next(batches())
    query, other = first["indices"][:2].tolist()
    relevant = known_relevant(
        groups, {groups[query].query_id: {groups[other].positive_id: 1}}, collection.queries
    )
    masked = next(batches(relevant_documents=relevant))["candidate_mask"]
    assert first["candidate_mask"][0, CANDIDATES]
    assert np.argwhere(first["candidate_mask"] != masked).tolist() == [[0, CANDIDATES]]


def test_the_shares_of_two_processes_are_the_batch_of_one(
    batches, collection: Collection, groups: list[Group], tokenizer: PairTokenizer
):
    tokens = tokenise_groups(groups, collection.queries, collection.documents, tokenizer)
    whole = next(batches(accumulation=2))
    assert whole["candidate_mask"].shape == (2, 2, 2 * CANDIDATES)
    shares = [next(batches(accumulation=2, tokens=tokens, shard=(index, 2))) for index in range(2)]
    for name, array in whole.items():
        joined = np.concatenate([share[name] for share in shares], axis=1)
        np.testing.assert_array_equal(joined, array)


def test_a_position_among_batches_can_be_kept(batches):
    stream = batches()
    next(stream)
    position, expected = stream.get_state(), next(stream)
    again = batches()
    again.set_state(position)
    for name, array in next(again).items():
        np.testing.assert_array_equal(array, expected[name])


def test_a_template_that_puts_the_query_first_is_refused(
    batches,
    monkeypatch: pytest.MonkeyPatch,
    loaded: PreTrainedTokenizerFast,
    tokenizer: PairTokenizer,
):
    text = TextConfig(template="paper-encoder-decoder", max_length=64)
    encoder = PairTokenizer(loaded, text)
    monkeypatch.setattr(tokenizer, "layout", encoder.layout)
    monkeypatch.setattr(tokenizer, "template", encoder.template)
    with pytest.raises(InputError, match="puts the query first"):
        batches()
