import json
import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from jaxrank.errors import InputError
from jaxrank.text.templates import TextConfig
from jaxrank.text.tokenize import (
    PairTokenizer,
    TokenizedPair,
    TruncationCounts,
    load_tokenizer,
    pad_pairs,
)

QUERY, DOCUMENT = "What causes Crohn's disease?", "Its cause is unknown. Genes\nplay a part."


@pytest.fixture(scope="session")
def bert(bert_tokenizer_folder: Path) -> PreTrainedTokenizerFast:
    return load_tokenizer(bert_tokenizer_folder)


@pytest.fixture(scope="session")
def neox(neox_tokenizer_folder: Path) -> PreTrainedTokenizerFast:
    return load_tokenizer(neox_tokenizer_folder)


@pytest.fixture(scope="session")
def real_pairs(medquad_mini: Path) -> list[tuple[str, str]]:
    """500 questions and passages; in some both are passages, or one passage twice: both get cut."""
    queries, passages = (
        [json.loads(line)["text"] for line in (medquad_mini / name).read_text().splitlines()]
        for name in ("queries.jsonl", "corpus.jsonl")
    )
    draw = random.Random(0)
    pairs = [(draw.choice(queries), draw.choice(passages)) for _ in range(400)]
    pairs += [(draw.choice(passages), draw.choice(passages)) for _ in range(70)]
    pairs += [(passage, passage) for passage in draw.sample(passages, 10)]
    return pairs + [(draw.choice(passages), draw.choice(queries)) for _ in range(20)]


def encode_one(
    tokenizer: PreTrainedTokenizerFast, text: TextConfig, query: str, document: str
) -> list[int]:
    return PairTokenizer(tokenizer, text).encode([(query, document)])[0].input_ids.tolist()


@pytest.mark.parametrize("max_length", [16, 63, 128, 512])
@pytest.mark.parametrize("name", ["bert", "neox"])
def test_pair_is_exactly_what_transformers_gives(
    name: str, max_length: int, real_pairs: list, request: pytest.FixtureRequest
):
    tokenizer = request.getfixturevalue(name)
    queries, documents = map(list, zip(*real_pairs, strict=True))
    expected = tokenizer(queries, documents, truncation="longest_first", max_length=max_length)
    encoded = PairTokenizer(tokenizer, TextConfig(max_length=max_length)).encode(real_pairs)
    for row, pair in enumerate(encoded):
        assert pair.input_ids.tolist() == expected["input_ids"][row]
        # GPT-NeoX is not given any; the tokenizer's own would be 1 for the document.
        types = expected["token_type_ids"][row] if name == "bert" else [0] * len(pair.input_ids)
        assert pair.token_type_ids.tolist() == types


def test_pair_does_not_care_for_the_tokenizers_own_truncation(bert: PreTrainedTokenizerFast):
    tokenizer = PairTokenizer(bert, TextConfig(max_length=128))
    bert(QUERY, DOCUMENT, truncation=True, max_length=4, padding="max_length")
    ids = tokenizer.encode([(QUERY, DOCUMENT)])[0].input_ids.tolist()
    assert ids == bert(QUERY, DOCUMENT)["input_ids"]


@pytest.mark.parametrize("name", ["bert", "neox"])
def test_pair_counts_what_was_cut(name: str, real_pairs: list, request: pytest.FixtureRequest):
    source = request.getfixturevalue(name)
    tokenizer = PairTokenizer(source, TextConfig(max_length=64))
    kept = sum(len(pair.input_ids) for pair in tokenizer.encode(real_pairs))
    whole = sum(len(source(*pair)["input_ids"]) for pair in real_pairs)
    counts = tokenizer.counts
    assert counts.pairs == 500
    assert counts.truncated_queries > 80
    assert counts.truncated_documents > 200
    assert counts.lost_query_tokens + counts.lost_document_tokens == whole - kept


@pytest.mark.parametrize(
    ("name", "template", "text"),
    [
        ("bert", "paper-encoder", "[CLS] {q} [SEP] {d} [SEP]"),
        ("neox", "paper-decoder", "document: {d}\n\nquery: {q}<|endoftext|>"),
        ("neox", "authors-code-decoder", "Document: {d}\n\nQuery: {q}<|endoftext|>"),
        (
            "neox",
            "authors-code-decoder-evaluation",
            "Document: {d}\n\n[query]{q}<|endoftext|>",
        ),
        ("bert", "ssm-rerankers-encoder", "[CLS] ; query: {q} ; document: {d}"),
        ("neox", "ssm-rerankers-decoder", "document: {d} ; query: {q} ; <|endoftext|>"),
    ],
)
def test_segments_give_the_ids_of_the_printed_wording(
    name: str, template: str, text: str, request: pytest.FixtureRequest
):
    source = request.getfixturevalue(name)
    whole = text.format(q=QUERY, d=DOCUMENT)
    ids = encode_one(source, TextConfig(template), QUERY, DOCUMENT)
    assert ids == source(whole, add_special_tokens=False)["input_ids"]


