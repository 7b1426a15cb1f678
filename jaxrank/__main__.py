"""python -m jaxrank: which commands there are."""

import ast
import difflib
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from jaxrank.command_line import run
from jaxrank.errors import InputError

COMMANDS = (
    "import_collection", "search", "mine", "train", "encode_documents", "rerank", "fuse",
    "evaluate", "compare", "bench",
)  # fmt: skip
"""Each a module, in the order in which they are used."""


def main(argv: Sequence[str] | None = None) -> None:
    """Print the commands with what they do."""
    arguments = sys.argv[1:] if argv is None else argv
    for name in arguments:
        if name not in ("-h", "--help"):
            raise InputError(_advice(name))
    modules = [*(f"jaxrank.{name}" for name in COMMANDS), "ckpt_convert.__main__"]
    print(*map(_first_line, modules), "Each shows its options with --help.", sep="\n")


def _advice(name: str) -> str:
    if name in COMMANDS:
        return f"{name}: write python -m jaxrank.{name}"
    nearest = difflib.get_close_matches(name, COMMANDS, n=1, cutoff=0.5)
    mend = f"did you mean python -m jaxrank.{nearest[0]}?" if nearest else "see python -m jaxrank"
    return f"{name}: unknown command; {mend}"


def _first_line(module: str) -> str:
    """What a module says of itself, without importing it."""
    spec = find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    docstring = ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8")))
    assert docstring is not None
    return docstring.splitlines()[0]


if __name__ == "__main__":
    run(main)
