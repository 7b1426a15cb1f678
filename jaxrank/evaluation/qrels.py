"""Relevance judgements (qrels), read strictly.

Two layouts, told apart by the number of columns in the first line:

    TREC   query_id  iteration  document_id  grade      blanks or tabs, no header
    BEIR   query-id  corpus-id  score                   tabs, with that header line

A grade above 0 means relevant. Grades of 0 and below are judged and not relevant.
"""

import re
from pathlib import Path

from jaxrank.errors import InputError
from jaxrank.files import read_lines

Qrels = dict[str, dict[str, int]]
"""Query id -> document id -> grade."""

_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,4}")
# trec_eval's code, which computes most measures, allocates one slot per grade: 10^9 takes minutes.
_LARGEST_GRADE = 1000
_TREC_COLUMNS = 4
_BEIR_COLUMNS = 3


def read_qrels(path: str | Path) -> Qrels:
    """Read a qrels file in TREC or BEIR layout; blank lines are passed over.

    Raises:
        InputError: naming file and line: a wrong number of columns, a grade that is no whole
            number, a pair judged twice, a BEIR file without its header; or a file without
            judgements.
    """
    qrels: Qrels = {}
    num_columns = 0
    for number, line in read_lines(path):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        if not num_columns:
            num_columns = _layout(line, where)
            if num_columns == _BEIR_COLUMNS:
                continue
        query_id, document_id, grade = _parse_line(line, num_columns, where)
        judged = qrels.setdefault(query_id, {})
        if document_id in judged:
            raise InputError(
                f"{where}: query {query_id!r} and document {document_id!r} are judged a second "
                "time; keep one line"
            )
        judged[document_id] = grade
    if not qrels:
        raise InputError(f"{path}: no judgements; lines 'query 0 document grade' are needed")
    return qrels


def _layout(first_line: str, where: str) -> int:
    """Number of columns of the file; checks the header that BEIR files begin with."""
    if len(first_line.split()) == _TREC_COLUMNS:
        return _TREC_COLUMNS
    columns = first_line.split("\t")
    if len(columns) != _BEIR_COLUMNS:
        raise InputError(
            f"{where}: {len(first_line.split())} columns; TREC qrels have 4 (query 0 document "
            "grade), BEIR qrels 3 with tabs (query-id corpus-id score)"
        )
    if _WHOLE_NUMBER.fullmatch(columns[2].strip()):
        raise InputError(
            f"{where}: a judgement where the header is needed; begin the file with the line "
            "'query-id<tab>corpus-id<tab>score'"
        )
    return _BEIR_COLUMNS


def _parse_line(line: str, num_columns: int, where: str) -> tuple[str, str, int]:
    columns = line.split() if num_columns == _TREC_COLUMNS else line.split("\t")
    if len(columns) != num_columns:
        raise InputError(f"{where}: {len(columns)} columns; this file's lines have {num_columns}")
    query_id, document_id, grade = columns[0], columns[-2], columns[-1].strip()
    if not query_id or not document_id:
        raise InputError(f"{where}: an empty id; query and document ids are needed")
    if not _WHOLE_NUMBER.fullmatch(grade) or abs(int(grade)) > _LARGEST_GRADE:
        raise InputError(
            f"{where}: grade {grade!r}; a whole number from {-_LARGEST_GRADE} to "
            f"{_LARGEST_GRADE} is needed"
        )
    return query_id, document_id, int(grade)
