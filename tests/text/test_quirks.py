"""The quirks of RankMamba's code: what each changes against the paper's own wording."""

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from jaxrank.text.added_tokens import add_tokens
from jaxrank.text.templates import TextConfig
from jaxrank.text.tokenize import PairTokenizer, TokenizedPair, load_tokenizer, pad_pairs
from tests.tokenizer_builders import tokenizer_folder

QUERY, DOCUMENT = "what causes gout", "crystals of uric acid in a joint"


@pytest.fixture(scope="module")
def tokenizers() -> dict[str, PreTrainedTokenizerFast]:
    names = ("bert-base-uncased", "t5", "opt")
    loaded = {name: load_tokenizer(tokenizer_folder(name)) for name in names}
    for name in ("bert-base-uncased", "t5"):
        loaded[f"{name}, markers"] = add_tokens(loaded[name], ["[query]", "[passage]"])
    return loaded


def encode(
    tokenizer: PreTrainedTokenizerFast, text: TextConfig, query: str = QUERY, by: int = 1
) -> TokenizedPair:
    return PairTokenizer(tokenizer, text).encode([(query, " ".join([DOCUMENT] * by))])[0]


def tokens(tokenizer: PreTrainedTokenizerFast, template: str) -> list[str]:
    pair = encode(tokenizer, TextConfig(template))
    return tokenizer.convert_ids_to_tokens(pair.input_ids.tolist())


@pytest.mark.parametrize(
    ("name", "wording"), [("bert-base-uncased", "encoder"), ("t5", "encoder-decoder")]
)
def test_markers_are_one_token_each_before_query_and_document(tokenizers, name, wording):
    plain = tokens(tokenizers[name], f"paper-{wording}")
    marked = tokens(tokenizers[f"{name}, markers"], f"authors-code-{wording}")
    assert [token for token in marked if token not in ("[query]", "[passage]", "<pad>")] == plain
    first_of_document = marked[marked.index("[passage]") + 1]
    assert first_of_document.strip("▁") == "crystals"[: len(first_of_document.strip("▁"))]


def test_one_sequence_has_token_types_0_where_a_pair_has_1(tokenizers):
    tokenizer = tokenizers["bert-base-uncased, markers"]
    pair = encode(tokenizer, TextConfig("pair"))
    one_sequence = encode(tokenizer, TextConfig("authors-code-encoder"))
    assert pair.token_type_ids.tolist().count(1) == 8 + 1  # the document and its [SEP]
    assert not one_sequence.token_type_ids.any()


def test_one_sequence_is_cut_at_its_end_where_the_papers_document_has_a_fixed_budget(tokenizers):
    tokenizer = tokenizers["bert-base-uncased, markers"]
    lengths = [
        len(encode(tokenizer, TextConfig(template, max_length=128), by=40).input_ids)
        for template in ("authors-code-encoder", "paper-encoder")
    ]
    # [CLS] what causes go ##ut [SEP] + 78 + [SEP]
    assert lengths == [128, 3 + 4 + (128 - 50)]


def test_a_decoders_wording_has_capitals_and_the_tokenizers_own_start(tokenizers):
    tokenizer = tokenizers["opt"]
    texts = [
        tokenizer.decode(encode(tokenizer, TextConfig(template)).input_ids.tolist())
        for template in ("paper-decoder", "authors-code-decoder")
    ]
    assert texts == [
        f"document: {DOCUMENT}\n\nquery: {QUERY}</s>",
        f"</s>Document: {DOCUMENT}\n\nQuery: {QUERY}</s>",
    ]


def test_a_decoders_document_gets_all_but_50_tokens_however_short_the_query(tokenizers):
    tokenizer = tokenizers["opt"]
    text = TextConfig("authors-code-decoder", max_length=512)
    short = encode(tokenizer, text, "gout", by=99).input_ids
    long = encode(tokenizer, text, QUERY * 30, by=99).input_ids
    assert len(short) < len(long) == 512
    end_of_document = 1 + 512 - 50
    np.testing.assert_array_equal(short[:end_of_document], long[:end_of_document])
    assert short[end_of_document] == long[end_of_document] == tokenizer("\n").input_ids[1]


def test_at_evaluation_decoders_got_the_encoders_marker_in_plain_letters(tokenizers):
    tokenizer = tokenizers["opt"]
    pair = encode(tokenizer, TextConfig("authors-code-decoder-evaluation", max_length=768))
    ids = pair.input_ids.tolist()
    assert tokenizer.decode(ids).endswith(f"\n\n[query]{QUERY}</s>")
    assert max(ids) < 50265  # no token is added
    cut = encode(tokenizer, TextConfig("authors-code-decoder-evaluation", max_length=768), by=200)
    newline = tokenizer("\n").input_ids[1]
    assert cut.input_ids.tolist().index(newline) == 1 + 718


def test_at_evaluation_t5_lost_its_separator(tokenizers):
    tokenizer = tokenizers["t5, markers"]
    trained = tokens(tokenizer, "authors-code-encoder-decoder")
    evaluated = tokens(tokenizer, "authors-code-encoder-decoder-evaluation")
    separator = trained.index("[passage]") - 1
    assert trained[separator] == "</s>"
    assert evaluated == trained[:separator] + trained[separator + 1 :]


def test_the_pad_token_in_front_of_t5s_text_is_read_as_any_other(tokenizers):
    tokenizer = tokenizers["t5, markers"]
    pair = encode(tokenizer, TextConfig("authors-code-encoder-decoder"))
    assert pair.input_ids[0] == tokenizer.pad_token_id == 0
    batch = pad_pairs([pair], length=64, pad_token_id=0)
    assert batch["mask"][0].sum() == len(pair.input_ids)
    assert batch["mask"][0, 0]
