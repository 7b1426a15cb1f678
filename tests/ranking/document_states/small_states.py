"""States of no model: tiny arrays that follow from a document's id, so that any reader can tell."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from zlib import crc32

import numpy as np

from jaxrank.data.hashing import hash_text
from jaxrank.models.states import StateArray
from jaxrank.ranking.document_states.disk.store import StateStore
from jaxrank.ranking.document_states.formats import StateDType, to_stored
from jaxrank.ranking.document_states.identity import StateIdentity
from jaxrank.ranking.document_states.records import Gathered, Record

BUDGET = 9
FIXED = (
    StateArray("convolution", (2, 3, 5), quantised=False),
    StateArray("recurrence", (2, 5, 4)),
)
PER_TOKEN = (
    StateArray("keys", (2, 2, 3), per_token=True),
    StateArray("values", (2, 2, 3), per_token=True),
)
IDENTITY = StateIdentity(
    family="mamba",
    weights="a" * 64,
    tokenizer="b" * 64,
    template="document-first",
    document_budget=BUDGET,
    arrays=(*FIXED, *PER_TOKEN),
)
FIXED_IDENTITY = replace(IDENTITY, arrays=FIXED)


def numbers_of(document_id: str, identity: StateIdentity = IDENTITY) -> dict[str, np.ndarray]:
    """The document's state, in float32."""
    random = np.random.default_rng(crc32(document_id.encode()))
    length = length_of(document_id)
    return {
        array.name: random.normal(
            size=(array.shape[0], *([length] if array.per_token else []), *array.shape[1:])
        ).astype(np.float32)
        for array in identity.arrays
    }


def length_of(document_id: str) -> int:
    """The document's tokens, from none to the budget."""
    return crc32(document_id.encode()) % (BUDGET + 1)


def text_hash_of(document_id: str) -> int:
    """Of the document's text; large, so that all 64 bits are seen to be kept."""
    return hash_text(f"text of {document_id}") | 1 << 63


def record_of(
    document_id: str, dtype: StateDType = "float32", identity: StateIdentity = IDENTITY
) -> Record:
    """The document's record."""
    stored = to_stored(numbers_of(document_id, identity), identity.arrays, dtype)
    return Record(document_id, length_of(document_id), stored, text_hash_of(document_id))


def names(start: int, end: int) -> list[str]:
    """Ids, of different lengths."""
    return [f"dé-{number}" for number in range(start, end)]


def new_store(
    folder: Path,
    document_ids: Iterable[str] = (),
    *,
    dtype: StateDType = "float32",
    identity: StateIdentity = IDENTITY,
    documents_per_shard: int = 4,
) -> StateStore:
    """A store of these documents."""
    store = StateStore.create(
        folder, identity, dtype, "float32", documents_per_shard=documents_per_shard
    )
    store.append(record_of(one, dtype, identity) for one in document_ids)
    return store


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def shards(folder: Path) -> list[Path]:
    """A store's shards."""
    return sorted(folder.glob("shard-*.safetensors"))


def assert_records(found: Iterable[Record], document_ids: Iterable[str], dtype: StateDType) -> None:
    """Each record is, to the bit, the document's."""
    for record, document_id in zip(found, document_ids, strict=True):
        wanted = record_of(document_id, dtype)
        assert record[:2] == wanted[:2]
        assert record.text_hash == wanted.text_hash
        assert record.arrays.keys() == wanted.arrays.keys()
        for name, array in wanted.arrays.items():
            assert record.arrays[name].dtype == array.dtype
            np.testing.assert_array_equal(record.arrays[name], array)


def assert_gathered(gathered: Gathered, document_ids: list[str], dtype: StateDType) -> None:
    """Row i holds document i, with zeros behind its tokens, and the other rows hold zeros."""
    rows = len(gathered.lengths)
    assert gathered.lengths.dtype == np.int32
    wanted = [length_of(one) for one in document_ids]
    assert gathered.lengths.tolist() == wanted + [0] * (rows - len(wanted))
    per_token = ("keys", "values")
    for name, found in gathered.arrays.items():
        assert not found[:, len(document_ids) :].astype(np.float32).any()
        for row, document_id in enumerate(document_ids):
            array = record_of(document_id, dtype).arrays[name]
            assert found.dtype == array.dtype
            length = array.shape[1] if name.startswith(per_token) else found.shape[2]
            np.testing.assert_array_equal(found[:, row, :length], array)
            assert not found[:, row, length:].astype(np.float32).any()
