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
ADAPTER_FILE = "adapter_config.json"

MAX_HEADER_BYTES = 8 << 20
"""A header needs about 120 bytes a tensor; without a limit, 79 MB of it cost 12 s and 1.9 GB."""
MAX_TENSORS = 50_000
MAX_FILES = 1_000
MAX_INDEX_BYTES = 16 << 20

_READ_SUFFIXES = (".safetensors", ".bin", ".json", ".txt", ".model")
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*")
_FLOATS: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
}
_BFLOAT16 = "BF16"


@dataclass(frozen=True)
class _Tensor:
    file: Path
    shown: Path
    dtype: str
    shape: Shape
    start: int
    stop: int


@dataclass(frozen=True)
class Weights:
    """The tensors of a checkpoint: shapes at once, values when asked for.

    Attributes:
        where: the file or index that was asked for.
        folder: where PyTorch libraries find the same tensors as safetensors.
    """

    where: Path
    folder: Path
    tensors: Mapping[str, _Tensor]

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that hold the tensors, as they were published."""
        return tuple(sorted({tensor.shown for tensor in self.tensors.values()}))

    @property
    def dtypes(self) -> tuple[str, ...]:
        """The types that the tensors are stored in."""
        return tuple(sorted({tensor.dtype for tensor in self.tensors.values()}))

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
        shown = f"{tensor.shown}: tensor {name[:200]!r}"
        values = _as_float32(tensor, shown)
        is_finite = np.isfinite(values)
        if not is_finite.all():  # four times as fast as counting them
            bad = values.size - int(is_finite.sum())
            raise InputError(
                f"{shown}: {bad} of {values.size} values are NaN or infinite; finite float32 "
                "weights are needed (was the training diverging when this was saved?)"
            )
        return values


def has_safetensors(folder: Path) -> bool:
    """Whether a model folder holds weights that `open_weights` reads."""
    return (folder / WEIGHTS_FILE).is_file() or (folder / INDEX_FILE).is_file()


def files_of_model(folder: Path) -> list[Path]:
    """What reading a model folder may open: weights, configuration, tokenizer; none of a hub id."""
    return [path for path in folder.glob("*") if path.suffix in _READ_SUFFIXES]


def has_weights(folder: Path) -> bool:
    """Whether a folder holds a model's weights, in whatever kind of file."""
    return has_safetensors(folder) or any(folder.glob("pytorch_model*"))


def check_no_adapter(folder: Path) -> None:
    """Refuse a folder whose model is the sum of what is in it and something else."""
    if (folder / ADAPTER_FILE).is_file():
        raise InputError(
            f"{folder / ADAPTER_FILE}: an adapter that is not merged into a model; merge it first: "
            "python -m ckpt_convert import ADAPTER NEW_FOLDER, with the adapter in a folder of its "
            "own"
        )


def open_weights(folder: Path, *, originals: Mapping[str, Path] | None = None) -> Weights:
    """Find the weights of a model folder and read their headers.

    Args:
        originals: file name -> the file that it was made from, which errors are to name.

    Raises:
        InputError: no safetensors file, or one that is damaged, absurdly large or not what its
            index says; quantised weights.
    """
    originals = originals or {}
    if (path := folder / WEIGHTS_FILE).is_file():
        tensors = _read_header(path, originals)
    elif (path := folder / INDEX_FILE).is_file():
        tensors = _read_shards(path, originals)
    else:
        raise InputError(
            f"{folder}: no {WEIGHTS_FILE} and no {INDEX_FILE}; a model folder needs one"
        )
    _check_not_quantised(tensors)
    return Weights(originals.get(path.name, path), folder, tensors)


def open_file(path: Path) -> Weights:
    """The tensors of one safetensors file, whatever its name; errors as `open_weights`."""
    tensors = _read_header(path, {})
    _check_not_quantised(tensors)
    return Weights(path, path.parent, tensors)


