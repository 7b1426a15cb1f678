"""What lies where in a file of documents' states, which is one of safetensors.

    documents.hashes      u64 (documents,)   64 bits of each id
    documents.text_hashes u64 (documents,)   64 bits of its text; 0 where it is not known
    documents.id_ends     i64 (documents,)   where its id ends among `ids`
    documents.lengths     i32 (documents,)   tokens that were read
    documents.checksums   u32 (documents,)   CRC-32 of its arrays
    documents.ids         u8  (bytes,)       UTF-8, one behind the other, then zeros
    state.<array>         (documents, layers, ...); of arrays per token the layers and tokens of one
                          document behind those of the other: (layers x tokens of all, ...)

Everything before the states is the shard's index, one piece at the beginning of the file.
"""

import json
from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np

from jaxrank.ranking.document_states.disk.index import Columns
from jaxrank.ranking.document_states.formats import StoredArray

_INDEX, _STATE = "documents.", "state."

_ALIGNMENT = 64
_NUMBER = "<u8"  # length of the header, at the beginning of a safetensors file
_DTYPES = {
    "uint64": "U64",
    "int64": "I64",
    "int32": "I32",
    "uint32": "U32",
    "uint8": "U8",
    "float32": "F32",
    "bfloat16": "BF16",
    "int8": "I8",
}
"""numpy's names -> those of safetensors."""


class Tensor(NamedTuple):
    """A tensor of the file."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Its bytes."""
        return prod(self.shape) * self.dtype.itemsize


def index_bytes(columns: Columns, arrays: Sequence[StoredArray]) -> bytes:
    """What stands before the states in a file."""
    values = b"".join(column.tobytes() for column in columns)
    return header_bytes(state_tensors(arrays, columns.lengths), columns) + values


def header_bytes(states: Sequence[Tensor], columns: Columns) -> bytes:
    """The length of the header, and the header: what the file holds and where."""
    index = [
        Tensor(_INDEX + name, column.dtype, column.shape)
        for name, column in columns._asdict().items()
    ]
    header: dict[str, Any] = {}
    end = 0
    for tensor in (*index, *states):
        start, end = end, end + tensor.nbytes
        header[tensor.name] = {
            "dtype": _DTYPES[tensor.dtype.name],
            "shape": tensor.shape,
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    size = np.dtype(_NUMBER).itemsize
    text += b" " * (-(size + len(text)) % _ALIGNMENT)
    return np.array(len(text), _NUMBER).tobytes() + text


def header_in(index: bytes) -> bytes:
    """The length of the header and the header, of a shard's index."""
    return index[: _data_start(index)]


def columns_in(index: bytes) -> Columns:
    """The columns in a shard's index, as views of it."""
    start = _data_start(index)
    header = json.loads(index[np.dtype(_NUMBER).itemsize : start])
    columns: dict[str, np.ndarray] = {}
    for name, dtype in Columns.dtypes().items():
        begin, end = header[_INDEX + name]["data_offsets"]
        columns[name] = np.frombuffer(index[start + begin : start + end], dtype)
    return Columns(**columns)


def _data_start(index: bytes) -> int:
    size = np.dtype(_NUMBER).itemsize
    return size + int(np.frombuffer(index[:size], _NUMBER)[0])


def state_tensors(arrays: Sequence[StoredArray], lengths: np.ndarray) -> list[Tensor]:
    """What holds the states of documents of these lengths, in the order of the file."""
    num_tokens = int(lengths.sum(dtype=np.int64))
    tensors: list[Tensor] = []
    for array in arrays:
        layers, *rest = array.shape
        shape = (layers * num_tokens, *rest) if array.per_token else (len(lengths), *array.shape)
        tensors.append(Tensor(_STATE + array.name, array.dtype, shape))
    return tensors


def in_file_order(stored: Sequence[StoredArray]) -> list[StoredArray]:
    """Arrays of larger numbers first, so that every number lies at a multiple of its size."""
    return sorted(stored, key=lambda array: -array.dtype.itemsize)
