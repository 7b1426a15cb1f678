"""The ids of texts in memory: tokenised once, joined to pairs as often as training likes."""

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int, Int64, Integer

from jaxrank.data.groups import Group
from jaxrank.progress import track
from jaxrank.text.templates import Field
from jaxrank.text.tokenize import PairTokenizer


@dataclass(frozen=True)
class TokenTable:
    """The ids of texts by name, one text after the other in one array."""

    rows: Mapping[str, int]
    """Name -> number of the text."""
    ids: Integer[np.ndarray, " tokens"]
    """uint16 where the vocabulary allows, else int32; each text's first `max_length`."""
    lengths: Int64[np.ndarray, " texts"]
    """How many tokens each text has without cutting."""
    offsets: Int64[np.ndarray, " texts+1"]
    """Where each text begins in `ids`, and where the last one ends."""
    is_empty: Bool[np.ndarray, " texts"]
    """Which texts are blank."""

    def find(self, names: Iterable[str]) -> Int64[np.ndarray, " n"]:
        """The numbers of texts, in the order of their names.

        Raises:
            KeyError: a text that is not there.
        """
        return np.array([self.rows[name] for name in names], np.int64)

    def read(self, rows: Int[np.ndarray, " n"]) -> list[np.ndarray]:
        """The ids of texts: views, not copies."""
        starts, ends = self.offsets[rows].tolist(), self.offsets[rows + 1].tolist()
        return [self.ids[start:end] for start, end in zip(starts, ends, strict=True)]


@dataclass(frozen=True)
class TokenStore:
    """All queries and documents that some groups name, as ids."""

    queries: TokenTable
    documents: TokenTable

    @property
    def num_tokens(self) -> int:
        """Tokens in memory, after cutting at `max_length`."""
        return len(self.queries.ids) + len(self.documents.ids)

    def summary(self) -> str:
        """One line for a command to print."""
        size = (self.queries.ids.nbytes + self.documents.ids.nbytes) / 2**20
        return (
            f"pretokenised {len(self.queries.rows):,} queries and {len(self.documents.rows):,} "
            f"documents: {self.num_tokens / 1e6:,.1f} M tokens, {size:,.0f} MiB"
        )


def tokenise_texts(
    field: Field,
    names: Sequence[str],
    texts: Mapping[str, str],
    tokenizer: PairTokenizer,
    *,
    progress: bool = False,
) -> TokenTable:
    """Tokenise the texts of these names, which are each there once.

    Args:
        texts: name -> text; one text after the other is read.
        progress: whether to draw a bar.

    Raises:
        KeyError: a name without a text.
    """
    # A growing `array` is never copied as a whole, so there is no moment at which memory holds
    # everything twice.
    ids = array("H" if tokenizer.vocabulary_size <= 2**16 else "i")
    dtype = np.dtype(ids.typecode)
    offsets, lengths = np.zeros(len(names) + 1, np.int64), np.zeros(len(names), np.int64)
    is_empty = np.zeros(len(names), np.bool_)
    tokenized = track(
        tokenizer.tokenise(field, (texts[name] for name in names)),
        description="pretokenising",
        unit=field,
        enabled=progress,
        total=len(names),
    )
    for row, text in enumerate(tokenized):
        ids.frombytes(text.input_ids.astype(dtype).tobytes())
        offsets[row + 1] = len(ids)
        lengths[row] = text.length
        is_empty[row] = text.is_empty
    rows = {name: row for row, name in enumerate(names)}
    return TokenTable(rows, np.frombuffer(ids, dtype), lengths, offsets, is_empty)


def tokenise_groups(
    groups: Iterable[Group],
    queries: Mapping[str, str],
    documents: Mapping[str, str],
    tokenizer: PairTokenizer,
    *,
    progress: bool = False,
) -> TokenStore:
    """Tokenise every query and document that the groups name, each once.

    Args:
        queries: query id -> text.
        documents: document id -> text.
        tokenizer: its template's literal texts and its `max_length` are part of what is stored.
        progress: whether to draw a bar.
    """
    query_ids: dict[str, None] = {}
    document_ids: dict[str, None] = {}
    for group in groups:
        query_ids[group.query_id] = None
        document_ids[group.positive_id] = None
        document_ids.update(dict.fromkeys(group.negative_ids))
    return TokenStore(
        tokenise_texts("query", list(query_ids), queries, tokenizer, progress=progress),
        tokenise_texts("document", list(document_ids), documents, tokenizer, progress=progress),
    )
