"""What each Mosaic kernel of a function takes on the H200: registers, spills, shared memory."""

import contextlib
import dataclasses
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from scripts.h200.compilation import compile_for_h200

# One streaming multiprocessor of the H200 (compute capability 9.0).
REGISTERS_PER_MULTIPROCESSOR = 65_536
SHARED_BYTES_PER_MULTIPROCESSOR = 233_472
THREADS_PER_MULTIPROCESSOR = 2_048
SHARED_BYTES_RESERVED_PER_BLOCK = 1_024
REGISTERS_ALLOCATED_TOGETHER = 8  # per thread, rounded up

# Where each figure stands in what the compiler writes.
SPILLS = re.compile(r"(\d+) bytes spill stores, (\d+) bytes spill loads")
REGISTERS = re.compile(r"Used (\d+) registers")
SHARED_BYTES = re.compile(r"dynamic_shared_memory_size %c(\d+)_i32")
THREADS = re.compile(r"\.maxntid (\d+)")
GLOBAL_STORE = re.compile(
    r"\bst\.global\.|\bcp\.(?:reduce\.)?async\.bulk\.(?:tensor\.\dd\.)?global\.shared"
)
ATOMIC = re.compile(r"\b(?:atom|red)\.|\bcp\.reduce\b")
BARRIER = re.compile(r"\b(?:bar|barrier)\.(?:cta\.)?sync\b")


@dataclasses.dataclass(frozen=True)
class KernelResources:
    """One kernel as compiled for the H200. Counts are of instructions in the PTX, not of runs.

    Attributes:
        name: the kernel's own.
        registers: per thread.
        spill_bytes: of registers that did not fit, stored and loaded, per thread.
        shared_bytes: of a block.
        stores: to global memory, single ones and bulk copies.
        barriers: that all threads of a group wait at (`bar.sync`).
        atomics: additions to memory, whose order may differ from run to run.
        threads: of a block.
    """

    name: str
    registers: int
    spill_bytes: int
    shared_bytes: int
    stores: int
    barriers: int
    atomics: int
    threads: int

    @property
    def blocks_per_multiprocessor(self) -> int:
        """How many blocks a multiprocessor holds at once."""
        granule = REGISTERS_ALLOCATED_TOGETHER
        registers = -(-self.registers // granule) * granule * self.threads
        shared = self.shared_bytes + SHARED_BYTES_RESERVED_PER_BLOCK
        return min(
            REGISTERS_PER_MULTIPROCESSOR // registers,
            SHARED_BYTES_PER_MULTIPROCESSOR // shared,
            THREADS_PER_MULTIPROCESSOR // self.threads,
        )


def kernel_resources(
    function: Callable[..., Any], arguments: dict | tuple
) -> list[KernelResources]:
    """The Mosaic kernels of `function` in the order of their lowering, as the H200 would run them.

    Arguments are those of `compile_for_h200`; so is what it raises. A function without Mosaic
    kernels gives an empty list.
    """
    with tempfile.TemporaryDirectory() as folder:
        with _dumping_to(Path(folder)):
            compile_for_h200(function, arguments)
        return [read_kernel(ptx) for ptx in sorted(Path(folder).glob("*.ptx"), key=_number)]


def read_kernel(ptx: Path) -> KernelResources:
    """One kernel from its three files: PTX, and beside it the assembler's report and the passes."""
    code = ptx.read_text()
    report = ptx.with_suffix(".ptxas").read_text()
    passes = ptx.with_suffix(".mlir-passes.log").read_text()
    spills = _only(SPILLS, report, ptx)
    return KernelResources(
        name=re.sub(r"_\d+$", "", ptx.stem),
        registers=int(_only(REGISTERS, report, ptx)[1]),
        spill_bytes=int(spills[1]) + int(spills[2]),
        shared_bytes=int(_only(SHARED_BYTES, passes, ptx)[1]),
        stores=len(GLOBAL_STORE.findall(code)),
        barriers=len(BARRIER.findall(code)),
        atomics=len(ATOMIC.findall(code)),
        threads=int(_only(THREADS, code, ptx)[1]),
    )


def _only(pattern: re.Pattern[str], text: str, source: Path) -> re.Match[str]:
    """The first match; a compiler that writes otherwise must not pass as 0 registers."""
    match = pattern.search(text)
    if match is None:
        raise RuntimeError(f"{source.name}: nothing matches '{pattern.pattern}'")
    return match


def _number(path: Path) -> int:
    """The running number at the end of a dump's name."""
    return int(path.stem.rpartition("_")[2])


@contextlib.contextmanager
def _dumping_to(folder: Path) -> Iterator[None]:
    """Mosaic writes what it compiles into `folder`; its complaint of no disassembler is kept off.

    The disassembler comes with a full CUDA toolkit only, and nothing here reads its output.
    """
    before = os.environ.get("MOSAIC_GPU_DUMP_TO")
    os.environ["MOSAIC_GPU_DUMP_TO"] = str(folder)
    sys.stderr.flush()
    screen = os.dup(2)
    with (folder / "stderr").open("wb") as kept:
        os.dup2(kept.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(screen, 2)
        os.close(screen)
        if before is None:
            del os.environ["MOSAIC_GPU_DUMP_TO"]
        else:
            os.environ["MOSAIC_GPU_DUMP_TO"] = before
