"""The study's folder: all that training on the GPU needs, as arrays, and what names them here.

study.json       settings, the wordings as token ids, MiniLM's architecture, digests of the rest
texts.npz        token ids of all queries and documents in each wording
lists.npz        training groups and dev candidates, as row numbers of texts
minilm.npz       MiniLM-L6's weights in float16
names.json       ids of the queries and documents, in the order of the rows
qrels.txt        judgements of the dev queries
bm25.run         their candidates, BM25's first `depth`
results/         a JSON a part, with its scores
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxrank.errors import InputError
from jaxrank.files import atomic_open, file_digest

STUDY_FILE = "study.json"
LISTS = "lists.npz"
TEXTS = "texts.npz"
WEIGHTS = "minilm.npz"
NAMES = "names.json"
QRELS = "qrels.txt"
CANDIDATES = "bm25.run"
ABSENT = -1
"""Row number where a group or a list has no document."""


@dataclass(frozen=True)
class Texts:
    """Token ids of many texts, one after the other."""

    ids: np.ndarray
    """(all tokens,) uint16 or uint32."""
    ends: np.ndarray
    """(texts,) where each ends."""

    @classmethod
    def pack(cls, texts: list[np.ndarray]) -> "Texts":
        """Join texts; 16 bits a token where they do."""
        ids = np.concatenate(texts) if texts else np.zeros(0, np.int32)
        narrow = np.uint16 if ids.max(initial=0) < 2**16 else np.uint32
        return cls(ids.astype(narrow), np.cumsum([len(text) for text in texts]).astype(np.uint32))

    def __getitem__(self, row: int) -> np.ndarray:
        start = self.ends[row - 1] if row else 0
        return self.ids[start : self.ends[row]]

    def lengths(self) -> np.ndarray:
        """Tokens of each text."""
        return np.diff(self.ends.astype(np.int64), prepend=0)


@dataclass(frozen=True)
class Archive:
    """What training reads of the folder."""

    folder: Path
    study: dict[str, Any]
    queries: dict[str, Texts]
    """Wording -> token ids of every query."""
    documents: dict[str, Texts]
    group_queries: np.ndarray
    """(groups,) rows of `queries`."""
    group_documents: np.ndarray
    """(groups, candidates) rows of `documents`, the positive first."""
    dev_queries: np.ndarray
    """(dev queries,) rows of `queries`."""
    dev_documents: np.ndarray
    """(dev queries, depth) rows of `documents`, in BM25's order."""

    @classmethod
    def open(cls, folder: Path) -> "Archive":
        """Read the folder.

        Raises:
            InputError: no such folder, or a file that is not the one that was written.
        """
        study = read_study(folder)
        for name, digest in study["files"].items():
            if not (folder / name).is_file():
                raise InputError(f"{folder / name}: no such file; copy the whole folder")
            if file_digest(folder / name) != digest:
                raise InputError(f"{folder / name}: changed since it was prepared; copy it again")
        texts, lists = np.load(folder / TEXTS), np.load(folder / LISTS)
        queries, documents = (
            {
                wording: Texts(texts[f"{wording}.{kind}.ids"], texts[f"{wording}.{kind}.ends"])
                for wording in study["wordings"]
            }
            for kind in ("queries", "documents")
        )
        return cls(folder, study, queries, documents, **{name: lists[name] for name in lists})

    def weights(self) -> dict[str, np.ndarray]:
        """MiniLM's parameters by path, float32."""
        arrays = np.load(self.folder / WEIGHTS)
        return {path: arrays[path].astype(np.float32) for path in arrays}


def read_study(folder: Path) -> dict[str, Any]:
    """What stands in the folder's study.json."""
    path = folder / STUDY_FILE
    if not path.is_file():
        raise InputError(
            f"{path}: no such file; `bash scripts/gpu_study.sh prepare --data {folder}` makes it"
        )
    return dict(json.loads(path.read_text(encoding="utf-8")))


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays as a compressed npz, all or nothing."""
    with atomic_open(path, "wb") as file:
        np.savez_compressed(file, **arrays)


def write_json(path: Path, value: Any, *, indent: int | None = 1) -> None:
    """Write a value as JSON, all or nothing."""
    with atomic_open(path) as file:
        file.write(json.dumps(value, indent=indent) + "\n")
