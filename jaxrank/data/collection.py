"""Collection folders: documents read by id from disk, queries, and where the judgements are.

A folder holds `corpus.jsonl` ({"_id", "title", "text"}), `queries.jsonl` ({"_id", "text"}) and, for
each split, `qrels.<split>.txt` (TREC) or `qrels/<split>.tsv` (BEIR).
"""

import os
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxrank.errors import InputError
from jaxrank.evaluation.qrels import Qrels, read_qrels
from jaxrank.files import file_digest, parse_json_object, read_jsonl
from jaxrank.progress import progress_bar

_BOM = b"\xef\xbb\xbf"


class Documents(Mapping[str, str]):
    """Document id -> text ("title text" where there is a title), read from disk when asked for.

    Opening passes over the file once, checks every line and keeps ids and byte offsets only.
    Reading is safe from several threads.

    Raises:
        InputError: naming file and line: no JSON object, bytes that are not UTF-8, a missing or
            repeated id, a missing text.
    """

    def __init__(self, path: str | Path, *, progress: bool = False) -> None:
        self._path = Path(path)
        if not self._path.is_file():
            raise InputError(f"{self._path}: no such file; a corpus in JSON lines is needed")
        self._rows: dict[str, int] = {}
        starts = []
        size = self._path.stat().st_size
        with (
            open(self._path, "rb") as file,
            progress_bar(
                description=f"indexing {self._path.name}", unit="B", enabled=progress, total=size
            ) as bar,
        ):
            bar.unit_scale = True
            start = 0
            for number, line in enumerate(file, start=1):
                if line.strip() and line.strip() != _BOM:
                    where = f"{self._path}:{number}"
                    _add_row(self._rows, _parse(line, where)["_id"], where)
                    starts.append(start)
                start += len(line)
                bar.update(len(line))
        if not starts:
            raise InputError(f"{self._path}: no documents")
        self._offsets = np.array([*starts, start], np.int64)
        self._handle = os.open(self._path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._handle)

    def __getitem__(self, document_id: str) -> str:
        row = self._rows[document_id]
        start, end = self._offsets[row : row + 2].tolist()
        where = f"{self._path}, document {document_id!r}"
        document = _parse(os.pread(self._handle, end - start, start), where)
        if document["_id"] != document_id:
            raise InputError(f"{where}: the file has changed since it was opened; start again")
        title = document.get("title", "")
        return f"{title} {document['text']}" if title else document["text"]

    def __contains__(self, document_id: object) -> bool:
        return document_id in self._rows

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


class Collection:
    """Documents, queries and judgements of one folder.

    Attributes:
        folder: where it lies.
        documents: document id -> text, read when asked for, in the order of the file.
        queries: query id -> text, of all splits.
    """

    def __init__(self, folder: Path, documents: Documents, queries: dict[str, str]) -> None:
        self.folder = folder
        self.documents = documents
        self.queries = queries

    @classmethod
    def open(cls, folder: str | Path, *, progress: bool = False) -> "Collection":
        """Index a collection folder.

        Raises:
            InputError: naming what was looked for, or file and line of what cannot be read.
        """
        folder = Path(folder)
        for name in ("corpus.jsonl", "queries.jsonl"):
            if not (folder / name).is_file():
                raise InputError(f"{folder / name}: no such file; a collection folder holds it")
        documents = Documents(folder / "corpus.jsonl", progress=progress)
        return cls(folder, documents, read_queries(folder / "queries.jsonl"))

    @property
    def splits(self) -> list[str]:
        """Names of the splits that have judgements."""
        trec = [path.name.split(".", 1)[1][: -len(".txt")] for path in self._qrels_files("txt")]
        beir = [path.stem for path in self._qrels_files("tsv")]
        return sorted({*trec, *beir})

    def qrels_path(self, split: str) -> Path:
        """The judgements' file of a split.

        Raises:
            InputError: there is none; the message names what was looked for and the splits there.
        """
        candidates = (f"qrels.{split}.txt", f"qrels/{split}.tsv")
        for name in candidates:
            if (self.folder / name).is_file():
                return self.folder / name
        there = ", ".join(self.splits) or "none"
        raise InputError(
            f"split {split!r}: {self.folder} holds neither {' nor '.join(candidates)}; "
            f"splits there: {there}"
        )

    def qrels(self, split: str) -> Qrels:
        """Judgements of a split: query id -> document id -> grade.

        Raises:
            InputError: what `qrels_path` and `read_qrels` raise, and a judged query that
                queries.jsonl does not have.
        """
        path = self.qrels_path(split)
        qrels = read_qrels(path)
        unknown = [query_id for query_id in qrels if query_id not in self.queries]
        if unknown:
            raise InputError(
                f"{path}: {len(unknown)} of {len(qrels)} queries are not in "
                f"{self.folder / 'queries.jsonl'}, first {unknown[0]!r}"
            )
        return qrels

    def split_queries(self, split: str) -> dict[str, str]:
        """Query id -> text of a split's judged queries, in the order of its judgements."""
        return {query_id: self.queries[query_id] for query_id in self.qrels(split)}

    def digest(self) -> dict[str, str]:
        """SHA-256 of each of the collection's files, by name inside the folder."""
        paths = [self.folder / "corpus.jsonl", self.folder / "queries.jsonl"]
        paths += [*self._qrels_files("txt"), *self._qrels_files("tsv")]
        return {str(path.relative_to(self.folder)): file_digest(path) for path in paths}

    def _qrels_files(self, kind: str) -> list[Path]:
        return sorted(self.folder.glob("qrels.*.txt" if kind == "txt" else "qrels/*.tsv"))


def read_queries(path: str | Path) -> dict[str, str]:
    """Query id -> text, from JSON lines {"_id", "text"}.

    Raises:
        InputError: naming file and line.
    """
    rows: dict[str, int] = {}
    texts = []
    for number, query in read_jsonl(path):
        where = f"{path}:{number}"
        _check(query, where)
        _add_row(rows, query["_id"], where)
        texts.append(query["text"])
    if not rows:
        raise InputError(f"{path}: no queries")
    return dict(zip(rows, texts, strict=True))


def _parse(line: bytes, where: str) -> dict[str, Any]:
    try:
        text = line.removeprefix(_BOM).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{where}: byte {error.start + 1} of the line is not UTF-8; convert the file, e.g. "
            "with iconv"
        ) from None
    document = parse_json_object(text, where=where)
    _check(document, where)
    return document


def _check(entry: dict[str, Any], where: str) -> None:
    """Check a line's keys: `_id` and `text` must be there, `title` may be; all are strings."""
    for key in ("_id", "text", "title"):
        value = entry.get(key, "" if key == "title" else None)
        if not isinstance(value, str):
            found = f"got {type(value).__name__}" if key in entry else f"has {sorted(entry)}"
            raise InputError(f"{where}: {key!r}: {found}; a string is needed")
        if not is_unicode(value):
            raise InputError(f"{where}: {key!r}: half of a surrogate pair; it is no Unicode text")
    if not entry["_id"] or len(entry["_id"].split()) != 1:
        raise InputError(
            f"{where}: '_id': got {entry['_id']!r}; an id without blanks is needed, since runs "
            "have blanks between columns"
        )


def is_unicode(text: str) -> bool:
    """Whether a text has no lone surrogates, which JSON can spell and no tokenizer takes."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _add_row(rows: dict[str, int], name: str, where: str) -> None:
    if name in rows:
        raise InputError(f"{where}: id {name!r} was there before; each id is needed once")
    rows[name] = len(rows)
