"""A template's two sides, tokenised apart, are the pair."""

from functools import cache
from itertools import product

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from jaxrank.errors import InputError
from jaxrank.text.added_tokens import add_tokens
from jaxrank.text.document_first import DocumentFirst
from jaxrank.text.templates import TEMPLATES, Template, TextConfig
from jaxrank.text.tokenize import PairTokenizer, load_tokenizer
from tests.tiny_states import make_tokenizer
from tests.tokenizer_builders import tokenizer_folder

DOCUMENT_FIRST = [
    "paper-decoder",
    "authors-code-decoder",
    "authors-code-decoder-evaluation",
    "ssm-rerankers-decoder",
]
DOCUMENTS = [
    "Asthma is a disease. " * 30,
    "",
    " ",
    "\n\nquery: no query",
    "short",
    "ü 日本語 " * 20,
]
QUERIES = ["What causes asthma?", "", "\n", "a long query " * 30, " leading space"]


@cache
def load(kind: str) -> PreTrainedTokenizerFast:
    return load_tokenizer(tokenizer_folder(kind))


def make_pairs(kind: str, template: str, max_length: int = 96) -> PairTokenizer:
    text = TextConfig(template=template, max_length=max_length)
    return PairTokenizer(load(kind), text)


@pytest.mark.parametrize("template", DOCUMENT_FIRST)
@pytest.mark.parametrize("kind", ["gpt-neox-20b", "opt"])
def test_a_document_and_a_query_joined_are_the_pair_with_its_cuts(kind: str, template: str) -> None:
    pairs = make_pairs(kind, template)
    sides = DocumentFirst(pairs)
    documents, queries = sides.documents(DOCUMENTS), sides.queries(QUERIES)
    encoded = pairs.encode(list(product(QUERIES, DOCUMENTS)))
    for pair, (query, document) in zip(encoded, product(queries, documents), strict=True):
        np.testing.assert_array_equal(pair.input_ids, np.concatenate([document, query]))
        assert not pair.token_type_ids.any()
    assert max(map(len, documents)) == sides.document_budget
    assert max(map(len, queries)) == sides.query_budget
    assert sides.document_budget + sides.query_budget == 96
    for field, texts, found in (("document", DOCUMENTS, documents), ("query", QUERIES, queries)):
        own = np.array([text.length for text in pairs.tokenise(field, texts)])
        assert sides.lengths(field, own).tolist() == list(map(len, found))
        assert sides.budget_of(field) == max(map(len, found))


def test_what_the_tokenizer_puts_first_belongs_to_the_document() -> None:
    sides = DocumentFirst(make_pairs("opt", "authors-code-decoder"))
    (document,) = sides.documents(["text"])
    (plain,) = DocumentFirst(make_pairs("opt", "paper-decoder")).documents(["text"])
    assert document[0] == 2  # OPT's </s>
    assert plain[0] != 2


def test_cuts_are_counted_by_side() -> None:
    sides = DocumentFirst(make_pairs("gpt-neox-20b", "paper-decoder"))
    sides.documents(DOCUMENTS)
    sides.queries(QUERIES[:2])
    cut, query = sides.document_counts, sides.query_counts
    assert (cut.texts, cut.truncated, cut.empty) == (6, 2, 2)
    assert cut.lost_tokens > 100
    assert (query.texts, query.truncated, query.lost_tokens, query.empty) == (2, 0, 0, 1)
    assert cut.summary("documents").startswith("6 documents tokenised: 2 cut (")


def test_the_digest_is_of_what_a_documents_ids_depend_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def digest(tokenizer: PreTrainedTokenizerFast, template: str, length: int = 96) -> str:
        text = TextConfig(template=template, max_length=length)
        return DocumentFirst(PairTokenizer(tokenizer, text)).digest

    tokenizer = make_tokenizer()
    paper = digest(tokenizer, "paper-decoder")
    assert digest(tokenizer, "paper-decoder", 512) == paper
    # The same document's side; the queries' differ.
    assert digest(tokenizer, "ssm-rerankers-decoder") == paper
    assert digest(tokenizer, "authors-code-decoder") != paper
    assert digest(add_tokens(tokenizer, ["gouty"]), "paper-decoder") != paper
    monkeypatch.setattr("tokenizers.__version__", "99.0")
    assert digest(tokenizer, "paper-decoder") == paper


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("pair", "'pair' cuts the longer text first, .*'paper-decoder'"),
        ("paper-encoder", "'paper-encoder' puts the query first, .*'paper-decoder'"),
        ("rest", "'rest' gives the document what the query leaves"),
    ],
)
def test_templates_whose_sides_depend_on_each_other_are_refused_with_the_reason(
    template: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    segments = ("{document}", "query: {query}")
    rest = Template("rest", segments, query_length=None, document_budget="rest")
    monkeypatch.setitem(TEMPLATES, "rest", rest)
    with pytest.raises(InputError, match=reason):
        DocumentFirst(make_pairs("bert-base-uncased", template))
