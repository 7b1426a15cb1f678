"""The public face of document states: encode once, rank by the query alone."""

from pathlib import Path

import pytest

import jaxrank
from jaxrank.errors import InputError
from jaxrank.ranking.document_states.cache import CachedStates
from jaxrank.ranking.document_states.states import DocumentStates
from jaxrank.ranking.policies import LongDocuments
from jaxrank.text.templates import TextConfig
from jaxrank.text.tokenize import load_tokenizer
from tests.ranking.document_states.tiny_models import (
    DOCUMENTS,
    QUERY,
    TEXT,
    make_module,
    make_without_weights,
)
from tests.tiny_states import make_tokenizer

TEXTS = list(DOCUMENTS.values())


@pytest.fixture(scope="module")
def model() -> jaxrank.Reranker:
    module = make_module("mamba")
    return jaxrank.Reranker(module.config, module, make_tokenizer(), TEXT)


@pytest.fixture(scope="module")
def states(model: jaxrank.Reranker) -> DocumentStates:
    return model.encode_documents(TEXTS, batch_size=4)


def test_states_rank_as_their_texts_do(model: jaxrank.Reranker, states: DocumentStates) -> None:
    by_text = model.rank(QUERY, TEXTS, batch_size=6)
    by_state = model.rank(QUERY, states)
    assert [row["corpus_id"] for row in by_state] == [row["corpus_id"] for row in by_text]
    assert [row["document_id"] for row in by_state] == [str(row["corpus_id"]) for row in by_text]
    for state_row, text_row in zip(by_state, by_text, strict=True):
        assert state_row["score"] == pytest.approx(text_row["score"], abs=1e-5)
    assert model.rank(QUERY, states, top_k=2) == by_state[:2]


def test_what_is_cut_of_documents_and_queries_is_counted(model: jaxrank.Reranker) -> None:
    before = model.truncation
    states = model.encode_documents(TEXTS, batch_size=4)
    model.rank("what is gout " * 30, states.select(["0"]), batch_size=6)
    after = model.truncation
    assert after.pairs == before.pairs
    assert after.truncated_documents - before.truncated_documents == 1
    assert after.empty_documents - before.empty_documents == 1
    assert after.lost_document_tokens - before.lost_document_tokens == 60 + 2 - 24
    assert after.truncated_queries - before.truncated_queries == 1


def test_a_querys_candidates_are_ranked_out_of_many(
    model: jaxrank.Reranker, tmp_path: Path
) -> None:
    store = model.encode_documents(DOCUMENTS, batch_size=4, output=tmp_path / "states")
    wanted = {row["document_id"]: row["score"] for row in model.rank(QUERY, store)}
    hot = CachedStates(store, 1 << 20)
    for source in (store, hot, hot):
        ranked = model.rank(QUERY, source.select(["x", "long", "empty", "short", "middle"]))
        assert {row["corpus_id"] for row in ranked} == set(range(5))
        for row in ranked:
            assert row["score"] == pytest.approx(wanted[row["document_id"]], abs=1e-5)
    assert hot.hit_rate == 0.5


def test_a_folder_is_gone_on_with_where_it_ends(model: jaxrank.Reranker, tmp_path: Path) -> None:
    output = tmp_path / "states"
    model.encode_documents(dict(list(DOCUMENTS.items())[:4]), batch_size=4, output=output)
    shards = sorted(output.glob("shard-*"))
    store = model.encode_documents(DOCUMENTS, batch_size=4, output=output)
    assert list(store.document_ids) == list(DOCUMENTS)
    assert sorted(output.glob("shard-*"))[: len(shards)] == shards
    again = DocumentStates.open(output)
    assert again.identity == model.state_identity()
    with pytest.raises(InputError, match="holds states in float32 computed in float32, not int8"):
        model.encode_documents(DOCUMENTS, dtype="int8", output=output)


def test_an_interrupted_store_equals_an_undisturbed_one(
    model: jaxrank.Reranker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = model.document_encoder().encode([("one", "x")])[0].nbytes
    monkeypatch.setattr("jaxrank.ranking.document_states.shards.SHARD_BYTES", 2 * size)
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    model.encode_documents(DOCUMENTS, batch_size=4, output=whole)
    with pytest.raises(ValueError, match="document 'bad': got None; a text is needed"):
        model.encode_documents(
            {**dict(list(DOCUMENTS.items())[:3]), "bad": None},  # type: ignore[dict-item]
            batch_size=4,
            output=resumed,
        )
    model.encode_documents(DOCUMENTS, batch_size=4, output=resumed)
    assert len(list(whole.glob("shard-*"))) == 3
    for path in whole.iterdir():
        assert (resumed / path.name).read_bytes() == path.read_bytes()


def test_states_of_another_model_are_refused(
    model: jaxrank.Reranker, states: DocumentStates
) -> None:
    shorter = jaxrank.Reranker(
        model.config, model.module, model.tokenizer, TextConfig(TEXT.template, max_length=70)
    )
    with pytest.raises(InputError, match="document budget 24 tokens, the model has 20"):
        shorter.rank(QUERY, states)


def test_what_states_cannot_do_is_refused(model: jaxrank.Reranker, states: DocumentStates) -> None:
    with pytest.raises(ValueError, match="return_documents: got True with states"):
        model.rank(QUERY, states, return_documents=True)
    with pytest.raises(ValueError, match="long_documents: got 'maxp' with states"):
        model.rank(QUERY, states, long_documents=LongDocuments("maxp"))
    with pytest.raises(ValueError, match="texts: got one text; a list of texts is needed"):
        model.encode_documents("a document")


def test_models_and_templates_without_states_are_refused_with_the_reason(
    model: jaxrank.Reranker, bert_tokenizer_folder: Path
) -> None:
    for family in ("bert", "t5"):
        module = make_without_weights(family)
        tokenizer = load_tokenizer(bert_tokenizer_folder)
        other = jaxrank.Reranker(module.config, module, tokenizer, TextConfig("pair"))
        with pytest.raises(InputError, match=f"family: '{family}' has no document states"):
            other.encode_documents(["a document"])
    pair = jaxrank.Reranker(
        model.config, model.module, load_tokenizer(bert_tokenizer_folder), TextConfig("pair")
    )
    with pytest.raises(InputError, match="template 'pair' cuts the longer text first"):
        pair.state_scorer()


def test_scorers_are_kept_by_their_batch_size(model: jaxrank.Reranker) -> None:
    assert model.state_scorer() is model.state_scorer(100)
    assert model.state_scorer(6) is not model.state_scorer(7)
