"""Policies put the scores of a document's windows together as they say."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from jaxrank.data.document_text import DocumentFields, DocumentText
from jaxrank.data.documents import Documents
from jaxrank.errors import InputError
from jaxrank.ranking import long_documents
from jaxrank.ranking.long_documents import (
    DocumentScorer,
    TitledDocuments,
    best_score,
    summed_probability,
)
from jaxrank.ranking.policies import LongDocuments
from jaxrank.ranking.windows import TitledText
from jaxrank.text.templates import TextConfig
from jaxrank.text.tokenize import PairTokenizer, load_tokenizer


@pytest.fixture(scope="module")
def pair_tokenizer(bert_tokenizer_folder: Path) -> PairTokenizer:
    return PairTokenizer(load_tokenizer(bert_tokenizer_folder), TextConfig("pair", max_length=80))


def count_letters(pairs: list[tuple[str, str]]) -> np.ndarray:
    """A score that a text's own letters make: +1 for each letter of the query in it."""
    return np.array([sum(map(text.count, query)) for query, text in pairs], np.float32)


LETTERS = " ".join("aabacadbbcdeff")
PAIRS = [("a", LETTERS), ("f", LETTERS), ("z", "z z"), ("b", LETTERS)]


@pytest.mark.parametrize("texts_at_once", [1, 3, 512])
def test_policies_put_the_scores_of_windows_together(
    pair_tokenizer: PairTokenizer, texts_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(long_documents, "_TEXTS_AT_ONCE", texts_at_once)

    def scores(policy: str) -> list[float]:
        size = 4 if policy in ("maxp", "sump") else None
        settings = LongDocuments(policy, window=size, stride=size)
        scorer = DocumentScorer(settings, pair_tokenizer, count_letters)
        return list(scorer.scores(PAIRS))

    # Windows: a a b a | c a d b | b c d e | f f.
    of_windows = [[3, 1, 0, 0], [0, 0, 0, 2], [2], [1, 1, 1, 0]]
    assert scores("maxp") == [3, 2, 2, 1]
    np.testing.assert_allclose(
        scores("sump"), [np.log(np.sum(np.exp(row))) for row in of_windows], rtol=1e-6
    )
    whole = [4, 2, 2, 3]
    assert scores("firstp") == scores("longp") == whole, "one pass scores the text as it is"


def test_only_some_windows_are_in_memory_at_a_time(
    pair_tokenizer: PairTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(long_documents, "_TEXTS_AT_ONCE", 8)
    sizes, asked = [], []

    def score(pairs: list[tuple[str, str]]) -> np.ndarray:
        sizes.append(len(pairs))
        return count_letters(pairs)

    def pairs():
        for number in range(20):
            asked.append(number)
            yield "a", LETTERS * 5

    settings = LongDocuments("maxp", window=4)
    for number, _ in enumerate(DocumentScorer(settings, pair_tokenizer, score).scores(pairs())):
        assert len(asked) <= number + 2, "a document is read when its windows are scored"
    assert max(sizes) == 8


def test_a_best_window_and_a_sum_are_what_they_are_called() -> None:
    scores = np.array([-3.0, 0.5, -1.0], np.float32)
    assert best_score(scores) == 0.5
    assert summed_probability(scores) == pytest.approx(np.log(np.exp(scores).sum()), rel=1e-6)
    assert summed_probability(scores[:1]) == -3.0
    # A constant added to all scores moves all documents alike, and no score is too large.
    shifted = summed_probability(scores + 500)
    assert shifted - 500 == pytest.approx(summed_probability(scores), abs=1e-4)
    longer = np.append(scores, np.float32(-4))
    assert summed_probability(longer) > summed_probability(scores), "length never counts against"


def test_a_policy_without_windows_takes_no_window() -> None:
    with pytest.raises(InputError, match="window: got 64 with long_documents firstp"):
        LongDocuments("firstp", window=64)
    with pytest.raises(InputError, match="stride: got 1 with long_documents longp"):
        LongDocuments("longp", stride=1)


class OneDocument(Documents):
    """A collection's documents, of which there is one."""

    def __init__(self, document_text: DocumentText) -> None:
        self.document_text = document_text

    def fields(self, document_id: str) -> DocumentFields:
        return {"d1": DocumentFields("A disease.", "Acne", "a.org/acne")}[document_id]

    def __iter__(self) -> Iterator[str]:
        return iter(["d1"])

    def __len__(self) -> int:
        return 1


@pytest.mark.parametrize(
    ("document_text", "title"), [("title-body", "Acne"), ("url-title-body", "a.org/acne Acne")]
)
def test_titles_are_what_stands_in_front_of_the_body(
    document_text: DocumentText, title: str
) -> None:
    documents = OneDocument(document_text)
    titled = TitledDocuments(documents)
    assert dict(titled) == {"d1": TitledText(title, "A disease.")}
    assert titled["d1"].text == documents["d1"]


def test_documents_read_without_titles_have_none_for_windows() -> None:
    with pytest.raises(InputError, match="document_text body, which has no title; give --docum"):
        TitledDocuments(OneDocument("body"))
