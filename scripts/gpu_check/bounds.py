"""What the kernels and models are held to on a GPU: bounds and aims as data, and their verdicts.

Each line says what is looked up among the benchmarks' rows of one run, and how much of it there
must be. Nothing here is changed by what was measured. One promise is not among them, since it takes
texts, a tokenizer and a model folder: MiniLM-L6 on texts of natural lengths against
sentence-transformers, which `python -m jaxrank.bench --model FOLDER --collection FOLDER --against
scripts.pytorch_rivals --rivals sentence-transformers` measures.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from jaxrank.benchmarking.report import Row

Verdict = Literal["met", "missed", "not measured"]
OURS = "jaxrank"


@dataclass(frozen=True)
class Pick:
    """Which rows: all that agree in everything that is named."""

    subject: str
    length: int
    name: str
    """A preset, or a part of an operation's name."""
    direction: str | None = None
    is_rival: bool = False
    side: str | None = None

    def rows(self, rows: Sequence[Row]) -> list[Row]:
        """Those with a time."""
        return [
            row
            for row in rows
            if row.subject == self.subject
            and row.length == self.length
            and self.name in (row.name, *_words(row.name))
            and self.direction in (None, row.direction)
            and self.side in (None, row.side)
            and (row.side.split()[0] != OURS) == self.is_rival
            and row.median_ms is not None
        ]


class Found(NamedTuple):
    """What the rows show of a bound."""

    value: float | None
    note: str = ""


Measure = Callable[[Sequence[Row]], Found]


@dataclass(frozen=True)
class Bound:
    """One promise."""

    title: str
    least: float
    measure: Measure
    aim: float | None = None

    def verdict(self, rows: Sequence[Row]) -> tuple[Verdict, Found]:
        """Whether it is met, and what shows it."""
        found = self.measure(rows)
        if found.value is None:
            return "not measured", found
        return ("met" if found.value >= self.least else "missed"), found


def _words(name: str) -> Iterator[str]:
    """Pairs of words of an operation's name, as "channels 1536"."""
    words = name.split()
    yield from (" ".join(pair) for pair in zip(words[::2], words[1::2], strict=False))


def floor_share(pick: Pick) -> Measure:
    """Floor over measured time."""

    def measure(rows: Sequence[Row]) -> Found:
        shares = [row.floor_share for row in pick.rows(rows) if row.floor_share is not None]
        return Found(max(shares, default=None))

    return measure


def throughput_ratio(ours: str, over: str, length: int) -> Measure:
    """Training pairs a second of one preset of ours over those of another on fused attention."""

    def measure(rows: Sequence[Row]) -> Found:
        rates = [
            [row.pairs_per_s for row in pick.rows(rows) if row.pairs_per_s]
            for pick in (Pick("train", length, ours), Pick("train", length, over, side=FUSED))
        ]
        return Found(max(rates[0]) / max(rates[1]) if all(rates) else None)

    return measure


def speed_against_rivals(pick: Pick, *, needed: str) -> Measure:
    """The fastest rival's time over ours.

    Args:
        needed: the rival without which nothing is shown, since the others are slow.
    """

    def measure(rows: Sequence[Row]) -> Found:
        speeds = {row.side: row.speed_of_ours for row in pick.rows(rows) if row.speed_of_ours}
        if not speeds:
            return Found(None, f"needs PyTorch with {needed}")
        fastest = min(speeds, key=lambda side: speeds[side])
        if needed not in speeds:
            had = f"{speeds[fastest]:.2f} against {fastest}, the fastest that was there"
            return Found(None, f"needs {needed}; {had}")
        return Found(speeds[fastest], f"against {fastest}")

    return measure


FUSED = f"{OURS} cudnn"
COMPILED = "transformers compiled"
WIDTHS = (1536, 2048, 3072)
TRANSFORMERS = ("bert-base", "pythia-410m")
FAMILIES = ("bert-base", "mamba-370m", "mamba2-370m", "pythia-410m")

BOUNDS: tuple[Bound, ...] = (
    *(
        Bound(
            f"scan {direction}, share of the floor, 64 x 512, D {width}", least,
            floor_share(Pick("scan", 512, f"channels {width}", direction)), aim,
        )
        for direction, least, aim in (("forward", 0.75, 0.85), ("backward", 0.55, 0.70))
        for width in WIDTHS
    ),
    *(
        Bound(
            f"scan forward and backward, speed against the fastest other, D {width}", 1.5,
            speed_against_rivals(
                Pick("scan", 512, f"channels {width}", "both", is_rival=True), needed="mamba_ssm"
            ),
        )
        for width in WIDTHS
    ),
    *(
        Bound(
            f"training throughput, {ours} over pythia-410m, {length} tokens", least,
            throughput_ratio(ours, "pythia-410m", length), aim,
        )
        for ours, length, least, aim in (
            ("mamba-370m", 512, 0.57, 0.65),
            ("mamba-370m", 4096, 0.9, 1.0),
            ("mamba-370m", 8192, 1.2, 1.3),
            ("mamba2-370m", 512, 0.8, 0.9),
            ("mamba2-370m", 2048, 1.0, 1.1),
        )
    ),
    *(
        Bound(
            f"training step, speed against PyTorch, {preset}, 512 tokens", 1.2,
            speed_against_rivals(Pick("train", 512, preset, is_rival=True), needed=COMPILED),
        )
        for preset in FAMILIES
    ),
    *(
        Bound(
            f"training step, model FLOPs utilisation in PaLM's count, {preset}, 512 tokens", 0.45,
            floor_share(Pick("train", 512, preset)),
        )
        for preset in TRANSFORMERS
    ),
    Bound(
        "scoring token ids, speed against transformers, bert-base, 512 tokens", 1.2,
        speed_against_rivals(Pick("score", 512, "bert-base", is_rival=True), needed=COMPILED),
    ),
)  # fmt: skip
