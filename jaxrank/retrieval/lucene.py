"""BM25 by Lucene, through Anserini: an index on disk, searched by several threads.

    score(q, d) = sum over the words t of q of  idf(t) * tf / (tf + k1 * (1 - b + b * |d| / avg))
    idf(t) = ln(1 + (N - df + 0.5) / (df + 0.5))

Lucene keeps |d| in one byte. Anserini rounds scores to four decimals and breaks ties by document
id, at the last rank too, by taking 0.000001 from each score after the first of equal ones. A query
is a bag of words, whatever signs it holds.
"""

import os
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

from jaxrank.errors import InputError
from jaxrank.progress import progress_bar
from jaxrank.retrieval.first_stage import (
    DEFAULT_B,
    DEFAULT_K1,
    FirstStage,
    check_depth,
    check_parameters,
)
from jaxrank.retrieval.lucene_java import java_class, java_error, problem, wait_for

_CHUNK_QUERIES_PER_THREAD = 64
_MAX_WORDS = 2**31 - 1


class Lucene(FirstStage):
    """A Lucene index, opened for search.

    Args:
        folder: the index.
        k1: how slowly repeated words saturate, >= 0.
        b: how much long documents are held back, 0 to 1.
        threads: queries that are searched at a time.

    Raises:
        InputError: k1 or b out of range, Java that is missing, a folder that Lucene cannot open.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        k1: float = DEFAULT_K1,
        b: float = DEFAULT_B,
        threads: int = 1,
    ) -> None:
        check_parameters(k1, b)
        self._folder = Path(folder)
        self._threads = threads
        # Lucene refuses queries of more than 1,024 words otherwise.
        java_class("org.apache.lucene.search.IndexSearcher").setMaxClauseCount(_MAX_WORDS)
        searcher = java_class("io.anserini.search.SimpleSearcher")
        try:
            self._searcher = searcher(os.fspath(self._folder.absolute()))
        except java_error() as error:
            raise InputError(
                f"{folder}: not an index that Lucene can open ({problem(error)}); remove the "
                "folder to build it again"
            ) from None
        self._searcher.set_bm25(k1, b)

    def __len__(self) -> int:
        return int(self._searcher.get_total_num_docs())

    def results(
        self, queries: Mapping[str, str], *, depth: int, progress: bool = False
    ) -> Iterator[tuple[str, dict[str, float]]]:
        """Yield the best `depth` documents of each query; see FirstStage."""
        check_depth(depth)
        waiting = iter(queries.items())
        with progress_bar(
            description="searching", unit="query", enabled=progress, total=len(queries)
        ) as bar:
            while chunk := list(islice(waiting, _CHUNK_QUERIES_PER_THREAD * self._threads)):
                found = self._search(chunk, depth)
                bar.update(len(chunk))
                yield from ((query_id, found[query_id]) for query_id, _ in chunk if found[query_id])

    def _search(self, chunk: list[tuple[str, str]], depth: int) -> dict[str, dict[str, float]]:
        new_list = java_class("java.util.ArrayList")
        names, texts = new_list(), new_list()
        for query_id, text in chunk:
            names.add(query_id)
            texts.add(text)
        try:
            hits = wait_for(lambda: self._searcher.batch_search(texts, names, depth, self._threads))
        except java_error() as error:
            raise InputError(f"{self._folder}: the search failed; {problem(error)}") from None
        found = {
            str(entry.getKey()): {hit.docid: float(hit.score) for hit in entry.getValue()}
            for entry in hits.entrySet().toArray()
        }
        # Anserini leaves out a query whose search failed.
        if failed := [query_id for query_id, _ in chunk if query_id not in found]:
            raise InputError(f"{self._folder}: the search failed for query {failed[0]!r}")
        return found
