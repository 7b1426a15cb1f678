"""What every first stage offers: candidates for queries, query by query or as a run."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping

from jaxrank.errors import InputError
from jaxrank.evaluation.runs import Run

DEFAULT_K1 = 0.9
DEFAULT_B = 0.4


class FirstStage(ABC):
    """An index over a collection, whatever engine is behind it."""

    @abstractmethod
    def results(
        self, queries: Mapping[str, str], *, depth: int, progress: bool = False
    ) -> Iterator[tuple[str, dict[str, float]]]:
        """Yield the best `depth` documents of each query, so that no run need fit into memory.

        A document that shares no word with a query is never a candidate. Of documents with equal
        scores those with the lower ids come first, at the last rank too.

        Args:
            queries: query id -> text.
            depth: documents a query gets at most.
            progress: whether to draw a progress bar.

        Yields:
            Query id and document id -> score, best first, in the order of `queries`. Queries that
            match nothing are left out; callers count them.

        Raises:
            InputError: a depth below 1.
        """

    def search(self, queries: Mapping[str, str], *, depth: int, progress: bool = False) -> Run:
        """What `results` yields, as a run in memory."""
        return dict(self.results(queries, depth=depth, progress=progress))


def check_parameters(k1: float, b: float) -> None:
    """Refuse parameters that BM25 does not have, by the names of the command's options."""
    if not 0 <= k1 < float("inf"):
        raise InputError(f"k1: {k1}; a finite number of at least 0 is needed")
    if not 0 <= b <= 1:
        raise InputError(f"b: {b}; a number from 0 to 1 is needed")


def check_depth(depth: int) -> None:
    """Refuse a depth without candidates."""
    if depth < 1:
        raise InputError(f"depth: {depth}; at least 1 is needed")
