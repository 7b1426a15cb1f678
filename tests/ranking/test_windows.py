"""Windows hold every word and none is cut; titles stand in front of them."""

import itertools
import random
from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from jaxrank.errors import InputError
from jaxrank.ranking import windows
from jaxrank.ranking.windows import TitledText, WindowCounts, WindowCutter, find_spans
from jaxrank.text.templates import TextConfig
from jaxrank.text.tokenize import PairTokenizer, load_tokenizer

TOKENIZERS = Path(__file__).parents[1] / "data" / "tokenizers"
KINDS = {
    "bert-pair": ("bert-base-uncased", TextConfig("pair", max_length=80)),
    "bert-paper": ("bert-base-uncased", TextConfig("paper-encoder", max_length=80)),
    "neox-paper": ("gpt-neox-20b", TextConfig("paper-decoder", max_length=80)),
    "neox-ssm": ("gpt-neox-20b", TextConfig("ssm-rerankers-decoder", max_length=80)),
    "opt-authors": ("opt", TextConfig("authors-code-decoder", max_length=80)),
    "roberta-pair": ("roberta-base", TextConfig("pair", max_length=80)),
    "t5-paper": ("t5", TextConfig("paper-encoder-decoder", max_length=80)),
}


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request: pytest.FixtureRequest) -> PairTokenizer:
    name, text = KINDS[request.param]
    if not (TOKENIZERS / name).is_dir():
        pytest.skip(f"no tokenizer {name}")
    return PairTokenizer(load_tokenizer(TOKENIZERS / name), text)


@pytest.fixture(scope="module")
def bert(bert_tokenizer_folder: Path) -> PreTrainedTokenizerFast:
    return load_tokenizer(bert_tokenizer_folder)


@pytest.fixture(scope="module")
def pair_tokenizer(bert: PreTrainedTokenizerFast) -> PairTokenizer:
    return PairTokenizer(bert, TextConfig("pair", max_length=80))


def random_text(seed: int, words: int) -> str:
    """Words of odd kinds between odd blanks; every word is there once."""
    draw = random.Random(seed)
    ends = ["", "itis", "'s", "é", "ünder", "-\u03b1-\u03b2", ".", "€99", "🦠", "Retinoblastoma"]
    gaps = [" ", " ", " ", "\n\n", "\t", "  ", "\u00a0", " \n "]
    parts = [f"w{number}{draw.choice(ends)}{draw.choice(gaps)}" for number in range(words)]
    return draw.choice(["", " ", "\n"]) + "".join(parts)


@pytest.mark.parametrize("stride", [None, 5, 30])
@pytest.mark.parametrize("words", [1, 9, 200])
def test_windows_hold_every_word_uncut_and_in_order(
    tokenizer: PairTokenizer, words: int, stride: int | None
) -> None:
    for seed in range(4):
        text = random_text(seed, words)
        cutter = WindowCutter(tokenizer, window=30, stride=stride)
        found = cutter.cut(text)
        starts = [text.index(window.strip()) for window in found]
        ends = [start + len(window.strip()) for start, window in zip(starts, found, strict=True)]
        assert starts == sorted(set(starts))
        assert ends[-1] == len(text.rstrip())
        in_windows = [window.split() for window in found]
        assert set(itertools.chain(*in_windows)) == set(text.split())
        assert all(next_start <= end + 4 for next_start, end in zip(starts[1:], ends, strict=False))
        lengths = [window.length for window in tokenizer.tokenise("document", found)]
        assert max(lengths) <= 30
        _, counts = tokenizer.encode_and_count([("what?", window) for window in found])
        assert counts.truncated_documents == 0
        assert cutter.counts.windows == len(found)


@pytest.mark.parametrize("text", ["", " \n ", "one word", "fits into one window " * 4])
def test_a_document_that_fits_is_read_as_it_is(tokenizer: PairTokenizer, text: str) -> None:
    cutter = WindowCutter(tokenizer)
    assert cutter.cut(text) == [text]
    assert cutter.counts == WindowCounts(documents=1, windows=1)


def test_a_word_longer_than_a_window_loses_nothing(tokenizer: PairTokenizer) -> None:
    text = "start " + "".join(f"{n}xq" for n in range(60)) + " 癌症是一大类疾病的统称。" * 9 + "end"
    found = WindowCutter(tokenizer, window=20, stride=20).cut(text)
    assert "".join("".join(found).split()) == "".join(text.split())
    assert max(window.length for window in tokenizer.tokenise("document", found)) <= 20


def test_blanks_longer_than_a_window_make_one_window(neox_tokenizer_folder: Path) -> None:
    tokenizer = PairTokenizer(
        load_tokenizer(neox_tokenizer_folder), TextConfig("paper-decoder", max_length=80)
    )
    text = "\n\t" * 300
    assert WindowCutter(tokenizer).cut(text) == [text]


def test_the_stride_is_kept_where_words_allow() -> None:
    text = " ".join("abcdefghijkl")
    ends = np.arange(1, 24, 2)
    spans = find_spans(text, ends, room=5, stride=3)
    assert [text[start:end].replace(" ", "") for start, end in spans] == [
        "abcde", "defgh", "ghijk", "jkl",
    ]  # fmt: skip
    spans = find_spans(text, ends, room=5, stride=5)
    assert [text[start:end].replace(" ", "") for start, end in spans] == ["abcde", "fghij", "kl"]


