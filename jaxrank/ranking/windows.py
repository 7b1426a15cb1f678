"""Windows over a document: texts short enough for a model, that together hold every word.

A window is sized in tokens of the model's own tokenizer and begins and ends at words. It is a text
like any other, read with the same template and budgets, so that nothing else changes.
"""

import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from jaxrank.errors import InputError
from jaxrank.text.tokenize import PairTokenizer

# What the papers' decoders leave for the query (see `text.templates`), where a template has no
# fixed budget of its own for the document.
_QUERY_LENGTH = 50
_WORD = re.compile(r"\S+")
# A plan is some hundred bytes, so this many cost little; queries of one topic share documents.
_PLANS_KEPT = 4_096


class TitledText(NamedTuple):
    """A document whose title is to stand in front of each of its windows."""

    title: str
    body: str

    @property
    def text(self) -> str:
        """The document as one text."""
        return f"{self.title} {self.body}" if self.title else self.body


@dataclass(frozen=True)
class WindowCounts:
    """What cutting into windows did; a document counts once for each query it is read with."""

    documents: int = 0
    in_several: int = 0
    windows: int = 0
    tokens_beyond_first: int = 0
    without_title: int = 0
    titles_too_long: int = 0

    def __add__(self, other: "WindowCounts") -> "WindowCounts":
        return WindowCounts(*map(sum, zip(astuple(self), astuple(other), strict=True)))

    def lines(self) -> list[str]:
        """Lines for a command to print."""
        lines = [
            f"{self.documents:,} documents read in {self.windows:,} windows, {self.in_several:,} "
            f"of them in more than one; {self.tokens_beyond_first:,} tokens lie beyond their first"
        ]
        if self.without_title:
            lines.append(f"documents without a title for their windows: {self.without_title:,}")
        if self.titles_too_long:
            lines.append(
                f"titles over half a window: {self.titles_too_long:,}; they stand in the first "
                "windows only, as part of the text"
            )
        return lines


class _Plan(NamedTuple):
    """How one document is cut. Kept, since its windows' texts would take far more memory."""

    prefix: str
    """In front of every window."""
    begin: int
    """Where in the document's text, in characters, that begins which is cut."""
    spans: Int[np.ndarray, "windows 2"]
    """First and last character (exclusive) of each window, from `begin` on."""
    counts: WindowCounts


