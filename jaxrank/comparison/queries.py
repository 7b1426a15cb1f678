"""Wins and losses query by query, the largest differences first."""

from collections.abc import Mapping

from jaxrank.comparison.markup import Markup, element, join
from jaxrank.comparison.paired import Pairing, Pairings
from jaxrank.comparison.tables import Cell, columns, number, table
from jaxrank.evaluation.significance import SAME

_MOST_ROWS = 100


def queries_section(pairings: Pairings, texts: Mapping[str, str]) -> Markup:
    """A part for each run and measure, the first one open.

    Args:
        texts: query id -> text; a query that is not there is shown by its id alone.
    """
    parts: list[Markup] = []
    for of_measures in pairings.values():
        for pairing in of_measures.values():
            if isinstance(pairing, Pairing):
                parts.append(_part(pairing, texts, is_open=not parts))
    return join(*parts)


def _part(pairing: Pairing, texts: Mapping[str, str], *, is_open: bool) -> Markup:
    test = pairing.test
    title = f"{pairing.measure}: {pairing.label} against {pairing.base_label}"
    differences = pairing.differences()
    wins = [query_id for query_id, value in differences.items() if value > SAME]
    losses = [query_id for query_id, value in differences.items() if value < -SAME]
    shown = {*wins[:_MOST_ROWS], *losses[:_MOST_ROWS]}
    rows = [
        [
            Cell(query_id, "id"),
            *([Cell(texts.get(query_id, ""), "text")] if texts else []),
            number(pairing.base[query_id]),
            number(pairing.values[query_id]),
            _difference(value, largest=max(map(abs, differences.values()))),
        ]
        for query_id, value in differences.items()
        if query_id in shown
    ]
    names = (pairing.base_label, pairing.label, "difference")
    header = [*columns("query", *(["text"] if texts else [])), *columns(*names, kind="number")]
    left_out = len(wins) + len(losses) - len(rows)
    note = f"The {_MOST_ROWS} largest wins and losses; {left_out} more queries differ."
    return element(
        "details",
        element("summary", element("b", title), _bar(test.wins, test.ties, test.losses)),
        table(header, rows, kind="sortable") if rows else element("p", "No query differs."),
        element("p", note, class_="note") if left_out else Markup(""),
        open=is_open,
    )


def _bar(wins: int, ties: int, losses: int) -> Markup:
    """Wins, ties and losses as a bar in three parts, with their counts."""
    counts = {"win": wins, "tie": ties, "loss": losses}
    words = {"win": "better", "tie": "equal", "loss": "worse"}
    parts = [
        element("span", class_=kind, style=f"flex:{count}")
        for kind, count in counts.items()
        if count
    ]
    text = ", ".join(f"{count} {words[kind]}" for kind, count in counts.items())
    return join(element("span", text, class_="counts"), element("span", *parts, class_="bar"))


def _difference(value: float, *, largest: float) -> Cell:
    cell = number(value, signed=True)
    kind = "win" if value > 0 else "loss"
    size = element("i", class_=kind, style=f"width:{100 * abs(value) / largest:.0f}%")
    return Cell(join(element("span", size, class_="size"), cell.content), "number", value)