def test_authors_code_for_encoders_is_one_sequence_cut_at_its_end(bert_tokenizer_folder: Path):
    source = load_tokenizer(bert_tokenizer_folder)
    source.add_tokens(["[query]", "[passage]"])
    tokenizer = PairTokenizer(source, TextConfig("authors-code-encoder", max_length=48))
    pair = tokenizer.encode([(QUERY, DOCUMENT * 9)])[0]
    text = f"[query]{QUERY}[SEP][passage]{DOCUMENT * 9}"
    assert pair.input_ids.tolist() == source(text, truncation=True, max_length=48)["input_ids"]
    assert not pair.token_type_ids.any()
    assert tokenizer.vocabulary_size == 30524


def test_authors_code_for_encoders_needs_its_markers(bert: PreTrainedTokenizerFast):
    with pytest.raises(InputError, match=r"lacks the tokens \[query\], \[passage\]"):
        PairTokenizer(bert, TextConfig("authors-code-encoder"))


def test_a_template_with_cls_is_refused_without_such_a_token(neox: PreTrainedTokenizerFast):
    with pytest.raises(InputError, match=r"'paper-encoder': needs a \[CLS\] token"):
        PairTokenizer(neox, TextConfig("paper-encoder"))


def test_a_documents_ids_do_not_depend_on_its_query(neox: PreTrainedTokenizerFast):
    text = TextConfig("paper-decoder", max_length=60, query_length=20)
    short, long = PairTokenizer(neox, text).encode(
        [("gout", DOCUMENT * 20), (QUERY * 20, DOCUMENT * 20)]
    )
    assert short.input_ids[:40].tolist() == long.input_ids[:40].tolist()
    assert len(long.input_ids) == 60
    assert len(short.input_ids) < 60


@pytest.mark.parametrize(
    ("name", "template"),
    [
        ("bert", "paper-encoder"),
        ("neox", "paper-decoder"),
        ("neox", "ssm-rerankers-decoder"),
    ],
)
def test_cutting_loses_neither_special_tokens_nor_literal_text(
    name: str, template: str, request: pytest.FixtureRequest
):
    source = request.getfixturevalue(name)
    text = TextConfig(template, max_length=40, query_length=16)
    ids = encode_one(source, text, QUERY * 20, DOCUMENT * 20)
    assert len(ids) == 40
    if name == "bert":
        assert (ids[0], ids[-1], ids.count(102)) == (101, 102, 2)
    else:
        assert ids[-1] == source.eos_token_id
        assert "document: " in source.decode(ids)
        assert "query: " in source.decode(ids)


def test_segments_count_queries_and_documents_apart(neox: PreTrainedTokenizerFast):
    tokenizer = PairTokenizer(neox, TextConfig("paper-decoder", max_length=40, query_length=16))
    tokenizer.encode([("a b c", "d e f"), ("a " * 30, "d e f"), ("a b c", " d" * 100)])
    counts = tokenizer.counts
    assert (counts.truncated_queries, counts.truncated_documents) == (1, 1)
    # "document:" takes 2 of the document's 24 tokens.
    assert counts.lost_document_tokens == 100 + 2 + 1 - 24
    assert counts.lost_query_tokens > 15


def test_an_empty_document_is_encoded_and_counted(
    bert: PreTrainedTokenizerFast, neox: PreTrainedTokenizerFast
):
    for source, template in (
        (bert, "pair"),
        (neox, "pair"),
        (neox, "paper-decoder"),
        (bert, "paper-encoder"),
    ):
        tokenizer = PairTokenizer(source, TextConfig(template))
        assert len(tokenizer.encode([(QUERY, "")])[0].input_ids) >= 5
        assert tokenizer.counts.empty_documents == 1


def test_a_pair_without_a_token_is_refused(neox: PreTrainedTokenizerFast):
    with pytest.raises(InputError, match="without a single token"):
        PairTokenizer(neox, TextConfig()).encode([("", "")])


@pytest.mark.parametrize("name", ["bert", "neox"])
@pytest.mark.parametrize("unit", ["a", "word, ", "   "])
def test_a_document_of_a_million_characters_takes_seconds(
    name: str, unit: str, request: pytest.FixtureRequest
):
    document = unit * (1_000_000 // len(unit))
    tokenizer = PairTokenizer(request.getfixturevalue(name), TextConfig())
    start = time.perf_counter()
    pairs = tokenizer.encode([(QUERY, document)])
    assert time.perf_counter() - start < 10
    assert len(pairs[0].input_ids) <= 512


def test_counts_add_up_over_threads(bert: PreTrainedTokenizerFast, real_pairs: list):
    alone = PairTokenizer(bert, TextConfig(max_length=64))
    alone.encode(real_pairs[:100])
    shared = PairTokenizer(bert, TextConfig(max_length=64))
    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(lambda pair: shared.encode([pair]), real_pairs[:100]))
    assert len(results) == 100
    assert shared.counts == alone.counts
    assert shared.counts.summary().startswith("100 pairs tokenised: ")


