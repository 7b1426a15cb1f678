"""The weights of a model folder in either format; `pytorch_model.bin` only where it is allowed.

A pickle can hold code. It is never opened in this process: `pickle_worker.py`, in a process of its
own with limits on memory and time, rewrites it as safetensors in a temporary folder, and the
ordinary strict reader takes it from there.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from ckpt_convert.weight_files import (
    INDEX_FILE,
    WEIGHTS_FILE,
    Weights,
    has_safetensors,
    open_weights,
    read_index,
)
from jaxrank.errors import InputError

PICKLE_FILE = "pytorch_model.bin"
PICKLE_INDEX_FILE = "pytorch_model.bin.index.json"

_TORCH = (2, 10)  # CVE-2026-24747: older ones can be made to write beyond their memory
_ALLOW = (
    "is a pickle, which can hold code beside numbers; to read its numbers alone, in a process of "
    "its own, pass --allow-pickle (in Python allow_pickle=True, in a recipe model.allow_pickle)"
)
# Run by its path and never imported: it imports torch, which nothing in jaxrank does.
_WORKER = Path(__file__).with_name("pickle_worker.py")
_REFUSED = 3  # its exit status for what it refuses

_SECONDS = 120.0
_SECONDS_PER_BYTE = 1 / 5e6
"""On the clock, for a drive that hangs; the process itself limits its processor time."""


@contextmanager
def opened_weights(folder: Path, *, allow_pickle: bool = False) -> Iterator[Weights]:
    """The folder's weights, to be read inside the block; safetensors win over pickles.

    Raises:
        InputError: no weights, pickles without `allow_pickle` or without a PyTorch that reads them
            safely, and whatever is wrong with a file.
    """
    files = {} if has_safetensors(folder) else _pickle_files(folder)
    if not files:
        yield open_weights(folder)
        return
    shown = folder / (PICKLE_FILE if (folder / PICKLE_FILE).is_file() else PICKLE_INDEX_FILE)
    if not allow_pickle:
        raise InputError(f"{shown}: {_ALLOW}")
    _check_torch(shown)
    with tempfile.TemporaryDirectory(prefix="jaxrank-") as name:
        temporary = Path(name)
        _convert(files, temporary, shown)
        if (folder / "config.json").is_file():  # PyTorch libraries want it beside the weights
            shutil.copyfile(folder / "config.json", temporary / "config.json")
        yield open_weights(temporary, originals={**files, INDEX_FILE: shown})


def _pickle_files(folder: Path) -> dict[str, Path]:
    """Name of the safetensors file to be written -> pickle."""
    if (folder / PICKLE_FILE).is_file():
        return {WEIGHTS_FILE: folder / PICKLE_FILE}
    if not (folder / PICKLE_INDEX_FILE).is_file():
        return {}
    files = sorted(set(read_index(folder / PICKLE_INDEX_FILE, suffix=".bin").values()))
    return {f"model-{index:05}.safetensors": folder / name for index, name in enumerate(files)}


def _check_torch(shown: Path) -> None:
    wanted = ".".join(map(str, _TORCH))
    try:
        found = metadata.version("torch")
    except metadata.PackageNotFoundError:
        found = "none"
    numbers = re.match(r"(\d+)\.(\d+)", found)
    if numbers is None or (int(numbers[1]), int(numbers[2])) < _TORCH:
        raise InputError(
            f"{shown}: PyTorch {wanted} or newer is needed to read it safely, found {found}; "
            "pip install 'jaxrank[convert]'"
        )


def _convert(files: Mapping[str, Path], temporary: Path, shown: Path) -> None:
    """Write each pickle's tensors under its new name, and a new index where there was one."""
    arguments = [
        str(path.absolute())
        for name, source in files.items()
        for path in (source, temporary / name)
    ]
    size = sum(source.stat().st_size for source in files.values())
    environment = {n: v for n, v in os.environ.items() if not n.startswith("TORCH_")}
    try:
        done = subprocess.run(
            # -P: the current folder may hold a torch.py that came with the model.
            [sys.executable, "-P", str(_WORKER), *arguments],
            cwd=temporary,
            env={**environment, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SECONDS + _SECONDS_PER_BYTE * size,
        )
    except subprocess.TimeoutExpired as error:
        raise InputError(
            f"{shown}: not read within {error.timeout:.0f} s; check the drive"
        ) from None
    if done.returncode == _REFUSED:
        raise InputError(done.stdout.decode(errors="replace").strip())
    if done.returncode == -signal.SIGPROF:
        raise InputError(f"{shown}: takes far longer to read than its length needs; is it damaged?")
    if done.returncode != 0:
        last = " ".join(done.stderr.decode(errors="replace").split())[-200:]
        raise InputError(
            f"{shown}: the process that reads it ended with status {done.returncode} ({last}); "
            "damaged, or out of memory"
        )
    if WEIGHTS_FILE not in files:
        new = {source.name: name for name, source in files.items()}
        old = read_index(shown, suffix=".bin")
        index = {"weight_map": {tensor: new[name] for tensor, name in old.items()}}
        (temporary / INDEX_FILE).write_text(json.dumps(index), encoding="utf-8")
