"""A split's queries searched by either engine: the index found or built, the run written.

An index folder that this project built carries a manifest and is used for its own collection only.
One that other tools built, or that was downloaded, tells nothing of its collection: there, every
document found must be in the collection.
"""

import os
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Literal

from jaxrank.data.collection import Collection
from jaxrank.errors import InputError
from jaxrank.evaluation.runs import write_run
from jaxrank.files import check_target
from jaxrank.retrieval.bm25 import Bm25
from jaxrank.retrieval.first_stage import FirstStage, check_depth, check_parameters
from jaxrank.retrieval.lucene import Lucene
from jaxrank.retrieval.lucene_index import build_index, check_manifest, holds_index, read_manifest
from jaxrank.retrieval.lucene_java import check_java
from jaxrank.retrieval.lucene_prebuilt import check_name, fetch_prebuilt

Backend = Literal["bm25", "lucene"]

DEFAULT_INDEX = "lucene-index"


@dataclass(frozen=True)
class SearchReport:
    """What a search did.

    Attributes:
        index: the index and where it came from, in words.
        index_seconds: time to build or open it.
        search_seconds: time to search and to write the run.
        queries: queries searched.
        found: queries that are in the run; the others match no document.
    """

    index: str
    index_seconds: float
    search_seconds: float
    queries: int
    found: int

    def lines(self) -> list[str]:
        """The report in words."""
        rate = self.queries / self.search_seconds
        lines = [
            f"{self.index} in {self.index_seconds:.1f} s",
            f"{self.queries} queries searched in {self.search_seconds:.1f} s: {rate:,.0f} a second",
        ]
        if unmatched := self.queries - self.found:
            lines.append(f"{unmatched} queries match no document and are not in the run")
        return lines


def check_options(
    backend: Backend,
    index: str | None,
    threads: int | None,
    *,
    depth: int,
    k1: float,
    b: float,
) -> None:
    """Refuse what needs no collection to be refused, before one is opened; see `search_queries`."""
    check_depth(depth)
    check_parameters(k1, b)
    if threads is not None and threads < 1:
        raise InputError(f"threads: {threads}; at least 1 is needed")
    for name, value in (("index", index), ("threads", threads)):
        if backend == "bm25" and value is not None:
            raise InputError(f"{name}: {value}; goes with --backend lucene, bm25 has no use for it")
    if backend == "lucene":
        check_java()
        if _is_name(index):
            check_name(str(index))


def _is_name(index: str | None) -> bool:
    """Whether an index is given by a prebuilt one's name: a word that is no folder."""
    return index is not None and os.sep not in index and not Path(index).exists()


def search_queries(
    collection: Collection,
    queries: Mapping[str, str],
    output: Path,
    *,
    backend: Backend = "bm25",
    index: str | None = None,
    k1: float,
    b: float,
    depth: int,
    threads: int | None = None,
    progress: bool = False,
) -> SearchReport:
    """Write the candidates of queries as a run, tagged with the engine's name.

    Args:
        backend: bm25 is embedded and indexes in memory; lucene keeps its index on disk.
        index: folder of a Lucene index, built if it is not there, or name of a prebuilt one. None:
            the folder `lucene-index` beside the run, which the runs there share.
        k1: how slowly repeated words saturate, >= 0.
        b: how much long documents are held back, 0 to 1.
        depth: documents a query gets at most.
        threads: threads that Lucene indexes and searches with; None for one a core.

    Raises:
        InputError: options out of range or of the other engine, an index of another collection.
    """
    check_options(backend, index, threads, depth=depth, k1=k1, b=b)
    check_target(output)
    begin = perf_counter()
    engine: FirstStage
    is_known = True
    if backend == "bm25":
        engine = Bm25.build(collection.documents, k1=k1, b=b, progress=progress)
        told = f"{len(collection.documents)} documents indexed in memory"
    else:
        threads = threads or os.cpu_count() or 1
        folder, told, is_known = _lucene_index(index, output, collection, threads, progress)
        engine = Lucene(folder, k1=k1, b=b, threads=threads)
    between = perf_counter()
    results = _Counted(
        engine.results(queries, depth=depth, progress=progress),
        None if is_known else collection.documents,
    )
    write_run(output, results, tag=backend)
    end = perf_counter()
    return SearchReport(told, between - begin, end - between, len(queries), results.count)


class _Counted:
    """Results on their way into a run: counted, and their documents looked up where not None."""

    def __init__(
        self, results: Iterator[tuple[str, dict[str, float]]], documents: Container[str] | None
    ) -> None:
        self.count = 0
        self._results = results
        self._documents = documents

    def __iter__(self) -> Iterator[tuple[str, dict[str, float]]]:
        for query_id, scores in self._results:
            if self._documents is not None:
                _check_known(query_id, scores, self._documents)
            self.count += 1
            yield query_id, scores


def _check_known(query_id: str, scores: Iterable[str], documents: Container[str]) -> None:
    for document_id in scores:
        if document_id not in documents:
            raise InputError(
                f"index: document {document_id!r}, found for query {query_id!r}, is not in the "
                "collection; an index of this collection is needed"
            )


def _lucene_index(
    index: str | None, output: Path, collection: Collection, threads: int, progress: bool
) -> tuple[Path, str, bool]:
    """The index's folder, built or downloaded if it is not there.

    Also where it came from, in words, and whether it is known to be of the collection.
    """
    folder = output.absolute().parent / DEFAULT_INDEX if index is None else Path(index)
    if holds_index(folder):
        manifest = read_manifest(folder)
        if manifest is None:
            return (
                folder,
                f"index {folder}, whose collection and texts nothing tells, opened",
                False,
            )
        check_manifest(folder, manifest, collection)
        return folder, f"index of {manifest.documents} documents in {folder} opened", True
    if folder.is_dir() and any(folder.iterdir()):
        raise InputError(
            f"index: {folder} is a folder without a Lucene index; an index, a new folder or the "
            "name of a prebuilt index is needed"
        )
    if index is not None and _is_name(index):
        folder = fetch_prebuilt(index)
        told = f"prebuilt index {index} in {folder} opened"
        return folder, f"{told}, whose texts --document_text does not change,", False
    built = build_index(collection, folder, threads=threads, progress=progress)
    told = f"{built.documents} documents indexed in {folder}"
    if empty := built.documents - built.indexed:
        told += f", {empty} of them without text,"
    return folder, told, True
