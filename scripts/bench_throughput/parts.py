"""The parts of the throughput study: one model at one length, trained or scored with."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

TOKENS = 64 * 512
"""Of a batch, whatever the length of its texts: so every part does about the same work."""
LENGTHS = (512, 1024, 2048, 4096, 8192)
LORA_RANK = 32  # RankMamba's paper, for the models beyond 700M

GROUPS: dict[str, tuple[str, ...]] = {
    "130m": (
        "mamba-130m", "mamba2-130m", "bert-base", "roberta-base", "pythia-160m", "opt-125m",
        "t5-base", "modernbert-base",
    ),
    "370m": ("mamba-370m", "mamba2-370m", "bert-large", "pythia-410m", "opt-350m"),
    "700m": ("mamba-790m", "mamba2-780m", "pythia-1b", "opt-1.3b"),
    "toy": ("mamba-tiny", "bert-tiny"),
}  # fmt: skip
"""Name -> presets. Those of 700m train low-rank adapters alone, as RankMamba did."""


@dataclass(frozen=True)
class Part:
    """One process of the study."""

    group: str
    preset: str
    length: int
    subject: str
    """`train` or `score`."""

    @property
    def file(self) -> str:
        """Where its rows go, in the folder of the study."""
        return f"{self.subject}-{self.preset}-{self.length}.json"

    def arguments(self, folder: Path, *, against: str | None, more: Sequence[str]) -> list[str]:
        """Of `python -m jaxrank.bench`."""
        tokens = 128 if self.group == "toy" else TOKENS
        chosen = [self.subject, "--presets", self.preset, "--lengths", str(self.length)]
        chosen += ["--tokens", str(tokens), "--json", str(folder / self.file), *more]
        if self.group == "700m" and self.subject == "train":
            chosen += ["--lora", str(LORA_RANK)]
        if against is not None:
            chosen += ["--against", against]
        return chosen


def plan_parts(groups: Sequence[str], lengths: Sequence[int]) -> list[Part]:
    """All parts, short texts first, so that a study that is ended early has every model."""
    return [
        Part(group, preset, length, subject)
        for length in lengths
        for group in groups
        for preset in GROUPS[group]
        for subject in ("train", "score")
    ]
