"""The parity certificate itself: what was compared, and how far apart the two sides are."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from jaxrank.text.tokenize import TruncationCounts

FILE_NAME = "parity.json"


@dataclass(frozen=True)
class Difference:
    """How far apart the two sides are at one place."""

    where: str
    max_absolute: float
    max_relative: float


@dataclass(frozen=True)
class Certificate:
    """All differences between a checkpoint in PyTorch and in JAX.

    Attributes:
        dtype: what both sides compute in.
        stored_dtypes: of the tensors in the files.
        weights: file name -> SHA-256.
        texts: where the pairs are from.
        kendall_tau: between the two orders of the pairs by score; None where all scores are equal.
    """

    source: str
    family: str
    head: str
    dtype: str
    stored_dtypes: tuple[str, ...]
    weights: dict[str, str]
    texts: str
    pairs: int
    tokens: int
    truncation: TruncationCounts
    layers: tuple[Difference, ...]
    scores: Difference
    kendall_tau: float | None
    tolerance: float
    versions: dict[str, str]

    @property
    def worst(self) -> float:
        """The largest relative difference of all; NaN if one of them is."""
        return float(np.max([row.max_relative for row in (*self.layers, self.scores)]))

    @property
    def has_passed(self) -> bool:
        """Whether every relative difference is within the tolerance."""
        return self.worst <= self.tolerance

    def as_dict(self) -> dict[str, Any]:
        """For JSON; the norms are named."""
        norms = (
            "relative: max over tokens of |ours - theirs|_2 / |theirs|_2; scores: max|d| / max|s|"
        )
        verdict = {"worst_relative": self.worst, "has_passed": self.has_passed}
        return _without_nan({**asdict(self), **verdict, "norms": norms})

    def table(self) -> str:
        """For people: one line a layer."""
        rows = (*self.layers, self.scores)
        width = max(12, *(len(row.where) for row in rows))
        lines = [f"{'where':<{width}} {'max absolute':>13} {'max relative':>13}"]
        lines += [
            f"{row.where:<{width}} {row.max_absolute:>13.2e} {row.max_relative:>13.2e}"
            for row in rows
        ]
        tau = "undefined" if self.kendall_tau is None else f"{self.kendall_tau:.6f}"
        return "\n".join([*lines, f"Kendall's tau of the two rankings: {tau}"])


def _without_nan(value: Any) -> Any:
    """JSON has no NaN and no infinity."""
    if isinstance(value, dict):
        return {name: _without_nan(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
