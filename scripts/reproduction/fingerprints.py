"""Fingerprints: whether what a step has read is still what it was, in seconds also for 22 GB."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from jaxrank.data.collection import find_queries, queries_path
from jaxrank.data.document_store.manifest import MANIFEST_FILE
from jaxrank.evaluation.qrels import read_qrels
from jaxrank.files import read_jsonl

_WHOLE_BYTES = 64 << 20
_END_BYTES = 1 << 20
_SHOWN = 16


@dataclass(frozen=True)
class SplitQueries:
    """The texts of a split's queries: more splits in the same collection do not change them."""

    collection: Path
    qrels: Path

    def __str__(self) -> str:
        return f"queries of {self.qrels}"

    def exists(self) -> bool:
        """Whether the collection has them."""
        return self.qrels.exists() and find_queries(self.collection) is not None


Input = Path | SplitQueries


class Fingerprints:
    """Fingerprints of files, folders and splits, each made once while the file stays the same."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], str] = {}

    def of(self, source: Input) -> str:
        """Changes with the content.

        Of a file above 64 MiB: with its size, first and last MiB. Of a document store: with the
        manifest, which has the SHA-256 of each file, and the files' sizes.
        """
        if isinstance(source, SplitQueries):
            return self._split(source)
        return self._folder(source) if source.is_dir() else self._file(source)

    def _folder(self, folder: Path) -> str:
        """Of all files in it but hidden ones, which are unfinished or caches."""
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        names = [path.relative_to(folder) for path in paths]
        manifest = folder / MANIFEST_FILE
        is_store = manifest.is_file()
        return _digest(
            f"{name} {path.stat().st_size if is_store and path != manifest else self._file(path)}\n"
            for name, path in zip(names, paths, strict=True)
            if not any(part.startswith(".") for part in name.parts)
        )

    def _file(self, path: Path) -> str:
        status = path.stat()
        key = (path, status.st_size, status.st_mtime_ns)
        if key not in self._known:
            self._known[key] = _file_digest(path, status.st_size)
        return self._known[key]

    def _split(self, split: SplitQueries) -> str:
        queries = queries_path(split.collection)
        key = (split.qrels, self._file(split.qrels), self._file(queries))
        if key not in self._known:
            wanted = read_qrels(split.qrels).keys()
            entries = (entry for _, entry in read_jsonl(queries))
            texts = sorted((e["_id"], e["text"]) for e in entries if e["_id"] in wanted)
            self._known[key] = _digest(json.dumps(text) for text in texts)
        return self._known[key]


def _file_digest(path: Path, size: int) -> str:
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        if size > _WHOLE_BYTES:
            digest.update(file.read(_END_BYTES))
            file.seek(-_END_BYTES, 2)
        while chunk := file.read(_END_BYTES):
            digest.update(chunk)
    return digest.hexdigest()[:_SHOWN]


def _digest(parts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode())
    return digest.hexdigest()[:_SHOWN]
