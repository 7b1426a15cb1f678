"""The options of `python -m jaxrank.bench`, read by argparse alone, which every GPU image has."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn, get_args

import jax

from jaxrank.benchmarking.cases import SUBJECTS, Direction, DType
from jaxrank.benchmarking.sizes import SIZES, Choice
from jaxrank.benchmarking.timing import Rounds
from jaxrank.errors import InputError

_PAIRS = 512
_OF_SIZES = {
    "sizes", "presets", "lengths", "tokens", "channels", "candidates", "lora", "directions",
    "implementation",
}  # fmt: skip
"""Options that say what is measured of a subject."""


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, as every command's."""

    def error(self, message: str) -> NoReturn:
        raise InputError(message)


def parse_options(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line.

    Raises:
        InputError: an unknown option or word, or options that do not go together.
    """
    parser = _make_parser()
    options = parser.parse_args(argv)
    given = {name for name in vars(options) if vars(options)[name] != parser.get_default(name)}
    if options.read and (options.subjects or options.model):
        raise InputError("--from: only reads what was measured; no subject and no --model with it")
    if options.model:
        _check_model(options, given)
    else:
        _refuse(given & {"collection", "pairs"}, "does nothing without --model")
        if options.subjects and "train" not in options.subjects:
            _refuse(given & {"lora"}, "does nothing without train among the subjects")
    if not options.against:
        _refuse(given & {"rivals"}, "does nothing without --against MODULE")
    if options.pairs is None:
        options.pairs = _PAIRS
    return options


def _check_model(options: argparse.Namespace, given: set[str]) -> None:
    if options.subjects:
        raise InputError(
            f"--model: got the subject {options.subjects[0]!r} beside it; a model folder is "
            "measured alone, without one"
        )
    if not options.collection:
        raise InputError("--model: needs --collection DIR, whose queries and documents it scores")
    _refuse(given & _OF_SIZES, "does nothing with --model, which is measured as it is")


def _refuse(names: set[str], reason: str) -> None:
    if names:
        raise InputError(f"--{min(names)}: {reason}")


def choice_of(options: argparse.Namespace) -> Choice:
    """What differs from the named sizes."""
    precise: DType = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    return Choice(
        dtype=options.dtype or precise,
        directions=tuple(options.directions),
        lengths=tuple(options.lengths),
        tokens=options.tokens,
        channels=tuple(options.channels),
        presets=tuple(options.presets),
        candidates=options.candidates,
        lora_rank=options.lora,
    )


def rounds_of(options: argparse.Namespace) -> Rounds:
    """How often is measured."""
    for name in ("warmup", "repeats"):
        if getattr(options, name) < 1:
            raise InputError(f"--{name}: got {getattr(options, name)}; at least 1 is needed")
    return Rounds(options.warmup, options.repeats, options.least_s)


def _make_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m jaxrank.bench",
        description="Time and memory of operations, layers, training steps and scoring.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "subjects",
        nargs="*",
        metavar="SUBJECT",
        help="; ".join(f"{name}: {what}" for name, what in SUBJECTS.items()) + ". All by default",
    )
    add = parser.add_argument
    add(
        "--sizes",
        help=f"{', '.join(SIZES)}: shapes unless others are named; small on CPU, else full",
    )
    add("--presets", nargs="+", default=[], help="published sizes, for layer, train and score")
    add("--lengths", nargs="+", type=int, default=[], help="tokens of a text")
    add("--tokens", type=int, help="of all texts of a case, whatever their length")
    add("--channels", nargs="+", type=int, default=[], help="of the scan")
    add("--candidates", type=int, default=8, help="of a group in training")
    add("--lora", type=int, metavar="RANK", help="train adapters of that rank alone")
    add("--dtype", choices=get_args(DType), help="float32 on CPU, else bfloat16")
    add(
        "--directions",
        nargs="+",
        default=[],
        choices=[name for name in get_args(Direction) if name != "step"],
        help="of operations and layers",
    )
    add(
        "--implementation",
        nargs="+",
        default=["auto"],
        metavar="NAME",
        help="of the operation that mixes tokens, a side each; e.g. mosaic associative",
    )
    add("--against", metavar="MODULE", help="rivals, e.g. scripts.pytorch_rivals")
    add("--rivals", nargs="+", default=[], metavar="NAME", help="only those")
    add("--model", type=Path, help="a model folder, which scores pairs of --collection instead")
    add("--collection", type=Path, help="where --model finds texts")
    add("--pairs", type=int, help=f"how many --model scores; default {_PAIRS}")
    add("--warmup", type=int, default=Rounds.warmup, help="calls before the first measurement")
    add("--repeats", type=int, default=Rounds.repeats, help="measurements of each side, in turn")
    add(
        "--least-s",
        type=float,
        default=Rounds.least_s,
        help="a measurement is as many calls as take so long, queued and waited for together",
    )
    add("--json", type=Path, metavar="FILE", help="write the rows, machine, versions and commit")
    add("--plot", type=Path, metavar="FILE", help="draw them; needs matplotlib")
    add(
        "--from",
        dest="read",
        nargs="+",
        type=Path,
        default=[],
        metavar="JSON",
        help="measure nothing, but put earlier --json files together",
    )
    return parser
