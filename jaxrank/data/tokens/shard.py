"""One file of a token store: an Arrow table of tokenised texts, memory-mapped when read.

name        id of the query or document
hash        64 bits of BLAKE2b of the name
ids         uint16 where the vocabulary allows, else int32; the first `max_length` of the text
length      how many there are without cutting
is_empty    whether the text is blank
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Int64, Integer, UInt64

from jaxrank.data.hashing import HashedFile, hash_text
from jaxrank.data.tokens.table import TokenColumns
from jaxrank.files import atomic_open


class TokenShard(NamedTuple):
    """The texts of one file; all but `is_empty` are views of it."""

    names: pa.StringArray
    hashes: UInt64[np.ndarray, " texts"]
    ids: Integer[np.ndarray, " tokens"]
    offsets: Int64[np.ndarray, " texts+1"]
    """Where each text begins in `ids`, and where the last one ends."""
    lengths: Int64[np.ndarray, " texts"]
    is_empty: Bool[np.ndarray, " texts"]


def write_shard(path: Path, names: Sequence[str], tokens: TokenColumns) -> str:
    """Write texts, all or nothing, and return the SHA-256 of the file."""
    columns = {
        "name": pa.array(names, pa.string()),
        "hash": pa.array([hash_text(name) for name in names], pa.uint64()),
        "ids": pa.LargeListArray.from_arrays(pa.array(tokens.offsets), pa.array(tokens.ids)),
        "length": pa.array(tokens.lengths),
        "is_empty": pa.array(tokens.is_empty),
    }
    batch = pa.RecordBatch.from_pydict(columns)
    with atomic_open(path, "wb") as file:
        hashed = HashedFile(file)
        with pa.ipc.new_file(hashed, batch.schema) as writer:
            writer.write_batch(batch)
        return hashed.hexdigest()


def open_shard(path: Path) -> TokenShard:
    """The texts of a file whose digest was checked; ids are read from the disk when used."""
    # This mapping asks the system for the whole file. Checking the digest has just read it, so that
    # costs nothing; a store that is opened unchecked needs MADV_RANDOM, as document_store/rows.py.
    with pa.memory_map(str(path)) as file:
        batch = pa.ipc.open_file(file).get_batch(0)
    ids = batch.column("ids")
    return TokenShard(
        names=batch.column("name"),
        hashes=batch.column("hash").to_numpy(),
        ids=ids.values.to_numpy(),
        offsets=ids.offsets.to_numpy(),
        lengths=batch.column("length").to_numpy(),
        is_empty=batch.column("is_empty").to_numpy(zero_copy_only=False),
    )
