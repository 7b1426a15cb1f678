"""Runs: scored documents by query, in TREC's six columns, read strictly and written atomically.

    query_id  Q0  document_id  rank  score  tag

Scores alone order a run. Tools disagree on ties (some put the higher document id first, some the
lower) and trec_eval compares scores as float32. So one rule holds throughout: documents are
ordered by (-score, document id), and written scores decrease strictly even as float32.
"""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from jaxrank.errors import InputError
from jaxrank.files import atomic_open, read_lines

Run = dict[str, dict[str, float]]
"""Query id -> document id -> score."""

_NUM_COLUMNS = 6


class SeparatedQueryError(InputError):
    """A query of a run whose lines stand apart: `read_run` reads them, `iter_run` cannot."""


def ranking(scores: dict[str, float]) -> list[str]:
    """Document ids of one query, best first: by falling score, equal scores by rising id."""
    return sorted(scores, key=lambda document_id: (-scores[document_id], document_id))


def read_run(path: str | Path) -> Run:
    """Read a TREC run, plain or gzip; the rank column is ignored, blank lines are passed over.

    Raises:
        InputError: naming file and line: other than six columns, a score that is not a finite
            number, a document that a query has twice; or a file without results.
    """
    run: Run = {}
    for where, query_id, document_id, score in _read_results(path):
        _add(run.setdefault(query_id, {}), query_id, document_id, score, where)
    return run


def iter_run(path: str | Path) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield `(query id, document id -> score)` of a TREC run, plain or gzip, query by query.

    Holds one query's results and the ids of the queries so far, so it reads runs of any size; the
    lines of a query must stand together, as in every run that a tool writes.

    Raises:
        InputError: what `read_run` raises.
        SeparatedQueryError: a query that comes again after another one.
    """
    seen: set[str] = set()
    current, scores = "", dict[str, float]()
    for where, query_id, document_id, score in _read_results(path):
        if query_id != current:
            if query_id in seen:
                raise SeparatedQueryError(
                    f"{where}: query {query_id!r} comes again after others; its lines are needed "
                    f"together: sort -s -k1,1 {path} > SORTED (a gzip file by way of zcat)"
                )
            if scores:
                yield current, scores
            seen.add(query_id)
            current, scores = query_id, {}
        _add(scores, query_id, document_id, score, where)
    yield current, scores


def write_run(
    path: str | Path, run: Run | Iterable[tuple[str, dict[str, float]]], *, tag: str
) -> None:
    """Write a run atomically: queries in their order, documents by (-score, document id).

    A run that does not fit into memory comes query by query, as `iter_run` yields it.

    Scores are written with the nine digits that name a float32 exactly; where a score would not
    lie below the one before it, it becomes the next smaller float32.

    Raises:
        InputError: a score that is not finite as float32, an id or tag that holds blanks. Nothing
            is written then.
    """
    check_word(tag, f"{path}: tag")
    with atomic_open(path) as file:
        for query_id, scores in run.items() if isinstance(run, dict) else run:
            check_word(query_id, f"{path}: query id")
            order = ranking(scores)
            written = strictly_decreasing([scores[document_id] for document_id in order])
            for rank, (document_id, score) in enumerate(zip(order, written, strict=True), start=1):
                check_word(document_id, f"{path}: query {query_id!r}: document id")
                if not np.isfinite(score):
                    raise InputError(
                        f"{path}: query {query_id!r}, document {document_id!r}: score "
                        f"{scores[document_id]}; a finite float32 is needed"
                    )
                file.write(f"{query_id} Q0 {document_id} {rank} {score:.9g} {tag}\n")


def check_word(word: str, what: str) -> None:
    """Refuse what cannot be a column of a run; `what` begins the message."""
    if len(word.split()) != 1 or word != word.strip():
        raise InputError(
            f"{what} {word!r}: a word without blanks is needed, since a TREC run separates its "
            "columns by them"
        )


def strictly_decreasing(scores: list[float]) -> list[float]:
    """Falling scores as float32 values, each below the one before it; NaN stays NaN."""
    result: list[float] = []
    # What leaves float32's range becomes infinite, which the caller reports with its document.
    with np.errstate(over="ignore"):
        for score in scores:
            value = np.float32(score)
            if result and value >= result[-1]:
                value = np.nextafter(np.float32(result[-1]), np.float32(-np.inf))
            result.append(float(value))
    return result


def _read_results(path: str | Path) -> Iterator[tuple[str, str, str, float]]:
    """Yield `("file:line", query id, document id, score)` of each line."""
    where = None
    for number, line in read_lines(path):
        columns = line.split()
        if not columns:
            continue
        where = f"{path}:{number}"
        if len(columns) != _NUM_COLUMNS:
            raise InputError(
                f"{where}: {len(columns)} columns; a run has 6 (query Q0 document rank score tag)"
            )
        yield where, columns[0], columns[2], _parse_score(columns[4], where)
    if where is None:
        raise InputError(f"{path}: no results; lines 'query Q0 document rank score tag' are needed")


def _add(
    scores: dict[str, float], query_id: str, document_id: str, score: float, where: str
) -> None:
    if document_id in scores:
        raise InputError(
            f"{where}: query {query_id!r} has document {document_id!r} a second time; keep one line"
        )
    scores[document_id] = score


def _parse_score(text: str, where: str) -> float:
    try:
        # Python alone reads "1_000" as a number.
        score = math.nan if "_" in text else float(text)
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        raise InputError(f"{where}: score {text!r}; a finite number is needed")
    return score
