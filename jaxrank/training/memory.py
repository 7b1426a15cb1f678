"""What memory a training step needs, by the compiler's own analysis, and what there is.

Nothing is run for it. JAX keeps what was compiled for the analysis, so the step that follows does
not compile again.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxrank.errors import InputError
from jaxrank.shapes import Array
from jaxrank.training.shared_states import has_shared_states
from jaxrank.training.step import Metrics, TrainState, TrainStep

GIB = 2**30
SHARE_TO_FILL = 0.9
"""Of the memory there is, what `find_accumulation` fills: the allocator loses some to gaps, and
kernels take scratch space that the analysis does not see."""

_WORTH_SAYING_AGAIN = 1.25
_MEMORY_FILE = Path("/proc/meminfo")
_CONTAINER_FILE = Path("/proc/self/cgroup")
_CONTAINER_FOLDER = Path("/sys/fs/cgroup")


class StepMemory(NamedTuple):
    """Memory of a compiled step on each device, in bytes."""

    arguments: int
    """State and batch."""
    results: int
    """State and metrics that come out."""
    shared: int
    """What of the results takes the place of arguments: all of the state, as it is donated."""
    temporaries: int
    """What is needed in between: kept activations, gradients."""

    @property
    def total(self) -> int:
        """All that must be there at once."""
        return self.arguments + self.results - self.shared + self.temporaries


class Memory(NamedTuple):
    """Memory of the fullest device, in bytes."""

    limit: int
    """What this process may have at the most."""
    used: int
    """What it has already."""
    is_host: bool
    """Whether it is the machine's own, which the system lends and takes from others."""


def measure_step(train_step: Any, state: Any, batch: Any) -> StepMemory | None:
    """Compile a step for arrays, or for the shapes of arrays, and ask what memory it needs.

    Args:
        train_step: what `make_train_step` returns.
        state, batch: its arguments, or trees of `jax.ShapeDtypeStruct` in their place.

    Returns:
        None where the compiler does not say.
    """
    analysis = train_step.lower(state, batch).compile().memory_analysis()
    if analysis is None:
        return None
    # What is compiled for CPU devices of one process shares that process's memory.
    devices = jax.local_device_count() if jax.default_backend() == "cpu" else 1
    return StepMemory(
        arguments=devices * analysis.argument_size_in_bytes,
        results=devices * analysis.output_size_in_bytes,
        shared=devices * analysis.alias_size_in_bytes,
        temporaries=devices * analysis.temp_size_in_bytes,
    )


def read_memory() -> Memory | None:
    """Memory of the devices of this process; None where nothing says."""
    statistics = [device.memory_stats() for device in jax.local_devices()]
    known = [s for s in statistics if s and "bytes_limit" in s and "bytes_in_use" in s]
    if known:
        fullest = min(known, key=lambda s: s["bytes_limit"] - s["bytes_in_use"])
        return Memory(fullest["bytes_limit"], fullest["bytes_in_use"], is_host=False)
    if jax.default_backend() != "cpu":
        return None
    available = _available_on_host()
    return None if available is None else Memory(available, 0, is_host=True)


def find_accumulation(
    measure: Callable[[int], StepMemory | None], candidates: Sequence[int], *, free: int
) -> tuple[int, StepMemory]:
    """The fewest parts of a batch with which a step fits.

    Args:
        measure: the memory of a step of so many parts.
        candidates: numbers of parts, ascending.
        free: bytes that state and step may take; 90% of them are filled.

    Raises:
        InputError: it does not fit with the most parts either.
    """
    memory = None
    for parts in candidates:
        memory = measure(parts)
        if memory is None:
            raise InputError(
                f"training.find_batch_size: the compiler for {jax.default_backend()} does not say "
                "what memory a step needs; set training.accumulation"
            )
        if memory.total <= SHARE_TO_FILL * free:
            return parts, memory
    assert memory is not None, "1 is a candidate always"
    raise InputError(
        f"training.find_batch_size: a step needs {in_gib(memory.total)} of {in_gib(free)} even in "
        f"{candidates[-1]} parts (training.accumulation); set training.chunk, training.remat full, "
        "a shorter text.max_length or a smaller model"
    )


