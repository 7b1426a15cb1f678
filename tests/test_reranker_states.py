"""The public face of document states: encode once, rank by the query alone."""

from pathlib import Path

import numpy as np
import pytest

import jaxrank
from jaxrank import CachedStates, DocumentStates, LongDocuments
from jaxrank.data.hashing import hash_text
from jaxrank.errors import InputError
from jaxrank.models.module import RerankerModule, build_module, parameters
from jaxrank.ranking.document_states.formats import check_dtype
from jaxrank.text.templates import TextConfig
from jaxrank.text.tokenize import load_tokenizer
from tests.ranking.document_states.tiny_models import (
    DOCUMENTS,
    QUERY,
    TEXT,
    make_encoder,
    make_module,
    make_without_weights,
)
from tests.tiny_states import make_tokenizer

TEXTS = list(DOCUMENTS.values())


@pytest.fixture(scope="module")
def model() -> jaxrank.Reranker:
    return make_model(make_module("mamba"))


def make_model(module: RerankerModule, text: TextConfig = TEXT) -> jaxrank.Reranker:
    return jaxrank.Reranker(module.config, module, make_tokenizer(), text)


@pytest.fixture(scope="module")
def states(model: jaxrank.Reranker) -> DocumentStates:
    return model.encode_documents(TEXTS, batch_size=4)


def test_states_rank_as_their_texts_do(model: jaxrank.Reranker, states: DocumentStates) -> None:
    by_text = model.rank(QUERY, TEXTS, batch_size=6)
    by_state = model.rank(QUERY, states, batch_size=6)
    assert [row["corpus_id"] for row in by_state] == [row["corpus_id"] for row in by_text]
    assert [row["document_id"] for row in by_state] == [str(row["corpus_id"]) for row in by_text]
    for state_row, text_row in zip(by_state, by_text, strict=True):
        assert state_row["score"] == pytest.approx(text_row["score"], abs=1e-5)
    assert model.rank(QUERY, states, top_k=2, batch_size=6) == by_state[:2]


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
    found = model.rank(QUERY, store, batch_size=6)
    wanted = {row["document_id"]: row["score"] for row in found}
    hot = CachedStates(store, 1 << 20)
    for source in (store, hot, hot):
        chosen = source.select(["x", "long", "empty", "short", "middle"])
        ranked = model.rank(QUERY, chosen, batch_size=6)
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
    again = model.open_states(output)
    assert list(again.document_ids) == list(DOCUMENTS)
    with pytest.raises(InputError, match="holds states in float32 computed in float32, not int8"):
        model.encode_documents(DOCUMENTS, dtype="int8", output=output)


def test_texts_that_are_not_those_of_the_states_are_refused(
    model: jaxrank.Reranker, tmp_path: Path
) -> None:
    output = tmp_path / "states"
    store = model.encode_documents(["fever", "cough"], batch_size=4, output=output)
    assert store.text_hashes(["1"]).tolist() == [hash_text("cough")]
    before = {path: path.read_bytes() for path in output.iterdir()}
    # Another list, whose documents are called "0", "1", ... too.
    changed = r"states: document '1': its text is not the one that its state was made of; give the"
    with pytest.raises(InputError, match=changed):
        model.encode_documents(["fever", "rash", "gout"], batch_size=4, output=output)
    with pytest.raises(
        InputError, match=r"document '0': .* was made of \(the same holds of 1 more\); "
    ):
        model.encode_documents({"0": "pain", "1": "rash"}, batch_size=4, output=output)
    assert {path: path.read_bytes() for path in output.iterdir()} == before


