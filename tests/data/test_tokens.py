from pathlib import Path

import numpy as np
import pytest

from jaxrank.data.groups import Group
from jaxrank.data.tokens.table import tokenise_groups, tokenise_texts
from jaxrank.text.templates import TextConfig
from jaxrank.text.tokenize import PairTokenizer, load_tokenizer

TEXTS = {"a": "What causes gout?", "b": "uric acid " * 40, "c": " \n", "d": "Crystals in joints."}


@pytest.fixture(scope="module")
def tokenizer(bert_tokenizer_folder: Path) -> PairTokenizer:
    return PairTokenizer(load_tokenizer(bert_tokenizer_folder), TextConfig(max_length=32))


def test_a_table_gives_each_texts_ids_cut_at_max_length(tokenizer: PairTokenizer):
    table = tokenise_texts("document", ["b", "c", "a"], TEXTS, tokenizer)
    for name, ids in zip("abcb", table.read(table.find("abcb")), strict=True):
        expected = next(tokenizer.tokenise("document", [TEXTS[name]]))
        assert ids.tolist() == expected.input_ids.tolist()
        assert table.lengths[table.rows[name]] == expected.length
    assert len(table.read(table.find("b"))[0]) == 32
    assert table.lengths[0] > 80
    assert table.is_empty.tolist() == [False, True, False]


def test_ids_take_two_bytes_where_the_vocabulary_allows(
    tokenizer: PairTokenizer, monkeypatch: pytest.MonkeyPatch
):
    small = tokenise_texts("query", ["a", "b"], TEXTS, tokenizer)
    monkeypatch.setattr(tokenizer, "vocabulary_size", 2**16 + 1)
    large = tokenise_texts("query", ["a", "b"], TEXTS, tokenizer)
    assert (small.ids.dtype, large.ids.dtype) == (np.uint16, np.int32)
    np.testing.assert_array_equal(small.ids, large.ids)
    monkeypatch.setattr(tokenizer, "vocabulary_size", 2**16)
    assert tokenise_texts("query", ["a"], TEXTS, tokenizer).ids.dtype == np.uint16


def test_the_fields_literal_text_is_stored_with_it(neox_tokenizer_folder: Path):
    source = load_tokenizer(neox_tokenizer_folder)
    tokenizer = PairTokenizer(source, TextConfig("paper-decoder", max_length=80))
    table = tokenise_texts("document", ["d"], TEXTS, tokenizer)
    assert source.decode(table.ids) == "document: Crystals in joints."


def test_texts_without_any_token_are_stored(neox_tokenizer_folder: Path):
    tokenizer = PairTokenizer(load_tokenizer(neox_tokenizer_folder), TextConfig(max_length=80))
    table = tokenise_texts("document", ["x", "y"], {"x": "", "y": ""}, tokenizer)
    assert [len(ids) for ids in table.read(table.find("xy"))] == [0, 0]
    assert table.is_empty.all()


def test_a_store_holds_what_groups_name_once(tokenizer: PairTokenizer):
    groups = [Group("a", "b", ("c",)), Group("a", "d", ("b", "c"))]
    store = tokenise_groups(groups, TEXTS, TEXTS, tokenizer)
    assert list(store.queries.rows) == ["a"]
    assert sorted(store.documents.rows) == ["b", "c", "d"]
    sizes = [len(next(tokenizer.tokenise("query", [TEXTS[name]])).input_ids) for name in "abcd"]
    assert store.num_tokens == sum(sizes)
    assert store.summary() == "pretokenised 1 queries and 3 documents: 0.0 M tokens, 0 MiB"


def test_a_text_that_is_not_there_is_an_error(tokenizer: PairTokenizer):
    with pytest.raises(KeyError, match="missing"):
        tokenise_groups([Group("a", "missing", ())], TEXTS, TEXTS, tokenizer)