def write_weights(
    folder: Path, tensors: Mapping[str, np.ndarray], *, file_name: str = WEIGHTS_FILE
) -> Path:
    """Write one safetensors file the way PyTorch libraries expect it."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    path = folder / file_name
    try:
        save_file(dict(tensors), path, metadata={"format": "pt"})
    except SafetensorError as error:  # says in words alone that the disk is full
        raise OSError(errno.EIO, str(error), str(path)) from None
    return path


def read_index(path: Path, *, suffix: str = ".safetensors") -> dict[str, str]:
    """Name of a tensor -> name of its file, which is a plain one in the same folder and exists."""
    if path.stat().st_size > MAX_INDEX_BYTES:
        raise InputError(f"{path}: larger than {MAX_INDEX_BYTES} bytes; no model needs that")
    weight_map = read_json(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError(f"{path}: 'weight_map' must map tensor names to file names")
    if len(weight_map) > MAX_TENSORS:
        raise InputError(f"{path}: {len(weight_map)} tensors; at most {MAX_TENSORS} are read")
    names = {str(name) for name in weight_map.values()}
    for name in sorted(names):
        if not _FILE_NAME.fullmatch(name) or not name.endswith(suffix):
            raise InputError(f"{path}: {name[:200]!r} is not a plain *{suffix} name in this folder")
    if len(names) > MAX_FILES:
        raise InputError(f"{path}: {len(names)} files; at most {MAX_FILES} are read")
    for name in sorted(names):
        if not (path.parent / name).is_file():
            raise InputError(f"{path}: names {name}, which is not in the folder")
    return weight_map


def _read_shards(path: Path, originals: Mapping[str, Path]) -> dict[str, _Tensor]:
    """The tensors of all files of an index, which must say the same as they do."""
    weight_map = read_index(path)
    tensors: dict[str, _Tensor] = {}
    expected: dict[str, set[str]] = {}
    for tensor, name in weight_map.items():
        expected.setdefault(name, set()).add(tensor)
    for name in sorted(expected):
        found = _read_header(path.parent / name, originals)
        if found.keys() != expected[name]:
            differing = ", ".join(repr(n[:200]) for n in sorted(found.keys() ^ expected[name])[:5])
            shown = originals.get(name, path.parent / name)
            raise InputError(f"{shown}: index and file disagree about {differing}")
        tensors |= found
    return tensors


def _read_header(path: Path, originals: Mapping[str, Path]) -> dict[str, _Tensor]:
    """Check the limits, let safetensors judge the layout, and give the tensors' places."""
    from safetensors import SafetensorError, safe_open

    shown = originals.get(path.name, path)
    with path.open("rb") as file:
        prefix = file.read(8)
        if len(prefix) < 8:
            raise InputError(f"{shown}: {len(prefix)} bytes; not a safetensors file, or cut short")
        (length,) = struct.unpack("<Q", prefix)
        if length > MAX_HEADER_BYTES:
            raise InputError(
                f"{shown}: the header claims {length} bytes, at most {MAX_HEADER_BYTES} are read; "
                "damaged, or not a safetensors file"
            )
        text = file.read(length)
    try:
        header = json.loads(text, object_pairs_hook=_without_duplicates)
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        if len(entries) > MAX_TENSORS:
            raise InputError(f"{shown}: {len(entries)} tensors; at most {MAX_TENSORS} are read")
        # Opening checks every offset: nothing overlaps, overflows or ends beyond the file.
        with safe_open(path, framework="numpy"):
            pass
        return {name: _entry(path, shown, entry, 8 + length) for name, entry in entries.items()}
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        if isinstance(e, InputError):
            raise
        reason = " ".join(str(e).split())[:200]
        raise InputError(f"{shown}: damaged, or not a safetensors file ({reason})") from None


def _entry(path: Path, shown: Path, entry: Mapping[str, Any], base: int) -> _Tensor:
    start, stop = entry["data_offsets"]
    return _Tensor(path, shown, entry["dtype"], tuple(entry["shape"]), base + start, base + stop)


def _check_not_quantised(tensors: Mapping[str, _Tensor]) -> None:
    for name, tensor in tensors.items():
        if _is_quantised(name, tensor.dtype):
            raise InputError(
                f"{tensor.shown}: tensor {name[:200]!r}: dtype {tensor.dtype}; quantised weights "
                "are not read, use the original float weights"
            )


def _is_quantised(name: str, dtype: str) -> bool:
    """Codes in place of numbers: small types that are never anything else, or codes packed.

    Masks and positions that models keep beside their weights are I64, U8 or BOOL.
    """
    is_small = dtype.startswith(("F4", "F6_", "F8_", "I4", "I8"))
    return is_small or (dtype in ("I16", "I32", "U8") and name.endswith("weight"))


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
