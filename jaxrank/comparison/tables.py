"""Tables of a page, with numbers to the right and, where asked for, columns to sort by."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxrank.comparison.markup import Markup, element

NOTHING = "\N{EN DASH}"


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        content: text, or markup.
        kind: CSS classes; "number" is set to the right.
        value: what sorting goes by; None for the text.
    """

    content: str
    kind: str | None = None
    value: float | None = None


def number(value: float | None, digits: int = 4, *, signed: bool = False) -> Cell:
    """A number with its digits after the point."""
    if value is None:
        return Cell(NOTHING, "number")
    text = f"{value:+.{digits}f}" if signed else f"{value:,.{digits}f}"
    return Cell(text.replace("-", "\N{MINUS SIGN}"), "number", value)


def columns(*names: str, kind: str | None = None) -> list[Cell]:
    """Headers of columns of one kind."""
    return [Cell(name, kind) for name in names]


def table(
    header: Sequence[Cell], rows: Sequence[Sequence[Cell]], *, kind: str | None = None
) -> Markup:
    """A table whose rows begin with their name, in a frame that scrolls where it is too wide."""
    head = element("tr", *(_cell(cell, "th", scope="col") for cell in header))
    body = [
        element("tr", _cell(row[0], "th", scope="row"), *(_cell(cell, "td") for cell in row[1:]))
        for row in rows
    ]
    whole = element("table", element("thead", head), element("tbody", *body), class_=kind)
    return element("div", whole, class_="wide", tabindex=0)


def _cell(cell: Cell, name: str, **attributes: str) -> Markup:
    value = None if cell.value is None else repr(cell.value)
    return element(name, cell.content, class_=cell.kind, data_value=value, **attributes)
