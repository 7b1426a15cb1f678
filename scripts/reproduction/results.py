"""Results of run folders: means with their intervals, beside what the paper printed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxrank.errors import InputError
from jaxrank.evaluation.tracks import TRACKS
from scripts.reproduction.evaluations import Evaluations, find_run_folders, read_evaluations
from scripts.reproduction.papers import BM25, TABLE_3, TRACKS_OF_SETS, PublishedRow

_LAYOUTS = {
    "table3": "msmarco-document",
    "document": "msmarco-document",
    "longp": "msmarco-document",
    "passage": "msmarco-passage",
}
_SET_TITLES = {"dev": "Dev", "dl19": "DL19", "dl20": "DL20"}
MEAN = "mean"


@dataclass(frozen=True)
class Column:
    """A set and its measure."""

    set_name: str
    measure: str

    @property
    def title(self) -> str:
        """As the papers head it: MRR is what ir-measures calls RR."""
        measure = self.measure.replace("RR@", "MRR@")
        return f"{_SET_TITLES.get(self.set_name, self.set_name)} {measure}"


@dataclass(frozen=True)
class Cell:
    """A value of ours, and the paper's if it has one.

    Attributes:
        interval: 95% interval of our mean over the queries.
        paper: the paper's value, where it can be compared with.
        shown_paper: the paper's value as it is printed, in doubt or not.
    """

    value: float
    interval: tuple[float, float] | None = None
    paper: float | None = None
    shown_paper: float | None = None

    @property
    def difference(self) -> float | None:
        """Ours less the paper's."""
        return None if self.paper is None else self.value - self.paper

    @property
    def difference_interval(self) -> tuple[float, float] | None:
        """Our interval less the paper's value, as if that had no noise of its own."""
        if self.paper is None or self.interval is None:
            return None
        return self.interval[0] - self.paper, self.interval[1] - self.paper


@dataclass(frozen=True)
class Row:
    """A model's cells by column; a set that was not measured has none, but perhaps the paper's."""

    title: str
    size: str
    cells: tuple[Cell | None, ...]
    paper: tuple[float | None, ...]


