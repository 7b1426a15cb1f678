"""A number for each query, by which queries are sorted into slices."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

from jaxrank.errors import InputError
from jaxrank.evaluation.qrels import Qrels
from jaxrank.files import read_lines

QUERY_LENGTH = "query_length"
DOCUMENT_LENGTH = "document_length"

_EXAMPLE = f"{QUERY_LENGTH}:5,9"
_NUM_COLUMNS = 2


@dataclass(frozen=True)
class QueryValues:
    """What queries are sorted by.

    Attributes:
        name: as a table's header.
        values: query id -> number; a query may have none.
        remarks: what is to be known about them.
    """

    name: str
    values: dict[str, float]
    remarks: tuple[str, ...] = ()


@runtime_checkable
class Texts(Protocol):
    """What a collection has: texts by id."""

    @property
    def queries(self) -> Mapping[str, str]:
        """Query id -> text."""

    @property
    def documents(self) -> Mapping[str, str]:
        """Document id -> text."""


def values_for(what: str, qrels: Qrels, texts: Texts | None) -> tuple[QueryValues, list[float]]:
    """The values that an item of --slice_by names, and its edges (none for quantiles).

    Args:
        what: query_length, document_length or a TSV file; ":3,5" behind it gives edges.

    Raises:
        InputError: neither of them, edges that are no numbers, a length without a collection, or
            what `read_values` raises.
    """
    name, edges = _split_edges(what)
    if name not in (QUERY_LENGTH, DOCUMENT_LENGTH):
        return _with_count_of_unjudged(read_values(Path(name)), qrels), edges
    if texts is None:
        raise InputError(f"slice_by: {name} needs texts; give their folder with --collection")
    found = query_lengths if name == QUERY_LENGTH else document_lengths
    return found(qrels, texts), edges


def files_of(what: str) -> list[Path]:
    """The file that an item of --slice_by names, if it names one."""
    paths = (Path(name) for name in (what, what.rpartition(":")[0]))
    return [path for path in paths if path.is_file()]


def query_lengths(qrels: Qrels, texts: Texts) -> QueryValues:
    """Words of each judged query, as blanks separate them."""
    known = {query: texts.queries[query] for query in qrels if query in texts.queries}
    return QueryValues(QUERY_LENGTH, {query: float(len(known[query].split())) for query in known})


def document_lengths(qrels: Qrels, texts: Texts) -> QueryValues:
    """Words of each query's relevant documents (grade 1 or more), on average.

    Relevant documents that the collection lacks are left out and counted.
    """
    values: dict[str, float] = {}
    num_missing = 0
    for query, grades in qrels.items():
        relevant = [document for document, grade in grades.items() if grade >= 1]
        there = [document for document in relevant if document in texts.documents]
        num_missing += len(relevant) - len(there)
        if there:
            words = sum(len(texts.documents[document].split()) for document in there)
            values[query] = words / len(there)
    remark = f"{DOCUMENT_LENGTH}: {num_missing} relevant documents are not in the collection"
    return QueryValues(DOCUMENT_LENGTH, values, (remark,) if num_missing else ())


def read_values(path: Path) -> QueryValues:
    """Read `query<TAB>number` lines, named by the file; blank lines are passed over.

    Raises:
        InputError: naming file and line: other than two columns, a value that is no finite number,
            a query that is there twice; or a file without values.
    """
    values: dict[str, float] = {}
    for number, line in read_lines(path):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        columns = line.split("\t")
        if len(columns) != _NUM_COLUMNS:
            raise InputError(f"{where}: {len(columns)} columns; 'query<tab>number' is needed")
        query, text = columns
        if query in values:
            raise InputError(f"{where}: query {query!r} was there before; one line is needed")
        values[query] = _number(text, where)
    if not values:
        raise InputError(f"{path}: no values; lines 'query<tab>number' are needed")
    return QueryValues(path.name.removesuffix(".tsv"), values)


def _split_edges(what: str) -> tuple[str, list[float]]:
    """A name of values and the edges behind it."""
    if _is_name(what):
        return what, []
    name, _, edges = what.rpartition(":")
    if not _is_name(name):
        raise InputError(
            f"slice_by: {what!r} is neither {QUERY_LENGTH} nor {DOCUMENT_LENGTH} nor a TSV file, "
            f"nor one of them with edges as in {_EXAMPLE}"
        )
    numbers = []
    for edge in edges.split(","):
        number = _parse_finite(edge)
        if number is None:
            raise InputError(
                f"slice_by: {what!r}: edges are numbers, e.g. {_EXAMPLE}; got {edge!r}"
            )
        numbers.append(number)
    return name, numbers


def _is_name(text: str) -> bool:
    return text in (QUERY_LENGTH, DOCUMENT_LENGTH) or Path(text).is_file()


def _with_count_of_unjudged(values: QueryValues, qrels: Qrels) -> QueryValues:
    unjudged = sum(query not in qrels for query in values.values)
    remark = (
        f"{values.name}: {unjudged} of its {len(values.values)} queries are not in the judgements"
    )
    return replace(values, remarks=(remark,)) if unjudged else values


def _number(text: str, where: str) -> float:
    value = _parse_finite(text)
    if value is None:
        raise InputError(f"{where}: got {text!r}; a finite number is needed")
    return value


def _parse_finite(text: str) -> float | None:
    try:
        # Python alone reads "1_000" as a number.
        value = math.nan if "_" in text else float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
