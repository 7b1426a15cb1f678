"""In a process of its own: PyTorch's pickle files, rewritten as safetensors.

    python -P pickle_worker.py SOURCE TARGET [SOURCE TARGET ...]

Nothing but numbers leaves this process. `weights_only=True` runs no code of the file; beside it,
memory, time and what is written are bounded by the file's own length (memory on Linux only, where
/proc tells what is used). A refusal is one line on standard output and exit status 3; out of time
is the signal SIGPROF. Run by its path, it imports nothing of ours, so that nothing else is loaded.
"""

import errno
import json
import re
import resource
import signal
import struct
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

REFUSED = 3
MAX_TENSORS = 50_000
MAX_PICKLE_BYTES = 1 << 20
"""About 200 bytes a tensor are needed."""
MAX_COPIES = 4
"""A tied tensor is written under each of its names; T5 has four for its embedding."""

_MEMORY_BYTES = 128 << 20
_SECONDS = 1.5
_SECONDS_PER_BYTE = 1 / 50e6
"""Of processor time, so that a busy machine refuses nothing; 20 times what a sound file needs."""

_ZIP = b"PK\x03\x04"
_LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""How files of PyTorch before 1.6 begin: a pickle of their magic number."""
_DTYPES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}


class RefusedError(Exception):
    """Why a file is not converted."""


def main(arguments: Sequence[str]) -> None:
    """Convert each source, in order, until one is refused."""
    sources = [Path(path) for path in arguments[::2]]
    largest = max(path.stat().st_size for path in sources)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _limit(resource.RLIMIT_FSIZE, MAX_COPIES * largest + _MEMORY_BYTES)
    source = sources[0]
    try:
        _limit_memory(_MEMORY_BYTES)
        for source in sources:
            check_container(source)
        _limit(resource.RLIMIT_DATA, None)
        import torch

        torch.set_num_threads(1)  # each thread would need a stack of its own
        # One map of the file, and one copy of a tensor that does not lie there in order.
        _limit_memory(2 * largest + _MEMORY_BYTES)
        # A signal without a handler: it also ends what never comes back to the interpreter, as the
        # hash of a tuple that holds itself twice, 60 deep.
        size = sum(path.stat().st_size for path in sources)
        signal.setitimer(signal.ITIMER_PROF, _SECONDS + _SECONDS_PER_BYTE * size)
        for source, target in zip(sources, arguments[1::2], strict=True):
            convert(source, Path(target))
    except OSError as error:
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        advice = "; set TMPDIR to a folder with more room" if is_full else ""
        _refuse(f"{error.filename or source}: {error.strerror}{advice}")
    except Exception as error:  # PyTorch meets a hostile file with a dozen kinds
        _refuse(f"{source}: {reason(error)}")


def check_container(path: Path) -> None:
    """Refuse a file that would unpack to more than its length, before PyTorch sees it."""
    with path.open("rb") as file:
        start = file.read(len(_LEGACY))
    if start == _LEGACY:
        return
    if not start.startswith(_ZIP):
        raise RefusedError("damaged, or no file of torch.save")
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    if len(members) > 2 * MAX_TENSORS:
        raise RefusedError(f"{len(members)} members; no model needs that")
    for member in members:
        name = member.filename[:200]
        if member.compress_type != zipfile.ZIP_STORED:
            raise RefusedError(f"member {name!r} is compressed, which torch.save never does")
        if name.endswith("data.pkl") and member.file_size > MAX_PICKLE_BYTES:
            raise RefusedError(f"member {name!r} has {member.file_size} bytes; no model needs that")
    if sum(member.file_size for member in members) > path.stat().st_size:
        raise RefusedError("its members overlap")


def convert(source: Path, target: Path) -> None:
    """Write the tensors of `source`, types and all, to the safetensors file `target`."""
    import torch

    with source.open("rb") as file:
        is_zip = file.read(4) == _ZIP
    held = torch.load(source, map_location="cpu", weights_only=True, mmap=is_zip)
    if not isinstance(held, dict):
        raise RefusedError(f"holds a {type(held).__name__}; a dict of tensors is needed")
    if len(held) > MAX_TENSORS:
        raise RefusedError(f"{len(held)} tensors; at most {MAX_TENSORS} are read")
    _check_tensors(held, source.stat().st_size)
    # Wide types first, so that every tensor is aligned to its type.
    tensors = dict(sorted(held.items(), key=lambda item: -item[1].element_size()))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _DTYPES[_dtype(tensor)],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with target.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors.values():
            flat = tensor.detach().contiguous().reshape(-1)
            file.write(flat.view(torch.uint8).numpy().data)


def _check_tensors(held: dict[Any, Any], size: int) -> None:
    """Every tensor is a plain one that shows no more than the file stores."""
    import torch

    storages = {}
    total = 0
    for name, tensor in held.items():
        shown = f"{str(name)[:200]!r}"
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise RefusedError(
                f"{shown} is a {type(tensor).__name__}; a plain dict of tensors is needed"
            )
        is_plain = type(tensor) in (torch.Tensor, torch.nn.Parameter) and not (
            tensor.is_nested or tensor.is_quantized or tensor.layout is not torch.strided
        )
        if not is_plain or tensor.device.type != "cpu" or _dtype(tensor) not in _DTYPES:
            raise RefusedError(
                f"tensor {shown}: quantised, sparse or of a kind that is not read ({tensor.dtype})"
            )
        claimed, stored = tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes()
        if claimed > stored:
            raise RefusedError(
                f"tensor {shown}: claims {tensor.numel()} numbers ({claimed} bytes), the file "
                f"stores {stored} bytes of it"
            )
        storages[tensor.untyped_storage().data_ptr()] = stored
        total += claimed
    if sum(storages.values()) > size or total > MAX_COPIES * size:
        raise RefusedError(f"tensors claim {total} bytes, the file has {size}")


def _dtype(tensor: Any) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def reason(error: Exception) -> str:
    """What went wrong, without PyTorch's advice on how to run what the file holds."""
    if isinstance(error, RefusedError):
        return str(error)
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError) or "not enough memory" in text or "allocate memory" in text:
        return "needs far more memory than the file is long; damaged, or made to do harm"
    if name := re.search(r"GLOBAL (\S+)", text):
        return f"refers to {name[1][:80]}, and only tensors are read; refused"
    text = text.partition("WeightsUnpickler error: ")[2] or text
    text = text.partition(" Check the documentation")[0]
    return f"damaged, or no file of torch.save ({type(error).__name__}: {text[:120]})"


def _limit(which: int, most: int | None) -> None:
    """Set the soft limit; None takes it away again."""
    hard = resource.getrlimit(which)[1]
    most = hard if most is None else most
    resource.setrlimit(which, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _limit_memory(more: int) -> None:
    """Allow `more` bytes of private memory than are in use now."""
    status = Path("/proc/self/status")
    if status.exists():
        used = re.search(r"VmData:\s+(\d+) kB", status.read_text())
        assert used, "every Linux kernel tells VmData"
        _limit(resource.RLIMIT_DATA, 1024 * int(used[1]) + more)


def _refuse(line: str) -> None:
    sys.stdout.write("".join(c if c.isprintable() else "?" for c in line) + "\n")
    sys.stdout.flush()
    sys.exit(REFUSED)


if __name__ == "__main__":
    main(sys.argv[1:])
