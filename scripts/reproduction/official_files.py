"""The official files: their names, where each is obtained, how large it is, and which are missing.

Sizes are about those that MS MARCO's pages give for the unpacked files.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

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
        paths = (folder / self.name, folder / f"{self.name}.gz")
        return next((path for path in paths if path.exists()), None)

    def describe(self, folder: Path) -> str:
        """A line that says what `folder` lacks and where to get it."""
        return f"{folder / self.name} ({self.size}): {self.source}"


def _packed(name: str, size: str) -> OfficialFile:
    return OfficialFile(name, f"{_MSMARCO}/{name}.gz", size)


def _from_nist(name: str, size: str) -> OfficialFile:
    return OfficialFile(name, f"{_NIST}/{name}", size)


def _from_archive(name: str, size: str) -> OfficialFile:
    source = f"in {_MSMARCO}/collectionandqueries.tar.gz (1 GB), unpacked with tar -xzf"
    return OfficialFile(name, source, size)


_TOPICS = {
    "dl19": _packed("msmarco-test2019-queries.tsv", "12 kB"),
    "dl20": _packed("msmarco-test2020-queries.tsv", "12 kB"),
}
_PARTS: dict[str, dict[str, tuple[OfficialFile, ...]]] = {
    "msmarco-document": {
        "documents": (_packed("msmarco-docs.tsv", "22 GB"),),
        "train": (
            _packed("msmarco-doctrain-queries.tsv", "15 MB"),
            _packed("msmarco-doctrain-qrels.tsv", "8 MB"),
        ),
        "dev": (
            _packed("msmarco-docdev-queries.tsv", "216 kB"),
            _packed("msmarco-docdev-qrels.tsv", "112 kB"),
        ),
        "dl19": (_TOPICS["dl19"], _from_nist("2019qrels-docs.txt", "320 kB")),
        "dl20": (_TOPICS["dl20"], _from_nist("2020qrels-docs.txt", "180 kB")),
    },
    "msmarco-passage": {
        "documents": (_from_archive("collection.tsv", "2.9 GB"),),
        "train": (
            _from_archive("queries.train.tsv", "32 MB"),
            _from_archive("qrels.train.tsv", "10 MB"),
        ),
        "dev": (
            _from_archive("queries.dev.small.tsv", "280 kB"),
            _from_archive("qrels.dev.small.tsv", "140 kB"),
        ),
        "dl19": (_TOPICS["dl19"], _from_nist("2019qrels-pass.txt", "180 kB")),
        "dl20": (_TOPICS["dl20"], _from_nist("2020qrels-pass.txt", "210 kB")),
    },
}
_OFFICIAL_RUNS = {
    "train": _packed("msmarco-doctrain-top100", "1.8 GB"),
    "dev": _packed("msmarco-docdev-top100", "27 MB"),
    "dl19": _packed("msmarco-doctest2019-top100", "1 MB"),
    "dl20": _packed("msmarco-doctest2020-top100", "1 MB"),
}


def collection_files(layout: str, splits: Sequence[str]) -> list[OfficialFile]:
    """What a collection with these splits is made from; `layout` as `import_collection` has it."""
    parts = _PARTS[layout]
    return [file for part in ("documents", *splits) for file in parts[part]]


def all_collection_files(layout: str) -> list[OfficialFile]:
    """What a collection can be made from, all splits of it."""
    return collection_files(layout, [part for part in _PARTS[layout] if part != "documents"])


def official_run(split: str) -> OfficialFile:
    """The track's own first stage of MS MARCO documents, 100 candidates a query."""
    return _OFFICIAL_RUNS[split]


def missing_files(files: Sequence[OfficialFile], folder: Path) -> list[str]:
    """One line about each file that is not in `folder`."""
    return [file.describe(folder) for file in files if not file.find(folder)]


def missing_beir_files(folder: Path) -> Iterator[str]:
    """One line if a BEIR set, unpacked, is not in `folder`, or not whole."""
    # As the archives have it, and as people shrink it.
    needed = ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv")
    absent = [name for name in needed if not OfficialFile(name, "", "").find(folder)]
    if absent:
        yield f"{folder}: {', '.join(absent)}: in {_BEIR}/{folder.name}.zip, unpacked"
