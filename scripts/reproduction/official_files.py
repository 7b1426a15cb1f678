"""The official files: their names, where each is obtained, how large it is, and which are missing.

Sizes are about those that MS MARCO's pages give for the unpacked files.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxrank.data.importing.layouts.beir import CORPUS_FILE, QUERIES_FILE
from jaxrank.data.importing.layouts.collection_source import find_file
from jaxrank.data.importing.layouts.msmarco import (
    DOCUMENT_SPLITS,
    DOCUMENTS_FILE,
    PASSAGE_SPLITS,
    PASSAGES_FILE,
)

_MSMARCO = "https://msmarco.z22.web.core.windows.net/msmarcoranking"
_NIST = "https://trec.nist.gov/data/deep"
_BEIR = "https://public.ukp.informatik.tu-darmstadt.de/thakur/BEIR/datasets"


@dataclass(frozen=True)
class OfficialFile:
    """A file that a user has to bring.

    Attributes:
        name: as it lies in the data folder, there perhaps with `.gz` behind it.
        source: address of the file, or of the archive that it is in.
        size: of the unpacked file, for people.
    """

    name: str
    source: str
    size: str

    def find(self, folder: Path) -> Path | None:
        """The file in `folder`, plain or packed; None if it is in neither form."""
        return find_file(folder, self.name)

    def describe(self, folder: Path) -> str:
        """A line that says what `folder` lacks and where to get it."""
        return f"{folder / self.name} ({self.size}): {self.source}"


def _packed(name: str, size: str) -> OfficialFile:
    return OfficialFile(name, f"{_MSMARCO}/{name}.gz", size)


def _from_archive(name: str, size: str) -> OfficialFile:
    source = f"in {_MSMARCO}/collectionandqueries.tar.gz (1 GB), unpacked with tar -xzf"
    return OfficialFile(name, source, size)


def _file(name: str, size: str) -> OfficialFile:
    if "qrels-" in name:  # 2019qrels-docs.txt and its like
        return OfficialFile(name, f"{_NIST}/{name}", size)
    return _packed(name, size) if name.startswith("msmarco-") else _from_archive(name, size)


_SIZES = {
    "msmarco-document": {
        "documents": ("22 GB",),
        "train": ("15 MB", "8 MB"),
        "dev": ("216 kB", "112 kB"),
        "dl19": ("12 kB", "320 kB"),
        "dl20": ("12 kB", "180 kB"),
    },
    "msmarco-passage": {
        "documents": ("2.9 GB",),
        "train": ("32 MB", "10 MB"),
        "dev": ("280 kB", "140 kB"),
        "dl19": ("12 kB", "180 kB"),
        "dl20": ("12 kB", "210 kB"),
    },
}
"""Layout -> the documents, and split -> queries and judgements, in the order of the names."""

_NAMES: dict[str, dict[str, tuple[str, ...]]] = {
    "msmarco-document": {"documents": (DOCUMENTS_FILE,), **DOCUMENT_SPLITS},
    "msmarco-passage": {"documents": (PASSAGES_FILE,), **PASSAGE_SPLITS},
}
_PARTS = {
    layout: {
        part: tuple(_file(*pair) for pair in zip(names, _SIZES[layout][part], strict=True))
        for part, names in parts.items()
    }
    for layout, parts in _NAMES.items()
}
_BEIR_NAMES = (CORPUS_FILE, QUERIES_FILE, "qrels/test.tsv")
_OFFICIAL_RUNS = {
    "train": _packed("msmarco-doctrain-top100", "1.8 GB"),
    "dev": _packed("msmarco-docdev-top100", "27 MB"),
    "dl19": _packed("msmarco-doctest2019-top100", "1 MB"),
    "dl20": _packed("msmarco-doctest2020-top100", "1 MB"),
}
NUM_TOPICS = 200
"""Questions of a DL track, whose official runs have them all; 43 to 54 of them are judged."""


def collection_files(layout: str, splits: Sequence[str]) -> list[OfficialFile]:
    """What a collection with these splits is made from; `layout` as `import_collection` has it."""
    parts = _PARTS[layout]
    return [file for part in ("documents", *splits) for file in parts[part]]


def find_collection_files(layout: str, folder: Path) -> tuple[Path, ...]:
    """What is in `folder` of all that a collection can be made from."""
    files = (file.find(folder) for part in _PARTS[layout].values() for file in part)
    return tuple(path for path in files if path is not None)


def official_run(split: str) -> OfficialFile:
    """The track's own first stage of MS MARCO documents, 100 candidates a query."""
    return _OFFICIAL_RUNS[split]


def missing_files(files: Sequence[OfficialFile], folder: Path) -> list[str]:
    """One line about each file that is not in `folder`."""
    return [file.describe(folder) for file in files if not file.find(folder)]


def find_beir_files(folder: Path) -> tuple[Path, ...]:
    """What is there of a BEIR set, unpacked, each file perhaps packed by itself."""
    found = (find_file(folder, name) for name in _BEIR_NAMES)
    return tuple(path for path in found if path is not None)


def missing_beir_files(folder: Path) -> Iterator[str]:
    """One line if a BEIR set, unpacked, is not in `folder`, or not whole."""
    absent = [name for name in _BEIR_NAMES if not find_file(folder, name)]
    if absent:
        yield f"{folder}: {', '.join(absent)}: in {_BEIR}/{folder.name}.zip, unpacked"