class WindowCutter:
    """Cuts documents into windows for one tokenizer and template.

    Args:
        tokenizer: encodes the pairs that the windows become part of.
        window: tokens of a window: its text, the title in front, and the template's own words for a
            document (`document: `). None: the document's budget; for templates whose budget depends
            on the query (`pair`), max_length without 50 tokens for the query. A larger one is cut
            where a query is long, which the tokenizer counts.
        stride: tokens from the beginning of a window to that of the next one; below `window`,
            windows overlap. None: half of `window`, as in Dai and Callan.

    Raises:
        InputError: a window that the template leaves no room for, or a stride beyond the window.
    """

    def __init__(
        self, tokenizer: PairTokenizer, *, window: int | None = None, stride: int | None = None
    ) -> None:
        self._tokenizer = tokenizer
        self.window = _check_window(tokenizer, window)
        self.stride = max(1, self.window // 2) if stride is None else stride
        if not 1 <= self.stride <= self.window:
            raise InputError(
                f"stride: got {self.stride}; from 1 to the window's {self.window} tokens are "
                "needed, or words between windows would be left out"
            )
        self.counts = WindowCounts()
        """The sum over all calls of `cut` so far."""
        self._plans: OrderedDict[bytes, _Plan] = OrderedDict()

    def cut(self, document: str | TitledText) -> Sequence[str]:
        """The windows of a document, in its order; the whole text where it fits into one.

        Every word is in one window at least and the last window ends with the document. A word that
        is longer than a window, as text without blanks is, is cut between tokens.
        """
        titled = document if isinstance(document, TitledText) else TitledText("", document)
        plan = self._find_plan(titled)
        self.counts += plan.counts
        if isinstance(document, TitledText) and not document.title:
            self.counts += WindowCounts(without_title=1)
        text = titled.text[plan.begin :]
        return [f"{plan.prefix}{text[start:end]}" for start, end in plan.spans.tolist()]

    def _find_plan(self, document: TitledText) -> _Plan:
        key = blake2b(repr(tuple(document)).encode(), digest_size=16).digest()
        plan = self._plans.pop(key, None) or self._plan(document)
        self._plans[key] = plan
        if len(self._plans) > _PLANS_KEPT:
            self._plans.popitem(last=False)
        return plan

    def _plan(self, document: TitledText) -> _Plan:
        text = document.text
        ends = self._tokenizer.token_ends("document", text)
        if len(ends) <= self.window:
            whole = np.array([[0, len(text)]])
            return _Plan("", 0, whole, WindowCounts(documents=1, windows=1))
        prefix = f"{document.title} " if document.title else ""
        own_words = int(np.searchsorted(ends, 0, side="right"))
        in_front = int(np.searchsorted(ends, len(prefix.rstrip()), side="right"))
        too_long = in_front - own_words > self.window // 2
        if too_long:
            prefix, in_front = "", own_words
        begin = len(prefix)
        spans = self._fit(prefix, text[begin:], ends[in_front:] - begin, self.window - in_front)
        counts = WindowCounts(
            documents=1,
            in_several=int(len(spans) > 1),
            windows=len(spans),
            tokens_beyond_first=int(np.count_nonzero(ends > begin + spans[0, 1])),
            titles_too_long=int(too_long),
        )
        return _Plan(prefix, begin, spans, counts)

    def _fit(
        self, prefix: str, text: str, ends: Int[np.ndarray, " n"], room: int
    ) -> Int[np.ndarray, "windows 2"]:
        """The windows of a text, none of which has more than `self.window` tokens.

        A word can have more tokens at a window's beginning than in its sentence, as with tokenizers
        that join it with the blank in front. So windows are tokenised as they are and, where one
        is too long, all are made that much shorter.
        """
        while True:
            spans = find_spans(text, ends, room=room, stride=self.stride)
            windows = (f"{prefix}{text[start:end]}" for start, end in spans.tolist())
            found = self._tokenizer.tokenise("document", windows)
            excess = max(window.length for window in found) - self.window
            if excess <= 0 or room == 1:
                return spans
            room = max(1, room - excess)


def find_spans(
    text: str, ends: Int[np.ndarray, " n"], *, room: int, stride: int
) -> Int[np.ndarray, "windows 2"]:
    """First and last character (exclusive) of windows of at most `room` tokens each.

    Args:
        ends: where in `text` each token ends, ascending.
        stride: most tokens from the beginning of a window to that of the next one.

    >>> find_spans("one two three four", np.array([3, 7, 13, 18]), room=2, stride=1).tolist()
    [[0, 7], [4, 13], [8, 18]]
    """
    words = _short_words(text, ends, room)
    if not len(words):  # Blanks alone can be longer than a window too.
        return np.array([[0, len(text)]])
    before = np.searchsorted(ends, words[:, 0], side="right")
    until = np.searchsorted(ends, words[:, 1], side="right")
    spans, first = [], 0
    while True:
        last = int(np.searchsorted(until, before[first] + room, side="right")) - 1
        last = max(first, last)
        spans.append((words[first, 0], words[last, 1]))
        if last == len(words) - 1:
            return np.array(spans)
        following = int(np.searchsorted(before, before[first] + stride, side="right")) - 1
        first = min(max(first + 1, following), last + 1)


def _short_words(text: str, ends: Int[np.ndarray, " n"], room: int) -> Int[np.ndarray, "words 2"]:
    """First and last character of each word, those of more than `room` tokens cut into pieces."""
    pieces: list[tuple[int, int]] = []
    for match in _WORD.finditer(text):
        start, end = match.span()
        tokens = ends[np.searchsorted(ends, start, "right") : np.searchsorted(ends, end, "right")]
        for cut in np.unique(tokens[room - 1 : -1 : room]).tolist():
            pieces.append((start, cut))
            start = cut
        if start < end:
            pieces.append((start, end))
    return np.array(pieces, np.int64).reshape(-1, 2)


def _check_window(tokenizer: PairTokenizer, window: int | None) -> int:
    is_fixed = not tokenizer.template.is_pair and tokenizer.template.document_budget == "fixed"
    most = tokenizer.document_budget if is_fixed else tokenizer.room - 1
    least = len(tokenizer.token_ends("document", "")) + 1
    max_length = tokenizer.text.max_length
    if window is None:
        window = most if is_fixed else max_length - _QUERY_LENGTH
        if window < least:
            raise InputError(
                f"max_length: got {max_length}; with {_QUERY_LENGTH} tokens for the query it "
                "leaves none for a window: give --window, or a larger --max_length"
            )
    if not least <= window <= most:
        raise InputError(
            f"window: got {window}; with max_length {max_length} the template "
            f"{tokenizer.template.name!r} takes windows of {least} to {most} tokens"
        )
    return window
