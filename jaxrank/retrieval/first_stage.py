"""What every first stage offers: candidates for queries, as a run."""

from collections.abc import Mapping
from typing import Protocol

from jaxrank.evaluation.runs import Run


class FirstStage(Protocol):
    """An index over a collection, whatever engine is behind it."""

    def search(self, queries: Mapping[str, str], *, depth: int, progress: bool = False) -> Run:
        """Find the best `depth` documents of each query.

        Args:
            queries: query id -> text.
            depth: documents a query gets at most.
            progress: whether to draw a progress bar.

        Returns:
            A run in the order of `queries`. Queries that match nothing are not in it; callers
            count them.
        """
        ...