class MeasuredStep:
    """A training step that is measured before it first runs on batches of a shape.

    What needs more than an accelerator has is refused; on a CPU, where the system may still find
    memory, it is warned of.

    Args:
        train_step: what `make_train_step` returns.
        say: called with lines for the user: the memory that the first batch needs, and of later
            ones those that need far more.
    """

    def __init__(self, train_step: TrainStep, *, say: Callable[[str], None]) -> None:
        self._train_step = train_step
        self._say = say
        self._seen: set[tuple[tuple[int, ...], ...]] = set()
        self._said = 0.0

    def __call__(self, state: TrainState, batch: Mapping[str, Array]) -> tuple[TrainState, Metrics]:
        """Do a step."""
        self.measure(state, batch)
        return self._train_step(state, batch)

    def measure(self, state: TrainState, batch: Mapping[str, Array]) -> None:
        """Compile the step for such a batch, if it is not yet, and say what it needs.

        Raises:
            InputError: the device has not that much.
        """
        shape = tuple(batch[name].shape for name in sorted(batch))
        if shape in self._seen:
            return
        self._seen.add(shape)
        needed, memory = measure_step(self._train_step, state, batch), read_memory()
        if needed is None or memory is None:
            return
        # State and batch are there already.
        free = memory.limit - memory.used + needed.arguments
        sizes = _describe_batch(batch)
        text = f"{in_gib(needed.total)} of {in_gib(free)} of memory for a batch of {sizes} tokens"
        if needed.total > free:
            remedy = (
                "more training.accumulation (or training.find_batch_size), training.chunk or "
                "training.remat full takes less"
            )
            if not memory.is_host:
                raise InputError(f"a training step needs {text}; {remedy}")
            self._say(f"warning: a training step needs {text}; {remedy}")
        elif needed.total > _WORTH_SAYING_AGAIN * self._said:
            self._say(f"a training step needs {text}")
        else:
            return
        self._said = needed.total


def _describe_batch(batch: Mapping[str, Array]) -> str:
    """The shapes of a batch's ids."""
    if not has_shared_states(batch):
        return " x ".join(map(str, batch["input_ids"].shape))
    documents, queries = (
        " x ".join(map(str, batch[f"{side}_ids"].shape)) for side in ("document", "query")
    )
    return f"documents of {documents} and queries of {queries}"


def in_gib(size: float | int) -> str:
    """Bytes as people read them.

    >>> in_gib(3.21 * 2**30), in_gib(47 * 2**20)
    ('3.2 GiB', '0.05 GiB')
    """
    return f"{size / GIB:.1f} GiB" if size >= 0.1 * GIB else f"{size / GIB:.2f} GiB"


def _available_on_host() -> int | None:
    """Bytes that a process of this machine, or of its container, can still get."""
    available = None
    if _MEMORY_FILE.exists():
        for line in _MEMORY_FILE.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                available = 1024 * int(line.split()[1])
    elif "SC_PHYS_PAGES" in os.sysconf_names:  # not Linux: all there is
        available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if available is None:
        return None
    left = [_left_in(folder) for folder in _containers()]
    return min([available, *(size for size in left if size is not None)])


def _containers() -> list[Path]:
    """Folders of the control groups that this process is in (version 2), the outermost first."""
    folders = [_CONTAINER_FOLDER]
    try:
        lines = _CONTAINER_FILE.read_text(encoding="utf-8").splitlines()
    except OSError:
        return folders
    for line in lines:
        path = line.removeprefix("0::/")
        # A path with .. lies outside of what this process sees.
        if path == line or ".." in path:
            continue
        for name in filter(None, path.split("/")):
            folders.append(folders[-1] / name)
    return folders


def _left_in(folder: Path) -> int | None:
    """Bytes that the processes of a control group can still get; None without a limit."""
    try:
        limit = (folder / "memory.max").read_text(encoding="ascii").strip()
        statistics = (folder / "memory.stat").read_text(encoding="ascii").split()
    except OSError:
        return None
    if limit == "max":
        return None
    # Not `memory.current`, which counts cached files that make room for anything else.
    return int(limit) - int(statistics[statistics.index("anon") + 1])
