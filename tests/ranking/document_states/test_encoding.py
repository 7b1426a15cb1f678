"""A document's record is its own, whatever it is read with."""

from dataclasses import replace

import numpy as np
import pytest

from jaxrank.data.hashing import hash_text
from jaxrank.errors import InputError
from jaxrank.models.module import RerankerConfig, build_module
from jaxrank.models.module import parameters as parameters_of
from jaxrank.ranking.document_states.encoding import DocumentEncoder
from jaxrank.ranking.document_states.formats import to_stored
from jaxrank.ranking.document_states.model_identity import identity_of, weights_digest
from tests.ranking.document_states.tiny_models import (
    BACKBONES,
    DOCUMENTS,
    make_encoder,
    make_module,
    make_sides,
    make_without_weights,
)

FAMILIES = ["mamba", "mamba2", "opt"]


@pytest.mark.parametrize("family", FAMILIES)
def test_records_come_in_order(family: str) -> None:
    records = make_encoder(family).encode(list(DOCUMENTS.items()))
    for (name, text), record in zip(DOCUMENTS.items(), records, strict=True):
        assert (record.document_id, record.length) == (name, len(make_sides().documents([text])[0]))
        assert all(values.flags.owndata for values in record.arrays.values())


def test_batches_change_records_by_rounding_only() -> None:
    records = make_encoder("mamba").encode(list(DOCUMENTS.items()))
    (alone,) = make_encoder("mamba", 1).encode([("middle", DOCUMENTS["middle"])])
    for array, values in records[3].arrays.items():
        assert np.std(values) > 1e-4
        np.testing.assert_allclose(values, alone.arrays[array], atol=1e-6, rtol=1e-5)


def test_the_same_documents_give_the_same_bits() -> None:
    documents = list(DOCUMENTS.items())
    first, second = (make_encoder("mamba").encode(documents) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        for name, values in one.arrays.items():
            np.testing.assert_array_equal(values, other.arrays[name])


@pytest.mark.parametrize("family", ["mamba", "opt"])
def test_states_are_kept_in_the_type_that_is_asked_for(family: str) -> None:
    documents = list(DOCUMENTS.items())
    exact = make_encoder(family)
    small = exact.kept_in("int8")
    assert (exact.dtype, small.dtype) == ("float32", "int8")
    assert small._read is exact._read, "what is compiled does not depend on it"
    for wanted, record in zip(exact.encode(documents), small.encode(documents), strict=True):
        stored = to_stored(wanted.arrays, exact.specs, "int8")
        assert record.arrays.keys() == stored.keys()
        for name, values in record.arrays.items():
            np.testing.assert_array_equal(values, stored[name])


def test_records_know_the_text_that_was_read() -> None:
    (record,) = make_encoder("mamba").encode([("middle", DOCUMENTS["middle"])])
    assert record.text_hash == hash_text(DOCUMENTS["middle"])


def test_what_was_read_is_told_a_batch_at_a_time() -> None:
    read: list[int] = []
    make_encoder("mamba").encode(list(DOCUMENTS.items()), read=read.append)
    assert read == [4, 2]


def test_no_documents_give_no_records() -> None:
    assert make_encoder("mamba").encode([]) == []


def test_few_shapes_are_compiled() -> None:
    encoder = make_encoder("mamba")
    encoder.encode(list(DOCUMENTS.items()))
    compiled = encoder._read._cache_size()
    for count in (2, 3, 4, 6):
        encoder.encode([(str(place), "short") for place in range(count)])
    assert encoder._read._cache_size() == compiled  # 4 rows of either length


def test_a_state_that_is_not_finite_is_refused_by_its_document() -> None:
    broken = {name: np.array(a) for name, a in parameters_of(make_module("mamba")).items()}
    (bad,) = make_sides().documents(["liver"])
    broken["backbone.embedding.embedding"][bad[-1]] = np.nan
    module = build_module(make_module("mamba").config, broken)
    encoder = DocumentEncoder(module, make_sides(), batch_size=4)
    with pytest.raises(
        InputError, match=r"document 'second': its state, .* is not finite; check the w"
    ):
        encoder.encode([("first", "heart"), ("second", "liver"), ("third", "heart")])


def test_the_identity_is_of_the_backbones_weights_and_constants_alone() -> None:
    module = make_module("mamba")
    digest = weights_digest(module)
    changed = {name: np.array(a) for name, a in parameters_of(module).items()}
    changed["head.score.bias"] += 1
    assert weights_digest(build_module(module.config, changed)) == digest
    changed["backbone.final_norm.weight"][3] += 1e-6
    assert weights_digest(build_module(module.config, changed)) != digest
    backbone = replace(BACKBONES["mamba"], norm_epsilon=1e-6)
    other = build_module(RerankerConfig("mamba", backbone), parameters_of(module))
    assert weights_digest(other) != digest
    assert identity_of(module, make_sides()).document_budget == make_sides().document_budget


def test_bert_is_refused_with_the_reason() -> None:
    with pytest.raises(InputError, match=r"'bert' has no document states: .* every token sees"):
        DocumentEncoder(make_without_weights("bert"), make_sides())


def test_a_batch_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="batch_size: got 0"):
        DocumentEncoder(make_module("mamba"), make_sides(), batch_size=0)
