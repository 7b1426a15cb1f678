"""Documents longer than a model reads: one pass over the first part, or windows put together.

- FirstP: the first tokens that fit. What is beyond them is cut, and counted.
- MaxP: windows over the whole document, the best of their scores.
- SumP: the same windows, the sum of their probabilities.
- LongP: one pass over up to `max_length` tokens, which is made as large as memory and the model's
  positions allow; state-space models have no limit. P2 (arXiv 2412.14354) took 1,536.

FirstP, MaxP and SumP are those of Dai and Callan, "Deeper text understanding for IR with contextual
neural language modeling", SIGIR 2019 (passages of 150 words, a stride of 75, the title in front).
They sum the probability that a model trained on two classes gives each passage. Our models are
trained with InfoNCE, in which the probability of a candidate is exp(score) over a sum that all
candidates of a query share; a constant added to all scores means nothing to them. So SumP here is

    log sum over windows of exp(score)

which orders documents as the sum of these probabilities does. A logistic function in its place
would depend on that constant: where scores are high throughout it is 1 for every window and SumP
would count windows, and plain scores, where negative, would count length against a document.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice, repeat

import numpy as np
from jaxtyping import Float

from jaxrank.data.document_text import compose
from jaxrank.data.documents import Documents
from jaxrank.errors import InputError
from jaxrank.ranking.policies import LongDocuments, Policy
from jaxrank.ranking.scoring import ScorePairs
from jaxrank.ranking.windows import TitledText, WindowCounts, WindowCutter
from jaxrank.text.tokenize import PairTokenizer

Text = str | TitledText

# Few enough that a bar moves on a CPU too, many enough that sorting by length pays.
_TEXTS_AT_ONCE = 512


def best_score(scores: Float[np.ndarray, " windows"]) -> float:
    """MaxP: the score of the best window.

    >>> best_score(np.array([-1.0, 2.0]))
    2.0
    """
    return float(scores.max())


def summed_probability(scores: Float[np.ndarray, " windows"]) -> float:
    """SumP: the logarithm of the sum of exp(score), in float64 so that no score is too large.

    >>> summed_probability(np.array([1000.0, 1000.0])) - 1000.0 == np.log(2)
    True
    """
    return float(np.logaddexp.reduce(scores.astype(np.float64)))


COMBINATIONS: Mapping[Policy, Callable[[np.ndarray], float]] = {
    "maxp": best_score,
    "sump": summed_probability,
}
"""Policies with windows -> what makes one score of the windows'."""


class DocumentScorer:
    """Scores documents of any length, by the policy, with what scores pairs of texts.

    Texts are scored some hundred at a time, those of several pairs together, so memory does not
    grow with the number of pairs. It does with the length of a document: all its windows are cut at
    once, overlaps included, and the cutter remembers where it has cut the latest documents.

    Args:
        settings: the policy, and its windows.
        tokenizer: the model's, which windows are made for.
        score_pairs: (query, text) -> score.
    """

    def __init__(
        self, settings: LongDocuments, tokenizer: PairTokenizer, score_pairs: ScorePairs
    ) -> None:
        self._cutter = None
        if settings.has_windows:
            self._cutter = WindowCutter(tokenizer, window=settings.window, stride=settings.stride)
        self._combine = COMBINATIONS.get(settings.policy, best_score)
        self._score_pairs = score_pairs

    @property
    def counts(self) -> WindowCounts | None:
        """How documents were cut so far; None where the policy has no windows."""
        return None if self._cutter is None else self._cutter.counts

    def scores(self, pairs: Iterable[tuple[str, Text]]) -> Iterator[float]:
        """Yield the score of each pair, in their order."""
        return map(self._combine, self.window_scores(pairs))

    def window_scores(
        self, pairs: Iterable[tuple[str, Text]]
    ) -> Iterator[Float[np.ndarray, " windows"]]:
        """Yield the scores of each pair's windows, in the document's order; one without windows."""
        sizes: list[int] = []  # of the pairs whose windows are not all scored yet
        texts = self._texts(pairs, sizes)
        scored = np.empty(0, np.float32)
        while chunk := list(islice(texts, _TEXTS_AT_ONCE)):
            scored = np.concatenate([scored, self._score_pairs(chunk)])
            while sizes and sizes[0] <= len(scored):
                size = sizes.pop(0)
                yield scored[:size]
                scored = scored[size:]

    def _texts(
        self, pairs: Iterable[tuple[str, Text]], sizes: list[int]
    ) -> Iterator[tuple[str, str]]:
        """Yield what is scored; append to `sizes` how many texts of each pair there are."""
        for query, document in pairs:
            if self._cutter is not None:
                windows = self._cutter.cut(document)
            else:
                windows = [as_text(document)]
            sizes.append(len(windows))
            yield from zip(repeat(query), windows)


class TitledDocuments(Mapping[str, TitledText]):
    """Documents with what stands in front of the body in their text, a title and perhaps a url.

    Args:
        documents: documents whose text has the title in it.

    Raises:
        InputError: documents that are read without their titles.
    """

    def __init__(self, documents: Documents) -> None:
        if documents.document_text == "body":
            raise InputError(
                "window_title: got true with document_text body, which has no title; give "
                "--document_text title-body, or leave window_title out"
            )
        self._documents = documents

    def __getitem__(self, document_id: str) -> TitledText:
        fields = self._documents.fields(document_id)
        title = compose(fields._replace(body=""), self._documents.document_text)
        return TitledText(title, fields.body)

    def __contains__(self, document_id: object) -> bool:
        return document_id in self._documents

    def __iter__(self) -> Iterator[str]:
        return iter(self._documents)

    def __len__(self) -> int:
        return len(self._documents)


def as_pairs(pairs: Sequence[Sequence[Text]]) -> list[tuple[str, Text]]:
    """Those pairs, each of which is a query and a document.

    Raises:
        ValueError: something else, by its place.
    """
    if isinstance(pairs, tuple) and len(pairs) == 2 and isinstance(pairs[0], str):
        raise ValueError("predict takes a list of pairs; for one pair write predict([pair])")
    texts: list[tuple[str, Text]] = []
    for index, pair in enumerate(pairs):
        is_pair = not isinstance(pair, str) and len(pair) == 2 and isinstance(pair[0], str)
        if not is_pair or not isinstance(pair[1], (str, TitledText)):
            raise ValueError(f"pairs[{index}]: got {pair!r:.80}; (query, document) is needed")
        texts.append((str(pair[0]), pair[1]))
    return texts


def as_text(document: Text) -> str:
    """A document as one text, its title in front."""
    return document.text if isinstance(document, TitledText) else document
