"""Named sizes: what is measured unless shapes are asked for, and how asking changes it.

`full` are the sizes of the published models, for a GPU: 32,768 tokens at a time, 64 texts of 512
tokens or fewer longer ones. `small` takes a CPU about a minute; `toy` is for tests.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import get_args

from jaxrank.benchmarking.cases import (
    SUBJECTS,
    AttentionShape,
    Case,
    Direction,
    DType,
    ModelShape,
    ScanShape,
    SsdShape,
    Subject,
    find_preset,
)
from jaxrank.errors import InputError


@dataclass(frozen=True)
class Sizes:
    """What is measured of each subject."""

    tokens: int
    """Of all texts of a case together, whatever their length."""
    length: int
    longer: tuple[int, ...]
    """Other lengths of the operations, at their second width, or the only one."""
    scan_channels: tuple[int, ...]
    ssd_heads: tuple[int, ...]
    attention_heads: tuple[int, ...]
    """For each, bidirectional and causal."""
    layers: tuple[str, ...]
    trained: tuple[str, ...]
    scored: tuple[str, ...]


SIZES: dict[str, Sizes] = {
    "toy": Sizes(
        tokens=64,
        length=16,
        longer=(32,),
        scan_channels=(32,),
        ssd_heads=(2,),
        attention_heads=(2,),
        layers=("mamba-tiny", "bert-tiny"),
        trained=("bert-tiny",),
        scored=("bert-tiny",),
    ),
    "small": Sizes(
        tokens=256,
        length=64,
        longer=(256,),
        scan_channels=(256,),
        ssd_heads=(8,),
        attention_heads=(8,),
        layers=("mamba-130m", "mamba2-130m", "pythia-160m", "bert-base"),
        trained=("minilm-l6",),
        scored=("minilm-l6",),
    ),
    "full": Sizes(
        tokens=64 * 512,
        length=512,
        longer=(1024, 2048, 4096, 8192),
        scan_channels=(1536, 2048, 3072),
        ssd_heads=(24, 32, 48),
        attention_heads=(12, 16),
        layers=("mamba-370m", "mamba2-370m", "pythia-410m", "bert-base"),
        trained=("mamba-130m", "mamba2-130m", "pythia-160m", "bert-base"),
        scored=("minilm-l6", "bert-base", "mamba-130m"),
    ),
}
"""`full`: widths of the 130m, 370m and 790m sizes; heads of bert-base and of pythia-410m."""


@dataclass(frozen=True)
class Choice:
    """What is asked for in place of the named sizes; None or nothing: as those say."""

    dtype: DType = "float32"
    directions: tuple[Direction, ...] = ()
    lengths: tuple[int, ...] = ()
    tokens: int | None = None
    channels: tuple[int, ...] = ()
    """Of the scan."""
    presets: tuple[str, ...] = ()
    candidates: int = 8
    """Of a group in training."""
    lora_rank: int | None = None


_OPERATIONS = ("scan", "ssd", "attention")
_DIRECTIONS: dict[str, tuple[Direction, ...]] = {
    "operation": ("forward", "backward", "both"),
    "layer": ("forward", "both"),
    "train": ("step",),
    "score": ("forward",),
}


def plan_cases(subjects: Sequence[str], name: str, choice: Choice) -> list[Case]:
    """The cases of those subjects, operations first.

    Raises:
        InputError: an unknown subject, size or preset; a number that cannot be one.
    """
    for subject in subjects:
        if subject not in SUBJECTS:
            raise InputError(f"subject: {subject!r} is unknown; known are {', '.join(SUBJECTS)}")
    if name not in SIZES:
        raise InputError(f"--sizes: {name!r} is unknown; known are {', '.join(SIZES)}")
    for preset in choice.presets:
        find_preset(preset)
    numbers = {
        "--lengths": choice.lengths,
        "--channels": choice.channels,
        "--tokens": (choice.tokens,),
        "--candidates": (choice.candidates,),
        "--lora": (choice.lora_rank,),
    }
    for option, values in numbers.items():
        for value in values:
            if value is not None and value < 1:
                raise InputError(f"{option}: got {value}; at least 1 is needed")
    return [
        case
        for subject in get_args(Subject)
        if subject in subjects
        for case in _cases(subject, SIZES[name], choice)
    ]


def train_shape(
    preset: str, length: int, *, tokens: int, candidates: int, lora_rank: int | None = None
) -> ModelShape:
    """Of as many whole groups as `tokens` allow, and of one at the least.

    >>> str(train_shape("bert-base", 512, tokens=32768, candidates=8))
    'bert-base, 8 x 8 x 512'
    >>> str(train_shape("mamba-370m", 8192, tokens=32768, candidates=8))
    'mamba-370m, 1 x 4 x 8192'
    """
    pairs = max(1, tokens // length)
    candidates = min(candidates, pairs)
    return ModelShape(preset, pairs // candidates * candidates, length, candidates, lora_rank)


def _cases(subject: Subject, sizes: Sizes, choice: Choice) -> Iterator[Case]:
    kind = "operation" if subject in _OPERATIONS else subject
    directions = choice.directions if kind in ("operation", "layer") else ()
    for shape in _shapes(subject, sizes, choice):
        for direction in directions or _DIRECTIONS[kind]:
            yield Case(subject, shape, direction, choice.dtype)


def _shapes(
    subject: Subject, sizes: Sizes, choice: Choice
) -> Iterator[ScanShape | SsdShape | AttentionShape | ModelShape]:
    tokens = choice.tokens or sizes.tokens
    lengths = choice.lengths or (sizes.length,)
    if subject in _OPERATIONS:
        if subject == "scan":
            widths = choice.channels or sizes.scan_channels
        else:
            widths = sizes.ssd_heads if subject == "ssd" else sizes.attention_heads
        pairs = [(width, length) for length in lengths for width in widths]
        if not choice.lengths:
            middle = widths[min(1, len(widths) - 1)]
            pairs += [(middle, length) for length in sizes.longer]
        for width, length in pairs:
            batch = max(1, tokens // length)
            if subject == "scan":
                yield ScanShape(batch, length, width)
            elif subject == "ssd":
                yield SsdShape(batch, length, width)
            else:
                for is_causal in (False, True):
                    yield AttentionShape(batch, length, width, is_causal=is_causal)
        return
    presets = {"layer": sizes.layers, "train": sizes.trained, "score": sizes.scored}[subject]
    for preset in choice.presets or presets:
        for length in lengths:
            if subject == "train":
                yield train_shape(
                    preset,
                    length,
                    tokens=tokens,
                    candidates=choice.candidates,
                    lora_rank=choice.lora_rank,
                )
            else:
                yield ModelShape(preset, max(1, tokens // length), length)
