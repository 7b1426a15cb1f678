"""The benchmarks of `jaxrank.benchmarking` that the bounds speak of, as rows of this table."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.util import find_spec

import jax

from jaxrank.benchmarking import report
from jaxrank.benchmarking.cases import Case, Subject
from jaxrank.benchmarking.rivals import MakeRival, load_rivals
from jaxrank.benchmarking.run import OURS, run_benchmarks
from jaxrank.benchmarking.sizes import Choice, plan_cases
from jaxrank.benchmarking.timing import Rounds
from scripts.gpu_check.bounds import FAMILIES
from scripts.gpu_check.rows import Row, Sizes

RIVALS = "scripts.pytorch_rivals"
SHORT = 512
"""The length at which ours stand beside PyTorch's."""

LENGTHS_OF: Mapping[str, tuple[int, ...]] = {
    "pythia-410m": (SHORT, 2048, 4096, 8192),
    "mamba2-370m": (SHORT, 2048),
    "bert-base": (SHORT,),
    "mamba-370m": (SHORT, 4096, 8192),
}
"""Training: preset -> lengths."""

Measure = Callable[[Sizes], Iterator[Row]]


def bench(subject: Subject, preset: str | None = None) -> Measure:
    """The function that measures our side of a subject, or of one preset of it."""

    def measure(sizes: Sizes) -> Iterator[Row]:
        on_gpu = jax.default_backend() == "gpu"
        yield from _measure(cases_of(subject, sizes, preset), sizes, {}, is_strict=on_gpu)

    return measure


def bench_against(subject: Subject, preset: str | None = None) -> Measure:
    """The function that measures ours and PyTorch's in turn, at SHORT tokens."""

    def measure(sizes: Sizes) -> Iterator[Row]:
        rivals, missing = find_rivals()
        if rivals is None:
            yield Row(f"against {subject}", "PyTorch", ok=None, note=missing)
            return
        cases = cases_of(subject, sizes, preset)
        if not sizes.is_toy:
            # Of an operation the pass that stands for training, and that of scoring.
            cases = [
                case
                for case in cases
                if case.shape.length == SHORT and case.direction != "backward"
            ]
        yield from _measure(cases, sizes, rivals)

    return measure


def _measure(
    cases: Sequence[Case], sizes: Sizes, rivals: Mapping[str, MakeRival], *, is_strict: bool = False
) -> Iterator[Row]:
    """Rows of the cases.

    Args:
        is_strict: train transformers on cuDNN's attention or not at all: what the Mamba models are
            held against is to be the fused kernel for sure.
    """
    rounds = Rounds(repeats=1, least_s=0.0) if sizes.is_toy else Rounds()
    for case in cases:
        implementation = "auto"
        if case.operation == "selective_scan" and not sizes.has_mosaic:
            implementation = "associative"
        elif case.subject == "train" and case.operation == "attention" and is_strict:
            implementation = "cudnn"
        done = run_benchmarks(
            [case],
            implementations=(implementation,),
            rivals=rivals,
            rounds=rounds,
        )
        for row in done.rows:
            yield as_row(case.subject, row)


def cases_of(subject: Subject, sizes: Sizes, preset: str | None = None) -> Sequence[Case]:
    """What is measured of a subject: in bfloat16 at 32,768 tokens, or toys."""
    if sizes.is_toy:
        return plan_cases([subject], "toy", Choice())
    if preset is not None:
        choice = Choice("bfloat16", lengths=LENGTHS_OF[preset], presets=(preset,))
        return plan_cases([subject], "full", choice)
    presets = {"score": ("bert-base", "minilm-l6"), "layer": FAMILIES}.get(subject, ())
    return plan_cases([subject], "full", Choice("bfloat16", lengths=(SHORT,), presets=presets))


def find_rivals() -> tuple[Mapping[str, MakeRival] | None, str]:
    """PyTorch's sides where it is installed with CUDA; else what is missing."""
    if find_spec("torch") is None:
        return None, "PyTorch is not installed, so nothing is compared with it"
    import torch

    if not torch.cuda.is_available():
        return None, "PyTorch sees no CUDA, so nothing is compared with it"
    return load_rivals(RIVALS), ""


def as_row(subject: str, row: report.Row) -> Row:
    """A benchmark's row as one of ours.

    That a rival could not be measured, or that this device has too little memory, fails nothing.
    """
    names = (
        "median_ms", "low_ms", "high_ms", "compile_s", "temporary_mib", "peak_mib", "pairs_per_s",
        "floor_ms", "floor_share", "speed_of_ours", "difference",
    )  # fmt: skip
    values = {name: getattr(row, name) for name in names}
    is_ours = row.side.split()[0] == OURS
    ok: bool | None = True
    if row.failed is not None:
        ok = False if is_ours and row.failed != report.OUT_OF_MEMORY else None
    source = "" if row.peak_source is None else f"peak by {row.peak_source}"
    return Row(
        f"bench {subject}",
        f"{row.direction}, {row.shape}, {row.dtype}, {row.side}",
        ok=ok,
        measured={name: float(value) for name, value in values.items() if value is not None},
        note=row.failed or source,
        benchmark=asdict(row),
    )
