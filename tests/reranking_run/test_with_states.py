"""Documents that a store lacks are read together, once as long as there is memory for them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from jaxrank.ranking.document_states.encoding import DocumentEncoder
from jaxrank.ranking.document_states.memory import MemoryStates
from jaxrank.ranking.document_states.records import Record
from jaxrank.reranker import Reranker
from jaxrank.reranking_run.completed_states import CompletedStates, ComputedStates
from jaxrank.reranking_run.options import RerankOptions
from jaxrank.reranking_run.with_states import command_to_add, group_queries
from tests.tiny_states import DOCUMENTS, save_model

NAMES = list(DOCUMENTS)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> DocumentEncoder:
    folder = tmp_path_factory.mktemp("model")
    save_model(folder / "model")
    return Reranker.from_pretrained(folder / "model").document_states.encoder("float32", 8)


@pytest.fixture(scope="module")
def records(encoder: DocumentEncoder) -> dict[str, Record]:
    return {record.document_id: record for record in encoder.encode(list(DOCUMENTS.items()))}


@pytest.fixture
def stored(encoder: DocumentEncoder, records: dict[str, Record]) -> MemoryStates:
    """States of the first five documents."""
    states = MemoryStates(encoder.identity, "float32", "float32")
    states.add(records[name] for name in NAMES[:5])
    return states


def complete(
    stored: MemoryStates, encoder: DocumentEncoder, capacity_bytes: int
) -> tuple[CompletedStates, ComputedStates]:
    computed = ComputedStates(encoder, DOCUMENTS)
    return CompletedStates(stored, computed, capacity_bytes=capacity_bytes), computed


@pytest.mark.parametrize("capacity_bytes", [0, 1 << 20])
def test_what_is_missing_is_computed_once_for_one_gathering(
    stored: MemoryStates,
    encoder: DocumentEncoder,
    records: dict[str, Record],
    capacity_bytes: int,
) -> None:
    states, computed = complete(stored, encoder, capacity_bytes)
    wanted = ["d7", "d1", "d9", "d4"]
    # Both are asked for where states grow with the tokens.
    lengths = states.lengths(wanted)
    gathered = states.gather(wanted, rows=6)
    assert computed.readings == 2
    assert lengths.tolist() == gathered.lengths.tolist()[:4]
    assert gathered.lengths.tolist() == [records[name].length for name in wanted] + [0, 0]
    for name, array in gathered.arrays.items():
        for row, document in enumerate(wanted):
            expected = records[document].arrays[name]
            np.testing.assert_allclose(array[:, row], expected, rtol=0, atol=1e-5)
        assert not array[:, 4:].any()
    assert [record.document_id for record in states.records(wanted)] == wanted


def test_memory_decides_what_is_computed_again(
    stored: MemoryStates, encoder: DocumentEncoder, records: dict[str, Record]
) -> None:
    for room, again in ((2, 0), (1, 1)):
        states, computed = complete(stored, encoder, room * records["d7"].nbytes)
        states.read_ahead(["d7", "d9", "d1"])
        assert computed.readings == 2
        states.gather(["d7", "d9", "d1"])
        assert computed.readings == 2 + again


def test_queries_stand_together_as_long_as_little_is_missing(stored: MemoryStates) -> None:
    candidates: dict[str, Sequence[str]] = {
        "a": ["d0", "d5", "d6"],
        "b": ["d6", "d5", "d1"],
        "c": ["d7"],
        "d": ["d8", "d9", "d5"],
        "e": ["d2"],
    }
    assert list(group_queries(candidates, stored, 3)) == [
        (["a", "b", "c"], ["d5", "d6", "d7"]),
        (["d", "e"], ["d8", "d9", "d5"]),
    ]
    alone = list(group_queries(candidates, stored, 0))
    assert [queries for queries, _ in alone] == [["a"], ["b"], ["c"], ["d"], ["e"]]


def test_the_command_to_add_them_has_what_their_identity_depends_on(stored: MemoryStates) -> None:
    options = RerankOptions(
        model="m",
        output=Path("o"),
        collection=Path("a b"),
        run=Path("r"),
        depth=7,
        max_length=99,
        document_text="body",
        document_states=Path("S"),
    )
    assert command_to_add(stored, options) == (
        "python -m jaxrank.encode_documents --model m --collection 'a b' --output S --runs r "
        "--depth 7 --max_length 99 --document_text body --dtype float32 --compute_dtype float32"
    )
