"""The benchmarks of `jaxrank.benchmarking` that the bounds speak of, as rows of this table."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec

from jaxrank.benchmarking import report
from jaxrank.benchmarking.cases import Case, Subject
from jaxrank.benchmarking.rivals import MakeRival, load_rivals
from jaxrank.benchmarking.run import run_benchmarks
from jaxrank.benchmarking.sizes import Choice, plan_cases
from jaxrank.benchmarking.timing import Rounds
from scripts.gpu_check.bounds import FAMILIES
from scripts.gpu_check.rows import Row, Sizes

RIVALS = "scripts.pytorch_rivals"

LENGTHS_OF: Mapping[str, tuple[int, ...]] = {
    "pythia-410m": (512, 2048, 4096, 8192),
    "mamba-370m": (512, 4096, 8192),
    "mamba2-370m": (512, 2048),
    "bert-base": (512,),
}
"""Training: preset -> lengths."""


@dataclass
class Benchmarks:
    """Runs benchmarks by subject and keeps their rows, which the bounds are looked up in."""

    measured: list[report.Row] = field(default_factory=list)

    def check(self, subject: Subject) -> Callable[[Sizes], Iterator[Row]]:
        """The function that measures a subject."""

        def measure(sizes: Sizes) -> Iterator[Row]:
            rivals, missing = find_rivals()
            if missing:
                yield Row(f"bench {subject}", "rivals", ok=None, note=missing)
            for case in cases_of(subject, sizes):
                done = run_benchmarks(
                    [case], rivals=rivals, rounds=Rounds(repeats=1, least_s=0.0) if sizes.is_toy
                    else Rounds(),
                )  # fmt: skip
                self.measured += done.rows
                yield from (as_row(subject, row) for row in done.rows)

        return measure


def cases_of(subject: Subject, sizes: Sizes) -> Sequence[Case]:
    """What is measured of a subject: in bfloat16 at 32,768 tokens, or toys."""
    if sizes.is_toy:
        return plan_cases([subject], "toy", Choice())
    if subject == "train":
        return [
            case
            for preset, lengths in LENGTHS_OF.items()
            for case in plan_cases(
                [subject], "full", Choice("bfloat16", lengths=lengths, presets=(preset,))
            )
        ]
    presets = {"score": ("bert-base", "minilm-l6"), "layer": FAMILIES}.get(subject, ())
    return plan_cases([subject], "full", Choice("bfloat16", lengths=(512,), presets=presets))


def find_rivals() -> tuple[Mapping[str, MakeRival] | None, str]:
    """PyTorch's sides where it is installed with CUDA; else what is missing."""
    if find_spec("torch") is None:
        return None, "PyTorch is not installed, so nothing is compared with it"
    import torch

    if not torch.cuda.is_available():
        return None, "PyTorch sees no CUDA, so nothing is compared with it"
    return load_rivals(RIVALS), ""


def as_row(subject: str, row: report.Row) -> Row:
    """A benchmark's row as one of ours."""
    names = (
        "median_ms", "low_ms", "high_ms", "compile_s", "temporary_mib", "peak_mib", "pairs_per_s",
        "floor_ms", "floor_share", "speed_of_ours", "difference",
    )  # fmt: skip
    values = {name: getattr(row, name) for name in names}
    return Row(
        f"bench {subject}",
        f"{row.direction}, {row.shape}, {row.dtype}, {row.side}",
        ok=None if row.failed else True,
        measured={name: float(value) for name, value in values.items() if value is not None},
        note=row.failed or "",
    )
