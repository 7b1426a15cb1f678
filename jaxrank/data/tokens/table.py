"""The ids of texts: tokenised once, joined to pairs as often as training likes.

Here they are in memory; `store` keeps them on disk.
"""

from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int, Int64, Integer

from jaxrank.data.groups import Group
from jaxrank.progress import track
from jaxrank.text.templates import Field
from jaxrank.text.tokenize import PairTokenizer, TokenizedText


class TokenTable(ABC):
    """The ids of texts by name, wherever they lie. Reading is safe from several threads.

    Attributes:
        lengths: how many tokens each text has without cutting.
        is_empty: which texts are blank.
    """

    lengths: Int64[np.ndarray, " texts"]
    is_empty: Bool[np.ndarray, " texts"]

    @property
    @abstractmethod
    def num_tokens(self) -> int:
        """Tokens of all texts, after cutting at `max_length`."""

    @property
    @abstractmethod
    def num_bytes(self) -> int:
        """Memory that the ids take, or disk."""

    def __len__(self) -> int:
        return len(self.lengths)

    @abstractmethod
    def find(self, names: Iterable[str]) -> Int64[np.ndarray, " n"]:
        """The numbers of texts, in the order of their names.

        Raises:
            KeyError: a text that is not there.
        """

    @abstractmethod
    def read(self, rows: Int[np.ndarray, " n"]) -> list[np.ndarray]:
        """The ids of texts, each one's first `max_length`: views, not copies."""


@dataclass(frozen=True)
class TokensInMemory(TokenTable):
    """One text after the other in one array."""

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

    @property
    def num_tokens(self) -> int:
        """Tokens of all texts, after cutting at `max_length`."""
        return len(self.ids)

    @property
    def num_bytes(self) -> int:
        """Memory that the ids take."""
        return self.ids.nbytes

    def find(self, names: Iterable[str]) -> Int64[np.ndarray, " n"]:
        """The numbers of texts, in the order of their names; KeyError for one not there."""
        return np.array([self.rows[name] for name in names], np.int64)

    def read(self, rows: Int[np.ndarray, " n"]) -> list[np.ndarray]:
        """The ids of texts: views, not copies."""
        starts, ends = self.offsets[rows].tolist(), self.offsets[rows + 1].tolist()
        return [self.ids[start:end] for start, end in zip(starts, ends, strict=True)]


@dataclass(frozen=True)
class GroupTokens:
    """All queries and documents that some groups name, as ids."""

    queries: TokenTable
    documents: TokenTable

    @property
    def num_tokens(self) -> int:
        """Tokens of all texts, after cutting at `max_length`."""
        return self.queries.num_tokens + self.documents.num_tokens

    def summary(self) -> str:
        """One line for a command to print."""
        size = (self.queries.num_bytes + self.documents.num_bytes) / 2**20
        return (
            f"pretokenised {len(self.queries):,} queries and {len(self.documents):,} documents: "
            f"{self.num_tokens / 1e6:,.1f} M tokens, {size:,.0f} MiB"
        )


class TokenColumns:
    """Tokenised texts one after the other, column by column, while they come in.

    Args:
        vocabulary_size: every id is below it; ids take two bytes where it allows, else four.
    """

    def __init__(self, vocabulary_size: int) -> None:
        # A growing `array` is never copied as a whole, so there is no moment at which memory holds
        # everything twice.
        self._ids = array("H" if vocabulary_size <= 2**16 else "i")
        self._dtype = np.dtype(self._ids.typecode)
        self._offsets, self._lengths = array("q", [0]), array("q")
        self._is_empty = array("b")

    def append(self, text: TokenizedText) -> None:
        """Add a text behind the others."""
        self._ids.frombytes(text.input_ids.astype(self._dtype).tobytes())
        self._offsets.append(len(self._ids))
        self._lengths.append(text.length)
        self._is_empty.append(text.is_empty)

    def __len__(self) -> int:
        return len(self._lengths)

    @property
    def num_tokens(self) -> int:
        """Ids so far."""
        return len(self._ids)

    @property
    def ids(self) -> Integer[np.ndarray, " tokens"]:
        """The ids of all texts; a view, as the rest: nothing is appended while one lives."""
        return np.frombuffer(self._ids, self._dtype)

    @property
    def offsets(self) -> Int64[np.ndarray, " starts"]:
        """Where each text begins in `ids`, and where the last one ends."""
        return np.frombuffer(self._offsets, np.int64)

    @property
    def lengths(self) -> Int64[np.ndarray, " texts"]:
        """How many tokens each text has without cutting."""
        return np.frombuffer(self._lengths, np.int64)

    @property
    def is_empty(self) -> Bool[np.ndarray, " texts"]:
        """Which texts are blank."""
        return np.frombuffer(self._is_empty, np.bool_)


def tokenise_texts(
    field: Field,
    names: Sequence[str],
    texts: Mapping[str, str],
    tokenizer: PairTokenizer,
    *,
    progress: bool = False,
) -> TokensInMemory:
    """Tokenise the texts of these names, which are each there once.

    Args:
        texts: name -> text; one text after the other is read.
        progress: whether to draw a bar.

    Raises:
        KeyError: a name without a text.
    """
    tokens = TokenColumns(tokenizer.vocabulary_size)
    tokenized = track(
        tokenizer.tokenise(field, (texts[name] for name in names)),
        description="pretokenising",
        unit=field,
        enabled=progress,
        total=len(names),
    )
    for text in tokenized:
        tokens.append(text)
    rows = {name: row for row, name in enumerate(names)}
    return TokensInMemory(
        rows,
        ids=tokens.ids,
        lengths=tokens.lengths,
        offsets=tokens.offsets,
        is_empty=tokens.is_empty,
    )


def tokenise_groups(
    groups: Iterable[Group],
    queries: Mapping[str, str],
    documents: Mapping[str, str],
    tokenizer: PairTokenizer,
    *,
    progress: bool = False,
) -> GroupTokens:
    """Tokenise every query and document that the groups name, each once.

    Args:
        queries: query id -> text.
        documents: document id -> text.
        tokenizer: its template's literal texts and its `max_length` are part of what is stored.
        progress: whether to draw a bar.
    """
    names = named_texts(groups)
    return GroupTokens(
        tokenise_texts("query", names["query"], queries, tokenizer, progress=progress),
        tokenise_texts("document", names["document"], documents, tokenizer, progress=progress),
    )


def named_texts(groups: Iterable[Group]) -> dict[Field, list[str]]:
    """The ids of the queries and of the documents that groups name, each once."""
    query_ids: dict[str, None] = {}
    document_ids: dict[str, None] = {}
    for group in groups:
        query_ids[group.query_id] = None
        document_ids[group.positive_id] = None
        document_ids.update(dict.fromkeys(group.negative_ids))
    return {"query": list(query_ids), "document": list(document_ids)}