@dataclass(frozen=True)
class Table:
    """Rows of models under the first stage's."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]


def make_columns(table: str, sets: Sequence[str]) -> tuple[Column, ...]:
    """The columns of a table; that of BEIR ends with the mean of its sets."""
    if table in _LAYOUTS:
        tracks = TRACKS_OF_SETS[_LAYOUTS[table]]
        return tuple(Column(name, TRACKS[tracks[name]].measures[0]) for name in sets)
    measure = TRACKS["beir"].measures[0]
    columns = tuple(Column(name, measure) for name in sets)
    return (*columns, Column(MEAN, measure)) if table == "beir" else columns


def read_table(folders: Sequence[Path], table: str, sets: Sequence[str]) -> Table:
    """The table of these run folders, each named for its model, or of all in a folder of them.

    Raises:
        InputError: no folder, a folder without any evaluation, an evaluation that lacks the
            measure, or two first stages for one set.
    """
    if not folders:
        raise InputError("run folders: none given")
    columns = make_columns(table, sets)
    published = TABLE_3 if table == "table3" else {}
    found, left_out = find_run_folders(folders, sets)
    evaluations = {folder: read_evaluations(folder, sets) for folder in found}
    notes: list[str] = []
    first_stage = _first_stage_cells(evaluations, columns)
    rows = [_row("first stage", BM25 if published else None, first_stage, columns, notes)]
    order = list(published)
    for folder in sorted(found, key=lambda path: _position(path.name, order)):
        cells = _cells(evaluations[folder], columns, is_first_stage=False)
        rows.append(_row(folder.name, published.get(folder.name), cells, columns, notes))
    if left_out:
        names = " ".join(sorted(folder.name for folder in left_out))
        notes.append(f"left out, with no evaluation of {' '.join(sets)}: {names}")
    if any(cell and cell.difference_interval for row in rows for cell in row.cells):
        notes.append(
            "differences are ours less the paper's, with the 95% interval of our mean over the "
            "queries; the paper's own noise is unknown and not in it"
        )
    return Table(columns, tuple(rows), tuple(notes))


def _cells(
    evaluations: Evaluations, columns: Sequence[Column], *, is_first_stage: bool
) -> list[Cell | None]:
    sets = [column for column in columns if column.set_name != MEAN]
    cells = [_cell(evaluations, column, is_first_stage=is_first_stage) for column in sets]
    if len(sets) < len(columns):
        cells.append(_mean_cell(evaluations, sets, is_first_stage=is_first_stage))
    return cells


def _first_stage_cells(
    evaluations: Mapping[Path, Evaluations], columns: Sequence[Column]
) -> list[Cell | None]:
    """The cells of the candidates, which must be the same for all models."""
    found = {
        folder: _cells(of_sets, columns, is_first_stage=True)
        for folder, of_sets in evaluations.items()
    }
    shared: list[Cell | None] = []
    for index, column in enumerate(columns):
        of_folders = {folder: cells[index] for folder, cells in found.items() if cells[index]}
        values = {cell.value: folder for folder, cell in of_folders.items() if cell}
        if len(values) > 1:
            spelled = ", ".join(f"{value:.4f} in {folder}" for value, folder in values.items())
            raise InputError(
                f"{column.title} of the first stage differs: {spelled}; give run folders that "
                "reranked the same candidates"
            )
        shared.append(next(iter(of_folders.values()), None))
    return shared


def _cell(evaluations: Evaluations, column: Column, *, is_first_stage: bool) -> Cell | None:
    evaluation = evaluations.get(column.set_name)
    if evaluation is None:
        return None
    names = [name for name in evaluation["runs"] if name != evaluation["baseline"]]
    about = evaluation["runs"][evaluation["baseline"] if is_first_stage else names[0]]
    if column.measure not in about["means"]:
        raise InputError(
            f"evaluation of {column.set_name}: lacks {column.measure}, has "
            f"{', '.join(about['means'])}"
        )
    interval = about.get("intervals", {}).get(column.measure)
    return Cell(about["means"][column.measure], tuple(interval) if interval else None)


def _mean_cell(
    evaluations: Evaluations, columns: Sequence[Column], *, is_first_stage: bool
) -> Cell | None:
    """The mean over all sets; none of them may be missing, since a part has another mean."""
    cells = [_cell(evaluations, column, is_first_stage=is_first_stage) for column in columns]
    values = [cell.value for cell in cells if cell is not None]
    return Cell(sum(values) / len(values)) if len(values) == len(columns) else None


def _row(
    title: str,
    published: PublishedRow | None,
    cells: Sequence[Cell | None],
    columns: Sequence[Column],
    notes: list[str],
) -> Row:
    """A row with the paper's values put in; what is missing or in doubt goes to the notes."""
    title = published.title if published else title
    absent = [c.title for c, cell in zip(columns, cells, strict=True) if cell is None]
    if absent:
        notes.append(f"{title}: not measured: {', '.join(absent)}")
    if published is None:
        return Row(title, "-", tuple(cells), (None,) * len(columns))
    if published.doubt:
        notes.append(f"{title}: {published.doubt}")
    paper = [published.values.get(column.set_name) for column in columns]
    compared = [
        None if column.set_name in published.doubtful_sets else value
        for column, value in zip(columns, paper, strict=True)
    ]
    filled = [
        None if cell is None else Cell(cell.value, cell.interval, comparable, shown)
        for cell, comparable, shown in zip(cells, compared, paper, strict=True)
    ]
    return Row(title, published.size, tuple(filled), tuple(paper))


def _position(name: str, order: Sequence[str]) -> tuple[int, str]:
    return (order.index(name) if name in order else len(order), name)
