r"""Builds a table from run folders of the reproduce scripts: RankMamba's Table 3, ours beside it.

    .venv/bin/python scripts/results_table.py runs/rankmamba/lucene/paper \
        [--output table.md] [--latex table.tex] [--json table.json] [--sets dev dl19 dl20]

A run folder is named for its model and has evaluation/SET.json; several may be given, or a folder
that holds them. `--table` passage, document, longp, beir or own gives other sets' measures, to
which we have no published figures.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

sys.path.insert(
    0, str(Path(__file__).resolve().parents[1])
)  # the sources beside this script, wherever it is called from

from jaxrank.command_line import run
from jaxrank.options import parse


@dataclass(frozen=True)
class TableOptions:
    """Make a table of what models reached, beside what the paper printed."""

    folders: tuple[Path, ...]
    """Run folders, each named for its model, or a folder that holds them."""
    table: Literal["table3", "passage", "document", "longp", "beir", "own"] = "table3"
    """Which sets and measures: RankMamba's Table 3, a setting of the other paper, or your own."""
    sets: tuple[str, ...] | None = None
    """Sets in the order of the columns. Null: dev dl19 dl20, or the 13 of BEIR."""
    output: Path | None = None
    """Markdown file to write."""
    latex: Path | None = None
    """LaTeX file to write."""
    json: Path | None = None
    """JSON file to write, with values that are not rounded."""


def main(argv: Sequence[str] | None = None) -> None:
    """Read the run folders, print the table, write what was asked for."""
    options = parse(TableOptions, "scripts.results_table", argv, first="folders")
    from jaxrank.files import atomic_open, check_target
    from scripts.reproduction.papers import BEIR_SETS, TABLE_3_SETS
    from scripts.reproduction.rendering import as_json, as_latex, as_markdown
    from scripts.reproduction.results import read_table

    outputs = (options.output, options.latex, options.json)
    for target in filter(None, outputs):
        check_target(target)
    sets = options.sets or (BEIR_SETS if options.table == "beir" else TABLE_3_SETS)
    table = read_table(options.folders, options.table, sets)
    texts = (
        as_markdown(table),
        as_latex(table),
        json.dumps(as_json(table), indent=2) + "\n",
    )
    print(texts[0], end="")
    for path, text in zip(outputs, texts, strict=True):
        if path is not None:
            with atomic_open(path) as file:
                file.write(text)
            print(f"wrote {path}")


if __name__ == "__main__":
    run(main)