def test_counts_are_a_sum():
    counts = TruncationCounts(1, 2, 3, 4, 5, 6) + TruncationCounts(pairs=1, empty_documents=1)
    assert counts == TruncationCounts(2, 2, 3, 4, 5, 7)


@pytest.mark.parametrize(
    ("template", "max_length", "query_length"),
    [("paper-encoder", 50, None), ("paper-encoder", 60, 3), ("pair", 3, None)],
)
def test_budgets_without_room_are_refused(
    bert: PreTrainedTokenizerFast, template: str, max_length: int, query_length: int | None
):
    with pytest.raises(InputError, match="max_length"):
        PairTokenizer(bert, TextConfig(template, max_length, query_length))


def test_ids_stay_below_the_vocabulary_size(
    bert: PreTrainedTokenizerFast, neox: PreTrainedTokenizerFast
):
    assert PairTokenizer(bert, TextConfig()).vocabulary_size == 30522
    assert PairTokenizer(neox, TextConfig()).vocabulary_size == 50277
    assert PairTokenizer(neox, TextConfig()).pad_token_id == neox.eos_token_id


@pytest.mark.parametrize(
    ("name", "template"),
    [("bert", "pair"), ("neox", "paper-decoder"), ("bert", "ssm-rerankers-encoder")],
)
def test_joining_writes_pairs_to_any_places(
    name: str, template: str, real_pairs: list, request: pytest.FixtureRequest
):
    tokenizer = PairTokenizer(request.getfixturevalue(name), TextConfig(template, max_length=60))
    pairs = real_pairs[:20] + real_pairs[400:420]
    queries, documents = map(list, zip(*pairs, strict=True))
    first = list(tokenizer.tokenise("query", queries))
    second = list(tokenizer.tokenise("document", documents))
    kept = tokenizer.cut(
        np.array([text.length for text in first]), np.array([text.length for text in second])
    )
    starts = np.arange(len(pairs))[::-1] * 61 + 1
    input_ids = np.full(61 * len(pairs) + 1, -1, np.int32)
    token_type_ids = np.zeros_like(input_ids)
    tokenizer.join(
        [text.input_ids for text in first],
        [text.input_ids.astype(np.uint16) for text in second],
        kept,
        starts=starts,
        input_ids=input_ids,
        token_type_ids=token_type_ids,
    )
    expected = tokenizer.encode(pairs)
    assert tokenizer.lengths(kept).tolist() == [len(pair.input_ids) for pair in expected]
    for start, pair in zip(starts, expected, strict=True):
        end = start + len(pair.input_ids)
        assert input_ids[start:end].tolist() == pair.input_ids.tolist()
        assert token_type_ids[start:end].tolist() == pair.token_type_ids.tolist()
        assert input_ids[start - 1] == -1
        input_ids[start:end], token_type_ids[start:end] = -1, 0
    assert (input_ids == -1).all()
    assert not token_type_ids.any()


def test_tokenising_keeps_max_length_ids_and_the_whole_length(bert: PreTrainedTokenizerFast):
    tokenizer = PairTokenizer(bert, TextConfig(max_length=16))
    # More than are tokenised at once.
    texts = ["a " * (number % 40) for number in range(1200)]
    for number, text in enumerate(tokenizer.tokenise("document", texts)):
        assert text.length == number % 40
        assert len(text.input_ids) == min(16, text.length)
        assert text.is_empty == (number % 40 == 0)


def tokenized(*ids: int) -> TokenizedPair:
    return TokenizedPair(np.array(ids, np.int32), np.ones(len(ids), np.int32))


def test_padding_is_on_the_right_and_masked():
    batch = pad_pairs([tokenized(5, 6, 7), tokenized(8)], length=4, pad_token_id=9, rows=3)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 9], [8, 9, 9, 9], [9, 9, 9, 9]]
    assert batch["mask"].astype(int).tolist() == [[1, 1, 1, 0], [1, 0, 0, 0], [1, 0, 0, 0]]
    assert batch["token_type_ids"].tolist() == [[1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]]


def test_padding_never_cuts():
    with pytest.raises(ValueError, match="3 tokens does not fit into 2"):
        pad_pairs([tokenized(5, 6, 7)], length=2, pad_token_id=0)
    with pytest.raises(ValueError, match="2 pairs do not fit into 1"):
        pad_pairs([tokenized(5), tokenized(6)], length=2, pad_token_id=0, rows=1)