def test_an_interrupted_store_equals_an_undisturbed_one(
    model: jaxrank.Reranker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = model.document_states.encoder("float32", 4).encode([("one", "x")])[0].nbytes
    monkeypatch.setattr("jaxrank.ranking.document_states.disk.shards.SHARD_BYTES", 2 * size)
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
    shorter = make_model(model.module, TextConfig(TEXT.template, max_length=70))
    with pytest.raises(InputError, match="document budget 24 tokens, the model has 20"):
        shorter.rank(QUERY, states)


def test_states_on_disk_are_opened_for_the_model_that_made_them(
    model: jaxrank.Reranker, tmp_path: Path
) -> None:
    output = tmp_path / "states"
    model.encode_documents({"x": "gout"}, batch_size=4, output=output)
    changed = {name: np.array(a) for name, a in parameters(model.module).items()}
    changed["backbone.final_norm.weight"][0] += 1
    # As long a document; the same segments under another name.
    renamed = TextConfig("ssm-rerankers-decoder", TEXT.max_length)
    for other, difference in (
        (make_model(build_module(model.config, changed)), "another model: weights .*, the model h"),
        (make_model(model.module, renamed), "template 'paper-decoder', the model has 'ssm-rer"),
        (make_model(model.module, TextConfig(TEXT.template, 70)), "document budget 24 tokens, t"),
    ):
        with pytest.raises(InputError, match=f"{output}: its states were made .*{difference}"):
            other.open_states(output)
    (row,) = model.rank(QUERY, model.open_states(output, verify=False), batch_size=6)
    assert row["document_id"] == "x"


def test_weights_that_change_later_change_neither_states_nor_their_identity() -> None:
    """As while a model is trained: states carry the digest of the weights that made them."""
    exact = make_module("mamba")
    model = make_model(build_module(exact.config, parameters(exact)))
    identity = model.state_identity()
    embedding = model.module.backbone.embedding.embedding
    embedding.set_value(2 * embedding.get_value())
    encoder = model.document_states.encoder("float32", 1)
    assert encoder.identity == identity == make_encoder("mamba", 1).identity
    documents = [("middle", DOCUMENTS["middle"])]
    (found,), (wanted,) = encoder.encode(documents), make_encoder("mamba", 1).encode(documents)
    for name, values in wanted.arrays.items():
        np.testing.assert_array_equal(found.arrays[name], values)


def test_what_states_cannot_do_is_refused(model: jaxrank.Reranker, states: DocumentStates) -> None:
    with pytest.raises(ValueError, match="return_documents: got True with states"):
        model.rank(QUERY, states, return_documents=True)
    with pytest.raises(ValueError, match="long_documents: got 'maxp' with states"):
        model.rank(QUERY, states, long_documents=LongDocuments("maxp"))
    with pytest.raises(ValueError, match="texts: got one text; a list of texts is needed"):
        model.encode_documents("a document")


def test_a_batch_of_nothing_is_refused(model: jaxrank.Reranker, states: DocumentStates) -> None:
    for documents in (TEXTS, states):
        with pytest.raises(InputError, match="batch_size: got 0; at least 1 is needed"):
            model.rank(QUERY, documents, batch_size=0)


def test_keys_and_values_on_disk_give_the_scores_of_the_texts(tmp_path: Path) -> None:
    """A family whose states grow with the tokens, from texts to a ranking."""
    model = make_model(make_module("opt"))
    made = model.encode_documents(DOCUMENTS, batch_size=4, output=tmp_path / "states")
    store = model.open_states(tmp_path / "states")
    assert made.nbytes == store.nbytes
    assert len(set(store.lengths(store.document_ids).tolist())) > 1
    ranked = model.rank(QUERY, store, batch_size=6)
    by_text = model.rank(QUERY, TEXTS, batch_size=6)
    assert [row["corpus_id"] for row in ranked] == [row["corpus_id"] for row in by_text]
    for row, wanted in zip(ranked, by_text, strict=True):
        assert row["score"] == pytest.approx(wanted["score"], abs=1e-5)


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


def test_what_is_no_type_no_list_and_no_number_of_documents_is_refused(
    model: jaxrank.Reranker, states: DocumentStates
) -> None:
    with pytest.raises(InputError, match="dtype: got 'float16'; float32, bfloat16, int8 is needed"):
        check_dtype("float16")
    with pytest.raises(ValueError, match="document_ids: got one id, '0'; a list is needed"):
        states.select("0")
    with pytest.raises(ValueError, match="top_k: got -1; at least 1 is needed"):
        model.rank(QUERY, states, top_k=-1)


def test_another_budget_is_told_from_another_model(
    model: jaxrank.Reranker, states: DocumentStates
) -> None:
    shorter = make_model(model.module, TextConfig("paper-decoder", TEXT.max_length - 1, 50))
    with pytest.raises(InputError, match="made for another max_length or query_length: document"):
        shorter.rank(QUERY, states)
