"""A table of results as Markdown, as LaTeX rows, and as plain values for JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from jaxrank.evaluation.latex import escape_latex
from scripts.reproduction.results import Cell, Table

NOTHING = "-"


def as_markdown(table: Table) -> str:
    """A Markdown table; under each set ours, the paper's and the difference with its interval."""
    with_paper = _has_paper(table)
    header = ["Model", *(["Size"] if with_paper else [])]
    for column in table.columns:
        header.append(column.title)
        header += ["paper", "difference (95% interval)"] if with_paper else []
    lines = [header, [":---", *["---:"] * (len(header) - 1)]]
    for row in table.rows:
        cells = [row.title, *([row.size] if with_paper else [])]
        for cell, paper in zip(row.cells, row.paper, strict=True):
            cells.append(_number(cell.value if cell else None))
            cells += [_number(paper), _difference(cell)] if with_paper else []
        lines.append(cells)
    text = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    notes = "".join(f"\n- {note}" for note in table.notes)
    return f"{text}\n{notes}\n" if notes else f"{text}\n"


def as_latex(table: Table) -> str:
    """A tabular (package booktabs) in Table 3's form; the paper's values in brackets."""
    with_paper = _has_paper(table)
    head = ["Model", *(["Size"] if with_paper else []), *(c.title for c in table.columns)]
    lines = [
        rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
        r"\toprule",
        _latex_row(head),
        r"\midrule",
    ]
    for row in table.rows:
        cells = [row.title, *([row.size] if with_paper else [])]
        for cell, paper in zip(row.cells, row.paper, strict=True):
            ours = _number(cell.value if cell else None)
            cells.append(f"{ours} ({_number(paper)})" if with_paper else ours)
        lines.append(_latex_row(cells))
    lines += [r"\bottomrule", r"\end{tabular}", *(f"% {note}" for note in table.notes)]
    return "\n".join(lines) + "\n"


def as_json(table: Table) -> dict[str, Any]:
    """The table as plain values, not rounded."""
    titles = [column.title for column in table.columns]
    return {
        "columns": [asdict(column) for column in table.columns],
        "rows": [
            {
                "model": row.title,
                "values": {
                    title: {
                        "ours": cell.value if cell else None,
                        "interval": cell.interval if cell else None,
                        "paper": paper,
                        "difference": cell.difference if cell else None,
                        "difference_interval": cell.difference_interval if cell else None,
                    }
                    for title, cell, paper in zip(titles, row.cells, row.paper, strict=True)
                },
            }
            for row in table.rows
        ],
        "notes": list(table.notes),
    }


def _has_paper(table: Table) -> bool:
    return any(value is not None for row in table.rows for value in row.paper)


def _number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.4f}"


def _difference(cell: Cell | None) -> str:
    if cell is None or cell.difference is None:
        return NOTHING
    interval = cell.difference_interval
    spelled = f" ({interval[0]:+.4f} {interval[1]:+.4f})" if interval else ""
    return f"{cell.difference:+.4f}{spelled}"


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(map(escape_latex, cells)) + r" \\"
