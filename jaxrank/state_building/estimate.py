"""What encoding documents will take, from the model and a sample of them, before it begins."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np

from jaxrank.errors import InputError
from jaxrank.models.states import StateArray
from jaxrank.ranking.document_states.formats import StateDType, stored_bytes
from jaxrank.state_building.figures import in_bytes, in_time
from jaxrank.text.buckets import bucket_for, length_buckets
from jaxrank.text.document_first import DocumentFirst

Encode = Callable[[Sequence[tuple[str, str]]], object]
"""Computes the states of documents, ids with texts."""

# Documents whose lengths are looked at: the mean of so many is known to a few per cent.
_SAMPLE = 512
# Timing computes as many documents as two parts in so many of the work, and never more.
_PARTS = 16


@dataclass(frozen=True)
class Sample:
    """Some of the documents that are to be encoded, evenly from all of them."""

    texts: list[tuple[str, str]]
    """Ids and texts."""
    lengths: list[int]
    """Their tokens."""
    total: int
    """Documents that are to be encoded."""

    def num_bytes(self, arrays: Sequence[StateArray], dtype: StateDType) -> int:
        """What the states of all documents take; exact where lengths do not matter.

        Args:
            arrays: what is kept of a document.
            dtype: what it is kept in.
        """
        each = [stored_bytes(arrays, dtype, length) for length in self.lengths]
        return round(float(np.mean(each)) * self.total)

    def seconds(self, encode: Encode, *, batch_size: int, document_budget: int) -> float | None:
        """How long all take, from the time for those of middling length.

        Work grows with the tokens that are computed, padding included, and each length that texts
        are padded to is compiled once, the timed one here already if its batch is a full one. None
        where there are too few documents for timing some to be worth it.

        Args:
            encode: computes documents together, and will do the work.
            batch_size: documents that are computed together in the work.
            document_budget: tokens of the longest document.
        """
        rows = rows_to_time(self.total, batch_size)
        if not rows:
            return None
        buckets = length_buckets(document_budget)
        padded = [bucket_for(length, buckets) for length in self.lengths]
        order = np.argsort(padded, kind="stable")
        begin = (len(order) - rows) // 2
        middle = order[begin : begin + rows].tolist()
        timed = [self.texts[index] for index in middle]
        first_s, again_s = _time(encode, timed), _time(encode, timed)
        per_token_s = again_s / (rows * max(padded[index] for index in middle))
        lengths_to_compile = len(set(padded)) - (rows == batch_size)
        compiling_s = max(first_s - again_s, 0.0) * lengths_to_compile
        return per_token_s * float(np.mean(padded)) * self.total + compiling_s


def draw_sample(
    tokenizer: DocumentFirst, documents: Mapping[str, str], document_ids: Sequence[str]
) -> Sample:
    """Read some documents, evenly from all.

    Args:
        tokenizer: its counts of what was cut grow by the sample's.
        documents: id -> text.
        document_ids: those that are to be encoded, at least one.
    """
    step = -(-len(document_ids) // _SAMPLE)
    texts = [(name, documents[name]) for name in document_ids[::step]]
    lengths = [len(ids) for ids in tokenizer.documents(text for _, text in texts)]
    return Sample(texts, lengths, len(document_ids))


def rows_to_time(documents: int, batch_size: int) -> int:
    """Documents of a timed sample: a number of rows that batches have, or 0 if there are few."""
    most = min(batch_size, documents // _PARTS)
    return max((rows for rows in (batch_size, 8, 1) if rows <= most), default=0)


def estimate_line(
    documents: int, num_bytes: int, seconds: float | None, *, is_exact: bool = True
) -> str:
    """The estimate in words.

    Args:
        is_exact: whether the states of all documents are of one size.
    """
    each = f"{num_bytes / documents:,.0f} bytes each"
    if not is_exact:
        each = f"about {each}, by their tokens"
    size = f"{documents:,} documents to read, {each}: {in_bytes(num_bytes)}"
    if seconds is None:
        return f"{size}; too few to estimate the time"
    rate = documents / max(seconds, 1e-9)
    return f"{size}; estimated {in_time(seconds)}, {rate:,.1f} documents/s"


def _time(encode: Encode, documents: Sequence[tuple[str, str]]) -> float:
    start = perf_counter()
    encode(documents)
    return perf_counter() - start


def check_disk(folder: Path, num_bytes: int, documents: int) -> None:
    """Refuse what does not fit on the disk of `folder`, which need not be there yet.

    Raises:
        InputError: with the figures.
    """
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if num_bytes > free:
        raise InputError(
            f"{folder}: the states of {documents:,} documents take {in_bytes(num_bytes)}, and its "
            f"disk has {in_bytes(free)} free; make room, choose fewer documents (--documents, "
            "--runs) or a smaller --dtype"
        )
