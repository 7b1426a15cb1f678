"""Which documents states are wanted of: those of a list, or the candidates of runs."""

from collections.abc import Container, Iterable
from pathlib import Path
from typing import NamedTuple

from jaxrank.errors import InputError
from jaxrank.evaluation.runs import ranking, read_run
from jaxrank.files import read_lines


class Chosen(NamedTuple):
    """Ids of documents, each once."""

    document_ids: list[str]
    repeated: int = 0
    """How often an id came again."""


def from_list(path: Path, known: Container[str], *, where: str) -> Chosen:
    """The documents of a file with an id a line, in its order; blank lines are passed over.

    Args:
        known: ids that may be asked for.
        where: what these are the ids of, e.g. the collection's path.

    Raises:
        InputError: naming file and line: an id that is not known; or a file without ids.
    """
    ids: dict[str, None] = {}
    lines = 0
    for number, line in read_lines(path):
        document_id = line.strip()
        if not document_id:
            continue
        if document_id not in known:
            raise InputError(
                f"{path}:{number}: document {document_id!r} is not in {where}; an id of it is "
                "needed, one a line"
            )
        ids[document_id] = None
        lines += 1
    if not ids:
        raise InputError(f"{path}: no ids; one a line is needed")
    return Chosen(list(ids), lines - len(ids))


def from_runs(
    paths: Iterable[Path], depth: int | None, known: Container[str], *, where: str
) -> Chosen:
    """The candidates of all queries of runs, each document once, in the order of the runs.

    Args:
        depth: candidates taken per query of each run, the best of it; None takes all.
        known: ids that may be asked for.
        where: what these are the ids of, e.g. the collection's path.

    Raises:
        InputError: a run that cannot be read, or with a document that is not known.
    """
    ids: dict[str, None] = {}
    for path in paths:
        for query_id, scores in read_run(path).items():
            for document_id in ranking(scores)[:depth]:
                if document_id not in known:
                    raise InputError(
                        f"{path}: query {query_id!r} has document {document_id!r}, which {where} "
                        "lacks; give the collection that the run was made from"
                    )
                ids[document_id] = None
    return Chosen(list(ids))
