"""From pairs of texts to token ids: a template's wording, its budgets, and counts of what was cut.

Texts are tokenised without special tokens and without truncation, each distinct one once a call,
in parallel in the tokenizer's own threads; cutting and joining is done here on ids. For `pair` the
result is exactly `tokenizer(query, document, truncation="longest_first", max_length=n)`.
"""

import threading
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass

import numpy as np
from jaxtyping import Bool, Int32
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from jaxrank.errors import InputError
from jaxrank.progress import progress_bar
from jaxrank.text.layout import Fixed, Slot, make_layout
from jaxrank.text.templates import Field, TextConfig, get_template
from jaxrank.text.tokenizer_files import load_tokenizer

__all__ = ["PairTokenizer", "TokenizedPair", "TruncationCounts", "load_tokenizer", "pad_pairs"]

_TEXTS_AT_ONCE = 512  # bounds the memory that the tokenizer's intermediate results take


@dataclass(frozen=True, slots=True)
class TokenizedPair:
    """One query and one document as a sequence of tokens, without padding."""

    input_ids: Int32[np.ndarray, " L"]
    token_type_ids: Int32[np.ndarray, " L"]


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
        with self._lock:
            self._counts += counts
        return encoded

    def encode_and_count(
        self, pairs: Sequence[tuple[str, str]], *, progress: bool = False
    ) -> tuple[list[TokenizedPair], TruncationCounts]:
        """As `encode`, but the counts are returned for these pairs and not added to `counts`."""
        queries = self._tokenise("query", (query for query, _ in pairs), progress)
        documents = self._tokenise("document", (document for _, document in pairs), progress)
        encoded = []
        lost = np.zeros((len(pairs), 2), np.int64)
        for row, (query, document) in enumerate(pairs):
            query_ids, query_length = queries[query]
            document_ids, document_length = documents[document]
            query_kept, document_kept = self._kept(query_length, document_length)
            lost[row] = query_length - query_kept, document_length - document_kept
            encoded.append(self._join(query_ids[:query_kept], document_ids[:document_kept]))
        truncated_queries, truncated_documents = np.count_nonzero(lost, axis=0).tolist()
        lost_query_tokens, lost_document_tokens = lost.sum(axis=0).tolist()
        return encoded, TruncationCounts(
            pairs=len(pairs),
            truncated_queries=truncated_queries,
            truncated_documents=truncated_documents,
            lost_query_tokens=lost_query_tokens,
            lost_document_tokens=lost_document_tokens,
            empty_documents=sum(not document.strip() for _, document in pairs),
        )

    def _tokenise(
        self, field: Field, texts: Iterable[str], progress: bool
    ) -> dict[str, tuple[np.ndarray, int]]:
        """Text -> (its first `max_length` ids, how many it has), the field's literal included."""
        literal = self._literals[field]
        unique = list(dict.fromkeys(texts))
        found = {}
        with progress_bar(
            description="tokenising", unit=field, enabled=progress, total=len(unique)
        ) as bar:
            for start in range(0, len(unique), _TEXTS_AT_ONCE):
                chunk = unique[start : start + _TEXTS_AT_ONCE]
                encodings = self._tokenizer.encode_batch_fast(
                    [literal + text for text in chunk], add_special_tokens=False
                )
                for text, encoding in zip(chunk, encodings, strict=True):
                    ids = np.array(encoding.ids, np.int32)
                    found[text] = ids[: self.text.max_length].copy(), len(ids)
                bar.update(len(chunk))
        return found

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

    def _kept(self, query_length: int, document_length: int) -> tuple[int, int]:
        """How many ids of each segment are kept."""
        if self.template.is_pair:
            return _longest_first(query_length, document_length, self.room)
        query_kept = min(query_length, self.query_budget)
        is_fixed = self.template.document_budget == "fixed"
        room = self.document_budget if is_fixed else self.room - query_kept
        return query_kept, min(document_length, room)

    def _join(self, query_ids: np.ndarray, document_ids: np.ndarray) -> TokenizedPair:
        ids, types = [], []
        for part in self.layout:
            if isinstance(part, Slot):
                ids.append(query_ids if part.field == "query" else document_ids)
                types.append(np.full(len(ids[-1]), part.token_type, np.int32))
            else:
                ids.append(part.ids)
                types.append(part.token_type_ids)
        joined = np.concatenate(ids)
        if not len(joined):
            raise InputError("a pair without a single token: query and document are both empty")
        return TokenizedPair(joined, np.concatenate(types))


def pad_pairs(
    pairs: Sequence[TokenizedPair], *, length: int, pad_token_id: int, rows: int | None = None
) -> dict[str, Int32[np.ndarray, "B L"] | Bool[np.ndarray, "B L"]]:
    """Stack pairs, padded on the right to `length` tokens.

    Args:
        rows: rows of the batch, at least the number of pairs. Rows beyond the pairs hold one pad
            token with mask True, since attention over nothing at all has no value.

    Returns:
        input_ids, token_type_ids (int32) and mask (bool, True for real tokens).
    """
    rows = len(pairs) if rows is None else rows
    if rows < len(pairs):
        raise ValueError(f"{len(pairs)} pairs do not fit into {rows} rows")
    input_ids = np.full((rows, length), pad_token_id, np.int32)
    token_type_ids = np.zeros((rows, length), np.int32)
    mask = np.zeros((rows, length), np.bool_)
    mask[len(pairs) :, 0] = True
    for row, pair in enumerate(pairs):
        size = len(pair.input_ids)
        if size > length:
            raise ValueError(f"a pair of {size} tokens does not fit into {length}")
        input_ids[row, :size] = pair.input_ids
        token_type_ids[row, :size] = pair.token_type_ids
        mask[row, :size] = True
    return {"input_ids": input_ids, "mask": mask, "token_type_ids": token_type_ids}


def _longest_first(query_length: int, document_length: int, room: int) -> tuple[int, int]:
    """Lengths after cutting the longer text down to the other, then both to halves.

    Follows `truncate_encodings` in the tokenizers library (utils/truncation.rs), where the longer
    text gets the odd token.
    """
    shorter, longer = sorted((query_length, document_length))
    if shorter + longer > room:
        longer = max(shorter, room - shorter)
        if shorter + longer > room:
            shorter = room // 2
            longer = shorter + room % 2
    return (longer, shorter) if query_length > document_length else (shorter, longer)
