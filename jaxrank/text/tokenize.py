"""From pairs of texts to token ids: a template's wording, its budgets, and counts of what was cut.

Three steps, which can be taken apart: `tokenise` turns texts into ids, without special tokens and
in parallel in the tokenizer's own threads; `cut` says how many ids of each text a pair keeps;
`join` writes them, with what the template puts around them, to any places of an array. `encode` is
all three. For `pair` the result is exactly `tokenizer(query, document, truncation="longest_first",
max_length=n)`.
"""

import json
import threading
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from itertools import islice, pairwise
from typing import NamedTuple

import numpy as np
import tokenizers
from jaxtyping import Int, Int32
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from jaxrank.errors import InputError
from jaxrank.progress import track
from jaxrank.text.layout import Fixed, Slot, make_layout
from jaxrank.text.pairs import TokenizedPair, pad_pairs
from jaxrank.text.templates import Field, TextConfig, get_template
from jaxrank.text.tokenizer_files import load_tokenizer
from jaxrank.text.truncation import Kept, TruncationCounts, count_cuts, cut_longest_first

__all__ = [
    "PairTokenizer",
    "TokenizedPair",
    "TokenizedText",
    "TruncationCounts",
    "load_tokenizer",
    "pad_pairs",
]

_TEXTS_AT_ONCE = 512  # bounds the memory that the tokenizer's intermediate results take


class TokenizedText(NamedTuple):
    """One query or document as ids, its field's literal text included."""

    input_ids: np.ndarray
    """The first `max_length` ids."""
    length: int
    """How many there are without cutting."""
    is_empty: bool
    """Whether the text is blank."""


