"""The lines of estimates at the head of the configs of both papers.

python -m scripts.reproduction.config_headers            # which files are not up to date
python -m scripts.reproduction.config_headers --write    # bring them up to date
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from jaxrank.command_line import run
from jaxrank.errors import InputError
from jaxrank.files import atomic_open
from scripts.reproduction.cost import DEVICE, DEVICE_GIB, estimate, read_options
from scripts.reproduction.recipe_layers import CONFIGS, RECIPES, find_models, recipe_layers

INTRODUCTION = (
    "# Estimated by scripts/reproduction/cost.py, not measured, "
    f"for one {DEVICE} of {DEVICE_GIB} GB:"
)
EXAMPLES = {"rankmamba": "mamba-370m", "ssm-rerankers": "mamba2-370m"}
"""Whose estimate a recipe's own file gives."""


def find_files() -> list[Path]:
    """The files that have estimates at their head."""
    names = [(paper, name) for paper in RECIPES for name in (*RECIPES[paper], *find_models(paper))]
    return [CONFIGS / paper / f"{name}.yaml" for paper, name in names]


def estimate_lines(path: Path) -> Iterator[str]:
    """The lines of one file: a recipe's are of one model, a model's of all recipes."""
    paper, name = path.parent.name, path.stem
    yield INTRODUCTION
    if name in RECIPES[paper]:
        model = EXAMPLES[paper]
        yield f"#   {model}: {_estimate(paper, name, model)}"
        return
    for recipe in RECIPES[paper]:
        yield f"#   {recipe}: {_estimate(paper, recipe, name)}"


def read_lines(path: Path) -> list[str]:
    """The lines that are there; none where there is no introduction."""
    return [line for index, line in enumerate(_lines(path)) if index in _places(path)]


def write_lines(path: Path) -> None:
    """Put up-to-date lines where the old ones are, or in front of the first key."""
    places, lines = _places(path), _lines(path)
    kept = [line for index, line in enumerate(lines) if index not in places]
    first_key = next(index for index, line in enumerate(kept) if not line.startswith("#"))
    start = places.start if places else first_key
    with atomic_open(path) as file:
        file.write("\n".join([*kept[:start], *estimate_lines(path), *kept[start:]]) + "\n")


def _estimate(paper: str, recipe: str, model: str) -> str:
    layers = [f"--config={layer}" for layer in recipe_layers(paper, recipe, model)]
    try:
        return str(estimate(read_options(layers)))
    except InputError as error:
        return f"not possible ({error})"


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def _places(path: Path) -> range:
    """Where the estimates stand: the introduction and the indented lines under it."""
    lines = _lines(path)
    if INTRODUCTION not in lines:
        return range(0)
    start = end = lines.index(INTRODUCTION)
    while lines[end + 1].startswith("#   ") and ": " in lines[end + 1]:
        end += 1
    return range(start, end + 1)


def main(argv: Sequence[str] | None = None) -> None:
    """Name the files whose estimates are out of date, or rewrite them."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments not in ([], ["--write"]):
        raise InputError(f"{' '.join(arguments)}: unknown; there is --write alone")
    for path in find_files():
        if read_lines(path) == list(estimate_lines(path)):
            continue
        if arguments:
            write_lines(path)
        print(f"{path}: {'written' if arguments else 'not up to date'}", flush=True)


if __name__ == "__main__":
    run(main)
