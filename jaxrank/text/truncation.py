"""How long pairs of texts are cut, many at a time, and what the cutting costs."""

import operator
from dataclasses import astuple, dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int


class Kept(NamedTuple):
    """How many tokens of each pair's query and document are kept."""

    query: Int[np.ndarray, " n"]
    document: Int[np.ndarray, " n"]


@dataclass(frozen=True)
class TruncationCounts:
    """What tokenising cost: how many texts were cut, and by how many tokens."""

    pairs: int = 0
    truncated_queries: int = 0
    truncated_documents: int = 0
    lost_query_tokens: int = 0
    lost_document_tokens: int = 0
    empty_documents: int = 0

    def __add__(self, other: "TruncationCounts") -> "TruncationCounts":
        return TruncationCounts(*map(sum, zip(astuple(self), astuple(other), strict=True)))

    def summary(self) -> str:
        """One line for a command to print."""
        return (
            f"{self.pairs:,} pairs tokenised: {self.truncated_queries:,} queries cut "
            f"({self.lost_query_tokens:,} tokens lost), {self.truncated_documents:,} documents cut "
            f"({self.lost_document_tokens:,} tokens lost), {self.empty_documents:,} empty documents"
        )


@dataclass(frozen=True)
class SideCounts:
    """What tokenising one side of pairs cost, documents without queries or queries alone."""

    texts: int = 0
    truncated: int = 0
    lost_tokens: int = 0
    empty: int = 0

    def __add__(self, other: "SideCounts") -> "SideCounts":
        return SideCounts(*map(sum, zip(astuple(self), astuple(other), strict=True)))

    def __sub__(self, other: "SideCounts") -> "SideCounts":
        """What came to `other` since."""
        return SideCounts(*map(operator.sub, astuple(self), astuple(other)))

    def summary(self, what: str) -> str:
        """One line for a command to print; `what` names the texts, e.g. "documents"."""
        return (
            f"{self.texts:,} {what} tokenised: {self.truncated:,} cut "
            f"({self.lost_tokens:,} tokens lost), {self.empty:,} empty"
        )


def cut_longest_first(
    query_lengths: Int[np.ndarray, " n"], document_lengths: Int[np.ndarray, " n"], room: int
) -> Kept:
    """Lengths after cutting the longer text down to the other, then both to halves.

    Follows `truncate_encodings` in the tokenizers library (utils/truncation.rs), where the longer
    text gets the odd token.
    """
    shorter = np.minimum(query_lengths, document_lengths)
    longer = np.maximum(query_lengths, document_lengths)
    longer = np.where(shorter + longer > room, np.maximum(shorter, room - shorter), longer)
    is_halved = shorter + longer > room
    shorter = np.where(is_halved, room // 2, shorter)
    longer = np.where(is_halved, room - room // 2, longer)
    is_query_longer = query_lengths > document_lengths
    return Kept(
        np.where(is_query_longer, longer, shorter), np.where(is_query_longer, shorter, longer)
    )


def count_cuts(
    query_lengths: Int[np.ndarray, " n"],
    document_lengths: Int[np.ndarray, " n"],
    kept: Kept,
    *,
    is_empty: Bool[np.ndarray, " n"],
) -> TruncationCounts:
    """What keeping `kept` tokens costs pairs of these lengths.

    Args:
        is_empty: whether the document is blank.
    """
    lost_of_queries = query_lengths - kept.query
    lost_of_documents = document_lengths - kept.document
    return TruncationCounts(
        pairs=len(query_lengths),
        truncated_queries=int(np.count_nonzero(lost_of_queries)),
        truncated_documents=int(np.count_nonzero(lost_of_documents)),
        lost_query_tokens=int(lost_of_queries.sum()),
        lost_document_tokens=int(lost_of_documents.sum()),
        empty_documents=int(np.count_nonzero(is_empty)),
    )