class PairTokenizer:
    """Encodes (query, document) pairs with a template; safe to call from several threads.

    Args:
        tokenizer: a fast tokenizer; it is copied, so its own truncation settings do not matter.
        text: template and budgets.

    Raises:
        InputError: an unknown template, one that this tokenizer cannot express, or budgets that
            leave no room for the query or the document.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, text: TextConfig) -> None:
        self.text = text
        self.template = get_template(text.template)
        self._tokenizer = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.vocabulary_size = max(self._tokenizer.get_vocab().values()) + 1
        """Every id is below it; an embedding needs at least so many rows."""
        pad = tokenizer.pad_token_id
        self.pad_token_id: int = pad if pad is not None else tokenizer.eos_token_id or 0
        """What padding holds: the tokenizer's pad token, else its end of sequence, else 0."""
        self.layout = make_layout(self.template, self._tokenizer, tokenizer)
        slots = [part for part in self.layout if isinstance(part, Slot)]
        fixed = [part for part in self.layout if isinstance(part, Fixed)]
        self._literals = {slot.field: slot.literal for slot in slots}
        self.room = text.max_length - sum(len(part.ids) for part in fixed)
        self.query_budget, self.document_budget = self._budgets()
        self._counts = TruncationCounts()
        self._lock = threading.Lock()

    @property
    def counts(self) -> TruncationCounts:
        """The sum over all calls of `encode` so far."""
        with self._lock:
            return self._counts

    def encode(
        self, pairs: Sequence[tuple[str, str]], *, progress: bool = False
    ) -> list[TokenizedPair]:
        """Token ids of (query, document) pairs, at most `max_length` each, and count the cuts.

        Args:
            progress: whether to draw a bar.

        Raises:
            InputError: a pair without a single token.
        """
        encoded, counts = self.encode_and_count(pairs, progress=progress)
        self.add_counts(counts)
        return encoded

    def encode_and_count(
        self, pairs: Sequence[tuple[str, str]], *, progress: bool = False
    ) -> tuple[list[TokenizedPair], TruncationCounts]:
        """As `encode`, but the counts are returned for these pairs and not added to `counts`."""
        queries = self._tokenise_each("query", [query for query, _ in pairs], progress)
        documents = self._tokenise_each("document", [document for _, document in pairs], progress)
        query_lengths = np.array([text.length for text in queries], np.int64)
        document_lengths = np.array([text.length for text in documents], np.int64)
        kept = self.cut(query_lengths, document_lengths)
        ends = np.cumsum(self.lengths(kept))
        total = int(ends[-1]) if len(pairs) else 0
        input_ids, token_type_ids = np.empty(total, np.int32), np.zeros(total, np.int32)
        self.join(
            [text.input_ids for text in queries],
            [text.input_ids for text in documents],
            kept,
            starts=ends - self.lengths(kept),
            input_ids=input_ids,
            token_type_ids=token_type_ids,
        )
        encoded = [
            TokenizedPair(input_ids[start:end], token_type_ids[start:end])
            for start, end in pairwise([0, *ends.tolist()])
        ]
        is_empty = np.array([text.is_empty for text in documents], np.bool_)
        return encoded, count_cuts(query_lengths, document_lengths, kept, is_empty=is_empty)

    @property
    def definition(self) -> str:
        """What turns a text into ids: the tokenizer as its library writes it, in JSON."""
        return self._tokenizer.to_str()

    def digest(self, field: Field) -> str:
        """SHA-256 of all that a field's ids depend on but the text, the library's version too."""
        parts = [self.definition, self._literals[field], self.text.max_length]
        return sha256(json.dumps([tokenizers.__version__, *parts]).encode()).hexdigest()

    def add_counts(self, counts: TruncationCounts) -> None:
        """Add to `counts` what was cut of pairs that are not encoded by `encode`."""
        with self._lock:
            self._counts += counts

    def tokenise(self, field: Field, texts: Iterable[str]) -> Iterator[TokenizedText]:
        """The ids of queries or of documents, one by one."""
        literal = self._literals[field]
        remaining = iter(texts)
        while chunk := list(islice(remaining, _TEXTS_AT_ONCE)):
            encodings = self._tokenizer.encode_batch_fast(
                [literal + text for text in chunk], add_special_tokens=False
            )
            for text, encoding in zip(chunk, encodings, strict=True):
                ids = encoding.ids
                first = np.array(ids[: self.text.max_length], np.int32)
                yield TokenizedText(first, len(ids), not text.strip())

    def token_ends(self, field: Field, text: str) -> Int[np.ndarray, " n"]:
        """Where in a text each of its tokens ends, in characters, ascending; nothing is cut.

        Tokens of the literal text in front of the field end at 0 or below.
        """
        literal = self._literals[field]
        encoding = self._tokenizer.encode(literal + text, add_special_tokens=False)
        return np.array([end for _, end in encoding.offsets], np.int64) - len(literal)

    def cut(
        self, query_lengths: Int[np.ndarray, " n"], document_lengths: Int[np.ndarray, " n"]
    ) -> Kept:
        """How many ids of texts of these lengths each pair keeps."""
        if self.template.is_pair:
            return cut_longest_first(query_lengths, document_lengths, self.room)
        query = np.minimum(query_lengths, self.query_budget)
        is_fixed = self.template.document_budget == "fixed"
        room = self.document_budget if is_fixed else self.room - query
        return Kept(query, np.minimum(document_lengths, room))

    def lengths(self, kept: Kept) -> Int[np.ndarray, " n"]:
        """The lengths of pairs, with all that the template puts around their texts."""
        return kept.query + kept.document + (self.text.max_length - self.room)

    def join(
        self,
        queries: Sequence[np.ndarray],
        documents: Sequence[np.ndarray],
        kept: Kept,
        *,
        starts: Int[np.ndarray, " n"],
        input_ids: Int32[np.ndarray, " length"],
        token_type_ids: Int32[np.ndarray, " length"],
    ) -> None:
        """Write pairs into arrays, pair i to the places from `starts[i]` on.

        Args:
            queries: ids of each pair's query, at least as many as are kept.
            documents: ids of each pair's document.
            kept: what `cut` says.
            starts: places in the arrays; pairs must not touch.
            input_ids: written to.
            token_type_ids: written to; must be 0 before.

        Raises:
            InputError: a pair without a single token.
        """
        if not self.lengths(kept).all():
            raise InputError("a pair without a single token: query and document are both empty")
        places = starts.copy()
        for part in self.layout:
            if isinstance(part, Fixed):
                where = places[:, None] + np.arange(len(part.ids))
                input_ids[where] = part.ids
                token_type_ids[where] = part.token_type_ids
                places += len(part.ids)
                continue
            texts = queries if part.field == "query" else documents
            sizes = kept.query if part.field == "query" else kept.document
            # Copying slices is several times faster than indexing with an array of all places.
            for ids, start, size in zip(texts, places.tolist(), sizes.tolist(), strict=True):
                input_ids[start : start + size] = ids[:size]
                if part.token_type:
                    token_type_ids[start : start + size] = part.token_type
            places += sizes

    def _tokenise_each(
        self, field: Field, texts: Sequence[str], progress: bool
    ) -> list[TokenizedText]:
        """The ids of all texts; equal ones are tokenised once."""
        unique = list(dict.fromkeys(texts))
        tokenized = track(
            self.tokenise(field, unique),
            description="tokenising",
            unit=field,
            enabled=progress,
            total=len(unique),
        )
        found = dict(zip(unique, tokenized, strict=True))
        return [found[text] for text in texts]

    def _budgets(self) -> tuple[int, int]:
        """The most tokens that a query's and a document's segment may take, literals included."""
        if self.template.is_pair:
            if self.room < 1:
                raise InputError(
                    f"max_length: got {self.text.max_length}, which the special tokens fill"
                )
            return self.room, self.room
        needed = {field: self._count(text) for field, text in self._literals.items()}
        query_length = self.text.query_length or self.template.query_length
        if query_length is None:
            query = self.room - needed["document"] - 1
        else:
            query = query_length - (self.text.max_length - self.room)
        document = self.room - query
        if query <= needed["query"] or document <= needed["document"]:
            raise InputError(
                f"max_length {self.text.max_length} with query_length {query_length} leaves "
                f"{query} tokens for the query and {document} for the document; the template "
                f"{self.template.name!r} needs more than {needed['query']} and "
                f"{needed['document']}: raise max_length or change query_length"
            )
        return query, document

    def _count(self, text: str) -> int:
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)