def test_a_stride_beyond_what_a_title_leaves_room_for_jumps_over_no_word() -> None:
    spans = find_spans("a b c d e", np.array([1, 3, 5, 7, 9]), room=2, stride=4)
    assert spans.tolist() == [[0, 3], [4, 7], [8, 9]]


def test_a_word_that_the_stride_would_jump_over_begins_a_window() -> None:
    # One word of four tokens: it does not fit behind "a b", and the stride leads into its midst.
    text, ends = "a b cccc d", np.array([1, 3, 5, 6, 7, 8, 10])
    spans = find_spans(text, ends, room=5, stride=3)
    assert [text[start:end] for start, end in spans] == ["a b", "cccc d"]


@pytest.mark.parametrize(
    ("config", "window"),
    [
        (TextConfig("pair", max_length=128), 78),
        (TextConfig("pair", max_length=512), 462),
        (TextConfig("paper-encoder", max_length=128), 78),
        (TextConfig("paper-encoder", max_length=128, query_length=28), 100),
        (TextConfig("ssm-rerankers-encoder", max_length=512), 462),
    ],
)
def test_a_window_takes_what_the_template_gives_a_document(
    bert: PreTrainedTokenizerFast, config: TextConfig, window: int
) -> None:
    cutter = WindowCutter(PairTokenizer(bert, config))
    assert (cutter.window, cutter.stride) == (window, window // 2)


@pytest.mark.parametrize(
    ("window", "stride", "message"),
    [
        (0, None, "window: got 0; .* 'pair' takes windows of 1 to 76 tokens"),
        (77, None, "window: got 77; with max_length 80"),
        (20, 21, "stride: got 21; from 1 to the window's 20"),
        (20, 0, "stride: got 0; from 1"),
    ],
)
def test_windows_that_cannot_be_are_refused(
    pair_tokenizer: PairTokenizer, window: int, stride: int | None, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        WindowCutter(pair_tokenizer, window=window, stride=stride)


def test_no_room_for_a_window_is_refused(bert: PreTrainedTokenizerFast) -> None:
    with pytest.raises(InputError, match=r"max_length: got 50; .* give --window"):
        WindowCutter(PairTokenizer(bert, TextConfig("pair", max_length=50)))


def test_a_title_stands_in_front_of_each_window(tokenizer: PairTokenizer) -> None:
    body = random_text(0, 100)
    cutter = WindowCutter(tokenizer, window=30)
    found = cutter.cut(TitledText("On acne", body))
    assert len(found) > 5
    assert all(window.startswith("On acne w") for window in found)
    assert {word for window in found for word in window.split()[2:]} == set(body.split())
    assert max(window.length for window in tokenizer.tokenise("document", found)) <= 30
    assert cutter.cut(TitledText("On acne", "Short.")) == ["On acne Short."]
    assert cutter.counts.without_title == 0


def test_titles_that_are_missing_or_too_long_are_counted(pair_tokenizer: PairTokenizer) -> None:
    cutter = WindowCutter(pair_tokenizer, window=10, stride=10)
    text = " ".join("abcdefghijklmnop")
    assert cutter.cut(TitledText("", text)) == cutter.cut(text)
    assert cutter.counts.without_title == 1
    assert cutter.cut(TitledText("1 2 3 4 5 6", text))[:2] == [
        "1 2 3 4 5 6 a b c d",
        "e f g h i j k l m n",
    ]
    assert cutter.counts.titles_too_long == 1
    assert cutter.counts.lines()[1:] == [
        "documents without a title for their windows: 1",
        "titles over half a window: 1; they stand in the first windows only, as part of the text",
    ]


def test_counts_say_how_many_windows_and_what_the_first_ones_miss(
    pair_tokenizer: PairTokenizer,
) -> None:
    cutter = WindowCutter(pair_tokenizer, window=10, stride=5)
    cutter.cut("a " * 10)
    cutter.cut("a " * 23)
    assert cutter.counts == WindowCounts(
        documents=2, in_several=1, windows=5, tokens_beyond_first=13
    )
    assert cutter.counts.lines() == [
        "2 documents read in 5 windows, 1 of them in more than one; 13 tokens lie beyond their "
        "first"
    ]


def test_a_documents_windows_are_found_once(
    pair_tokenizer: PairTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    cutter = WindowCutter(pair_tokenizer, window=10)
    calls = []
    find = windows.find_spans
    monkeypatch.setattr(
        windows, "find_spans", lambda *args, **more: calls.append(1) or find(*args, **more)
    )
    first = cutter.cut("a b c " * 9)
    assert cutter.cut("a b c " * 9) == first
    assert len(calls) == 1
    monkeypatch.setattr(windows, "_PLANS_KEPT", 1)
    cutter.cut("x y z " * 9)
    assert cutter.cut("a b c " * 9) == first
    assert len(calls) == 3, "only so many are kept"
