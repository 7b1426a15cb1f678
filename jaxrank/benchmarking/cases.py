"""What is measured: a subject, its shape, the direction and the precision. Data, for both sides.

Of networks: a preset's published sizes, but for two fields that are no matter of speed and that
would stand in the way. Where texts are longer than the positions that a model was trained with, it
gets more rows of them. And attention drops nothing, since fused attention has no dropout: the time
of a fused training step is that of one without attention dropout (all other dropout stays, but in
T5, which has one rate for all of it).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from difflib import get_close_matches
from typing import Any, Literal

import jax

from jaxrank.errors import InputError
from jaxrank.models.families import FAMILIES
from jaxrank.models.module import RerankerConfig

Subject = Literal["scan", "ssd", "attention", "layer", "train", "score", "texts"]
Direction = Literal["forward", "backward", "both", "step"]
"""`backward` is that pass alone, `both` a value and its gradients, `step` a whole training step."""
DType = Literal["float32", "bfloat16"]

SUBJECTS: Mapping[str, str] = {
    "scan": "the selective scan of Mamba",
    "ssd": "the recurrence of Mamba-2",
    "attention": "softmax attention",
    "layer": "one layer of a model",
    "train": "a whole training step, optimizer included",
    "score": "scores of pairs of one length",
}
"""Name -> what it is."""

_SMALL_VOCABULARY = 64

RANDOM_SETS = 3
"""Sets of random inputs that calls take in turn, so that none finds its inputs in a cache."""


@dataclass(frozen=True)
class ScanShape:
    """Of a selective scan."""

    batch: int
    length: int
    channels: int
    states: int = 16

    def __str__(self) -> str:
        return f"{self.batch} x {self.length}, D {self.channels}, N {self.states}"


@dataclass(frozen=True)
class SsdShape:
    """Of Mamba-2's recurrence."""

    batch: int
    length: int
    heads: int
    head_size: int = 64
    groups: int = 1
    states: int = 128

    def __str__(self) -> str:
        size = f"H {self.heads}, P {self.head_size}, N {self.states}"
        return f"{self.batch} x {self.length}, {size}"


@dataclass(frozen=True)
class AttentionShape:
    """Of attention of texts to themselves, all their tokens real."""

    batch: int
    length: int
    heads: int
    head_size: int = 64
    is_causal: bool = False

    def __str__(self) -> str:
        kind = "causal, " if self.is_causal else ""
        return f"{self.batch} x {self.length}, {kind}{self.heads} heads of {self.head_size}"


@dataclass(frozen=True)
class ModelShape:
    """Of a layer, a training step or a forward pass of a preset, all tokens real."""

    preset: str
    batch: int
    """Pairs; in training groups times candidates."""
    length: int
    candidates: int = 1
    """Of a group in training; it divides `batch`."""
    lora_rank: int | None = None

    def __str__(self) -> str:
        pairs = str(self.batch)
        if self.candidates > 1:
            pairs = f"{self.batch // self.candidates} x {self.candidates}"
        lora = "" if self.lora_rank is None else f", LoRA {self.lora_rank}"
        return f"{self.preset}, {pairs} x {self.length}{lora}"


@dataclass(frozen=True)
class TextsShape:
    """Of pairs of real texts of natural lengths, scored by a model folder."""

    model: str
    pairs: tuple[tuple[str, str], ...]
    length: int = 0
    """Natural."""

    @property
    def batch(self) -> int:
        """How many pairs."""
        return len(self.pairs)

    def __str__(self) -> str:
        return f"{self.model}, {self.batch} pairs of natural lengths"


Shape = ScanShape | SsdShape | AttentionShape | ModelShape | TextsShape


@dataclass(frozen=True)
class Case:
    """One thing that is measured."""

    subject: Subject
    shape: Shape
    direction: Direction
    dtype: DType

    def __str__(self) -> str:
        return f"{self.subject} {self.direction}, {self.shape}, {self.dtype}"

    @property
    def name(self) -> str:
        """What distinguishes it from cases of other sizes, but for the length: a line of a plot."""
        if isinstance(self.shape, ModelShape):
            return self.shape.preset
        if isinstance(self.shape, TextsShape):
            return self.shape.model
        skipped = ("batch", "length", "is_causal")
        sizes = {n: v for n, v in asdict(self.shape).items() if n not in skipped}
        return " ".join(f"{name} {value}" for name, value in sizes.items())

    @property
    def tokens(self) -> int:
        """Of all texts."""
        return self.shape.batch * self.shape.length

    @property
    def pairs(self) -> int | None:
        """That are trained with or scored; None where nothing is."""
        return self.shape.batch if self.subject in ("train", "score", "texts") else None

    @property
    def operation(self) -> str:
        """Name in `Implementations` of what mixes the tokens."""
        named = {"scan": "selective_scan", "ssd": "ssd", "attention": "attention"}
        if self.subject in named:
            return named[self.subject]
        assert isinstance(self.shape, ModelShape)
        family, _ = find_preset(self.shape.preset)
        return {"mamba": "selective_scan", "mamba2": "ssd"}.get(family, "attention")

    @property
    def random_keys(self) -> list[jax.Array]:
        """A random key for each set of inputs, the same whoever asks."""
        return [jax.random.key(index) for index in range(RANDOM_SETS)]


def find_preset(name: str) -> tuple[str, Any]:
    """Family and backbone configuration of a published size.

    Raises:
        InputError: there is none of that name; names the nearest.
    """
    for family in FAMILIES.values():
        if name in family.presets:
            return family.name, family.presets[name]
    known = [preset for family in FAMILIES.values() for preset in family.presets]
    nearest = get_close_matches(name, known, n=1)
    mend = f"did you mean {nearest[0]}?" if nearest else f"known are {', '.join(known)}"
    raise InputError(f"--presets: {name!r} is unknown; {mend}")


def reranker_config(case: Case) -> RerankerConfig:
    """The network of a case: see the head of this file for what differs from the preset.

    Of a layer: a network of that layer alone, with a small token table.
    """
    shape = case.shape
    assert isinstance(shape, ModelShape)
    family, backbone = find_preset(shape.preset)
    changes: dict[str, Any] = {}
    longest = backbone.max_length
    if longest is not None and longest < shape.length:
        missing = shape.length - longest
        changes["max_position_embeddings"] = backbone.max_position_embeddings + missing
    names = {field.name for field in fields(backbone)}
    rate = "attention_dropout" if "attention_dropout" in names else "dropout"
    if rate in names:
        changes[rate] = 0.0
    if case.subject == "layer":
        changes |= {"num_layers": 1, "vocab_size": _SMALL_VOCABULARY}
    return RerankerConfig(family, replace(backbone, **changes))
