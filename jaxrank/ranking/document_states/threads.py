"""Work on many documents at once: reading, checking and copying bytes release Python's lock."""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from jaxrank.ranking.document_states.records import Record

Item = TypeVar("Item")
Result = TypeVar("Result")

_MOST_THREADS = 8
_WORTH_THREADS = 4 << 20  # bytes; below, starting threads takes longer than the work


def in_threads(
    function: Callable[[Item], Result], items: Iterable[Item], *, num_bytes: int
) -> list[Result]:
    """`function` of each item, in their order; the first error is raised.

    Args:
        num_bytes: that all of them together read or copy.
    """
    threads = min(_MOST_THREADS, os.cpu_count() or 1)
    if threads == 1 or num_bytes < _WORTH_THREADS:
        return [function(item) for item in items]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(function, items))


def visit_in_threads(records: Sequence[Record], use: Callable[[int, Record], None]) -> None:
    """Call `use(position, record)` for each record."""
    in_threads(
        lambda position: use(position, records[position]),
        range(len(records)),
        num_bytes=sum(record.nbytes for record in records),
    )
