"""The two sides of a template that puts the document first: each becomes ids by itself.

A pair's ids are those of its document's side and behind them those of its query's side, so a
causal model can read the first once and go on with the second for every query. That holds where
neither side's ids depend on the other text: with a template of segments, document first, and a
budget of its own for each side.
"""

import json
import threading
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from typing import Any

import numpy as np
from jaxtyping import Int, Int32

from jaxrank.errors import InputError
from jaxrank.text.layout import Fixed, Slot
from jaxrank.text.templates import Field
from jaxrank.text.tokenize import PairTokenizer
from jaxrank.text.truncation import SideCounts, TruncationCounts

# Of a tokenizer's JSON, what has no part in turning a text into ids without special tokens.
_WITHOUT_EFFECT = ("version", "truncation", "padding", "post_processor", "decoder")

_MEND = "train with a template that puts the document first, e.g. 'paper-decoder'"


class DocumentFirst:
    """Tokenises documents and queries apart; safe to call from several threads.

    `documents([d])[0]` and `queries([q])[0]` joined are exactly the ids of
    `PairTokenizer.encode([(q, d)])`, cuts included. What stands between the two fields belongs to
    the document's side. Token types are 0 throughout. What is cut counts by side, and among the
    counts of the pairs' tokenizer.

    Args:
        tokenizer: of pairs; gives the template, the budgets and the tokens.

    Raises:
        InputError: the sides of this template depend on each other.
    """

    def __init__(self, tokenizer: PairTokenizer) -> None:
        template = tokenizer.template
        where = f"document states: template {template.name!r}"
        if template.is_pair:
            raise InputError(
                f"{where} cuts the longer text first, so what is kept of a document depends on its "
                f"query; {_MEND}"
            )
        slots = [part for part in tokenizer.layout if isinstance(part, Slot)]
        if slots[0].field == "query":
            raise InputError(
                f"{where} puts the query first, so a document's state depends on it; {_MEND}"
            )
        if template.document_budget != "fixed":
            raise InputError(
                f"{where} gives the document what the query leaves of max_length, so what is kept "
                f"of it depends on its query; {_MEND}"
            )
        self._tokenizer = tokenizer
        self.template = template
        query_at = next(i for i, part in enumerate(tokenizer.layout) if part is slots[1])
        self._document_parts = tokenizer.layout[:query_at]
        self._query_parts = tokenizer.layout[query_at:]
        self.document_budget = tokenizer.document_budget + _fixed_ids(self._document_parts)
        """The most tokens of a document's side, with all that stands around its text."""
        self.query_budget = tokenizer.query_budget + _fixed_ids(self._query_parts)
        """The most tokens of a query's side; with the document's budget they are max_length."""
        self._counts: dict[Field, SideCounts] = {"document": SideCounts(), "query": SideCounts()}
        self._lock = threading.Lock()

    @property
    def pad_token_id(self) -> int:
        """What padding holds."""
        return self._tokenizer.pad_token_id

    @property
    def digest(self) -> str:
        """SHA-256 of all that a document's ids depend on but the text and the budget.

        Neither the library's version nor what only a query's side has goes into it.
        """
        definition: dict[str, Any] = json.loads(self._tokenizer.definition)
        for name in _WITHOUT_EFFECT:
            definition.pop(name, None)
        parts = [
            part.ids.tolist() if isinstance(part, Fixed) else part.literal
            for part in self._document_parts
        ]
        return sha256(json.dumps([definition, parts], sort_keys=True).encode()).hexdigest()

    @property
    def document_counts(self) -> SideCounts:
        """What was cut of all documents so far."""
        with self._lock:
            return self._counts["document"]

    @property
    def query_counts(self) -> SideCounts:
        """What was cut of all queries so far."""
        with self._lock:
            return self._counts["query"]

    def budget_of(self, field: Field) -> int:
        """The most tokens of a field's side."""
        return self.document_budget if field == "document" else self.query_budget

    def lengths(self, field: Field, text_lengths: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """The lengths of sides whose texts have so many tokens before they are cut."""
        text = self._text_budget(field)
        return np.minimum(text_lengths, text) + (self.budget_of(field) - text)

    def documents(self, texts: Iterable[str]) -> list[Int32[np.ndarray, " L"]]:
        """The ids of documents, at most `document_budget` each; what is cut is counted."""
        return list(self._sides("document", texts))

    def queries(self, texts: Iterable[str]) -> list[Int32[np.ndarray, " L"]]:
        """The ids of queries, at most `query_budget` each; what is cut is counted."""
        return list(self._sides("query", texts))

    def side(self, field: Field, ids: np.ndarray) -> Int32[np.ndarray, " L"]:
        """A side from its text's own ids, as `PairTokenizer.tokenise` gives them; not counted."""
        kept = ids[: self._text_budget(field)]
        parts = self._document_parts if field == "document" else self._query_parts
        pieces = [part.ids if isinstance(part, Fixed) else kept for part in parts]
        return np.concatenate(pieces, dtype=np.int32)

    def _sides(self, field: Field, texts: Iterable[str]) -> Iterator[np.ndarray]:
        counts = SideCounts()
        for text in self._tokenizer.tokenise(field, texts):
            lost = max(text.length - self._text_budget(field), 0)
            counts += SideCounts(1, int(lost > 0), lost, int(text.is_empty))
            yield self.side(field, text.input_ids)
        self._count(field, counts)

    def _text_budget(self, field: Field) -> int:
        """The most tokens of a field's own segment."""
        tokenizer = self._tokenizer
        return tokenizer.document_budget if field == "document" else tokenizer.query_budget

    def _count(self, field: Field, counts: SideCounts) -> None:
        with self._lock:
            self._counts[field] += counts
        cut, lost = counts.truncated, counts.lost_tokens
        self._tokenizer.add_counts(
            TruncationCounts(
                truncated_documents=cut, lost_document_tokens=lost, empty_documents=counts.empty
            )
            if field == "document"
            else TruncationCounts(truncated_queries=cut, lost_query_tokens=lost)
        )


def _fixed_ids(parts: Sequence[Fixed | Slot]) -> int:
    return sum(len(part.ids) for part in parts if isinstance(part, Fixed))
