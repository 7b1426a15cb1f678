"""Weights on disk, read safely: one safetensors file, or several with an index.

Nothing is taken on trust. The header is measured and its tensors are counted before anything is
parsed in earnest; names of tensors are never used as paths; files named by an index must be plain
names in the same folder; every tensor comes out as finite float32, or an error names it.
"""

import errno
import json
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ckpt_convert.rules import Shape
from jaxrank.errors import InputError
from jaxrank.files import read_json

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
PICKLE_FILES = ("pytorch_model.bin", "pytorch_model.bin.index.json")

MAX_HEADER_BYTES = 8 << 20
"""A header needs about 120 bytes a tensor; without a limit, 79 MB of it cost 12 s and 1.9 GB."""
MAX_TENSORS = 50_000
MAX_FILES = 1_000
MAX_INDEX_BYTES = 16 << 20

_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*\.safetensors")
_FLOATS: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
}
_BFLOAT16 = "BF16"

_HOW_TO_CONVERT = (
    "is a pickle and is not read; write model.safetensors beside it once, e.g. with "
    'python -c "import torch, safetensors.torch as s; s.save_file({k: v.clone().contiguous() for '
    "k, v in torch.load('pytorch_model.bin', weights_only=True).items()}, 'model.safetensors')\""
)


@dataclass(frozen=True)
class _Tensor:
    file: Path
    dtype: str
    shape: Shape
    start: int
    stop: int


@dataclass(frozen=True)
class Weights:
    """The tensors of a checkpoint: shapes at once, values when asked for."""

    where: Path
    tensors: Mapping[str, _Tensor]

    @property
    def shapes(self) -> dict[str, Shape]:
        """Shape of every tensor, by its name in the checkpoint."""
        return {name: tensor.shape for name, tensor in self.tensors.items()}

    def read(self, name: str) -> np.ndarray:
        """The tensor as float32.

        Raises:
            InputError: a dtype that is no plain float, or NaN or infinity among the values.
        """
        tensor = self.tensors[name]
        shown = f"{tensor.file}: tensor {name[:200]!r}"
        values = _as_float32(tensor, shown)
        bad = values.size - int(np.isfinite(values).sum())
        if bad:
            raise InputError(
                f"{shown}: {bad} of {values.size} values are NaN or infinite; finite float32 "
                "weights are needed (was the training diverging when this was saved?)"
            )
        return values


def open_weights(folder: Path) -> Weights:
    """Find the weights of a model folder and read their headers.

    Raises:
        InputError: no safetensors file, or one that is damaged, absurdly large or not what its
            index says.
    """
    if (folder / WEIGHTS_FILE).is_file():
        return Weights(folder / WEIGHTS_FILE, _read_header(folder / WEIGHTS_FILE))
    if (folder / INDEX_FILE).is_file():
        return Weights(folder / INDEX_FILE, _read_index(folder / INDEX_FILE))
    for name in PICKLE_FILES:
        if (folder / name).is_file():
            raise InputError(f"{folder / name}: {_HOW_TO_CONVERT}")
    raise InputError(f"{folder}: no {WEIGHTS_FILE} and no {INDEX_FILE}; a model folder needs one")


def write_weights(folder: Path, tensors: Mapping[str, np.ndarray]) -> Path:
    """Write one safetensors file the way PyTorch libraries expect it."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    path = folder / WEIGHTS_FILE
    try:
        save_file(dict(tensors), path, metadata={"format": "pt"})
    except SafetensorError as error:  # says in words alone that the disk is full
        raise OSError(errno.EIO, str(error), str(path)) from None
    return path


def _read_index(path: Path) -> dict[str, _Tensor]:
    if path.stat().st_size > MAX_INDEX_BYTES:
        raise InputError(f"{path}: larger than {MAX_INDEX_BYTES} bytes; no model needs that")
    weight_map = read_json(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError(f"{path}: 'weight_map' must map tensor names to file names")
    names = {str(name) for name in weight_map.values()}
    for name in sorted(names):
        if not _FILE_NAME.fullmatch(name):
            raise InputError(
                f"{path}: {name[:200]!r} is not a plain *.safetensors name in this folder"
            )
    if len(names) > MAX_FILES:
        raise InputError(f"{path}: {len(names)} files; at most {MAX_FILES} are read")
    tensors: dict[str, _Tensor] = {}
    for name in sorted(names):
        if not (path.parent / name).is_file():
            raise InputError(f"{path}: names {name}, which is not in the folder")
        found = _read_header(path.parent / name)
        expected = {tensor for tensor, file in weight_map.items() if file == name}
        if found.keys() != expected:
            differing = ", ".join(repr(n[:200]) for n in sorted(found.keys() ^ expected)[:5])
            raise InputError(f"{path.parent / name}: index and file disagree about {differing}")
        tensors |= found
    if len(tensors) > MAX_TENSORS:
        raise InputError(f"{path}: {len(tensors)} tensors; at most {MAX_TENSORS} are read")
    return tensors


def _read_header(path: Path) -> dict[str, _Tensor]:
    """Check the limits, let safetensors judge the layout, and give the tensors' places."""
    from safetensors import SafetensorError, safe_open

    with path.open("rb") as file:
        prefix = file.read(8)
        if len(prefix) < 8:
            raise InputError(f"{path}: {len(prefix)} bytes; not a safetensors file, or cut short")
        (length,) = struct.unpack("<Q", prefix)
        if length > MAX_HEADER_BYTES:
            raise InputError(
                f"{path}: the header claims {length} bytes, at most {MAX_HEADER_BYTES} are read; "
                "damaged, or not a safetensors file"
            )
        text = file.read(length)
    try:
        header = json.loads(text, object_pairs_hook=_without_duplicates)
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        if len(entries) > MAX_TENSORS:
            raise InputError(f"{path}: {len(entries)} tensors; at most {MAX_TENSORS} are read")
        # Opening checks every offset: nothing overlaps, overflows or ends beyond the file.
        with safe_open(path, framework="numpy"):
            pass
        return {name: _entry(path, entry, 8 + length) for name, entry in entries.items()}
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        if isinstance(e, InputError):
            raise
        reason = " ".join(str(e).split())[:200]
        raise InputError(f"{path}: damaged, or not a safetensors file ({reason})") from None


def _entry(path: Path, entry: Mapping[str, Any], base: int) -> _Tensor:
    start, stop = entry["data_offsets"]
    return _Tensor(path, entry["dtype"], tuple(entry["shape"]), base + start, base + stop)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a name occurs twice in the header")
    return values


def _as_float32(tensor: _Tensor, shown: str) -> np.ndarray:
    """Read one tensor; bfloat16 is the upper half of float32, and numpy does not know it."""
    if tensor.dtype not in (*_FLOATS, _BFLOAT16):
        raise InputError(f"{shown}: dtype {tensor.dtype}; F32, F16, BF16 or F64 is needed")
    dtype: np.dtype[Any] = _FLOATS.get(tensor.dtype, np.dtype("<u2"))
    with tensor.file.open("rb") as file:
        file.seek(tensor.start)
        raw = np.fromfile(file, dtype, (tensor.stop - tensor.start) // dtype.itemsize)
    if tensor.dtype == _BFLOAT16:
        raw = (raw.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        return raw.astype(np.float32, copy=False).reshape(tensor.shape)
