"""jaxrank.rerank on documents that are longer than the model reads at once."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import jaxrank
from ckpt_convert.load import LoadedModel, with_text
from jaxrank import rerank
from jaxrank.data.groups import read_groups
from jaxrank.errors import InputError
from jaxrank.evaluation.runs import Run, read_run
from jaxrank.models.families import get_family
from jaxrank.models.module import RerankerConfig, build_module, init_module, parameters
from jaxrank.ranking.policies import LongDocuments
from jaxrank.reranker import Reranker
from jaxrank.text.templates import TextConfig
from jaxrank.text.tokenize import load_tokenizer

WORDS = ["heart", "liver", "asthma", "fever", "cough", "rash", "pain", "stroke", "cancer", "burn"]
QUERIES = {"q0": "What is gout?", "q1": "Is acne painful?"}
TITLES = {"d0": "On gout", "d1": "", "d2": "Burns", "d3": "On asthma"}
BODIES = {
    "d0": "Gout is arthritis.",
    "d1": "",
    "d2": " ".join(np.random.default_rng(0).permutation(WORDS * 12)),
    "d3": " ".join(np.random.default_rng(1).permutation(WORDS * 9)),
}
TEXTS = {name: f"{TITLES[name]} {body}".strip() for name, body in BODIES.items()}
PAIRS = [(query, document) for query in QUERIES for document in BODIES]
WINDOW, STRIDE = 30, 12


def write_lines(path: Path, lines: Sequence[object]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines))


def make_model(family: str, tokenizer: Path, text: TextConfig) -> Reranker:
    preset = get_family(family).presets[f"{family}-tiny"]
    config = RerankerConfig(family, replace(preset, num_layers=1), head="linear")
    random = np.random.default_rng(0)
    start = {name: np.asarray(a) for name, a in parameters(init_module(config, seed=0)).items()}
    # A larger head than at a random start, so that scores differ.
    drawn = {name: random.normal(0, 1, a.shape) for name, a in start.items() if "score" in name}
    start |= {name: value.astype(np.float32) for name, value in drawn.items()}
    return Reranker(config, build_module(config, start), load_tokenizer(tokenizer), text)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, bert_tokenizer_folder: Path) -> Path:
    """A collection with short and long documents, a run, groups and a tiny BERT."""
    folder = tmp_path_factory.mktemp("rerank")
    (folder / "c").mkdir()
    write_lines(
        folder / "c" / "corpus.jsonl",
        [
            json.dumps({"_id": name, "title": TITLES[name], "text": body})
            for name, body in BODIES.items()
        ],
    )
    write_lines(
        folder / "c" / "queries.jsonl",
        [json.dumps({"_id": name, "text": text}) for name, text in QUERIES.items()],
    )
    write_lines(folder / "in.run", [f"{query} Q0 {name} 1 1 t" for query, name in PAIRS])
    group = {"query_id": "q0", "positive_id": "d0", "negative_ids": ["d2", "d3"]}
    write_lines(folder / "groups.jsonl", [json.dumps(group)])
    text = TextConfig("pair", max_length=48)
    make_model("bert", bert_tokenizer_folder, text).save_pretrained(folder / "bert")
    return folder


@pytest.fixture(scope="module")
def bert(folder: Path) -> Reranker:
    return Reranker.from_pretrained(folder / "bert")


@pytest.fixture(scope="module")
def mamba(neox_tokenizer_folder: Path) -> Reranker:
    text = TextConfig("paper-decoder", max_length=48, query_length=16)
    return make_model("mamba", neox_tokenizer_folder, text)


def call(folder: Path, *more: str) -> Run:
    output = folder / "out.run"
    rerank.main(
        ["--model", str(folder / "bert"), "--collection", str(folder / "c"),
         "--run", str(folder / "in.run"), "--output", str(output), *more]
    )  # fmt: skip
    return read_run(output)


def windows_of(text: str, window: int, stride: int) -> list[str]:
    """What the windows of these documents are for BERT, where every word is one token."""
    words = text.replace(".", " .").split()
    starts = [0]
    while starts[-1] + window < len(words):
        starts.append(starts[-1] + stride)
    parts = [" ".join(words[start : start + window]).replace(" .", ".") for start in starts]
    return [text] if len(parts) == 1 else parts


def scores_by_pair(
    model: Reranker, windows: dict[tuple[str, str], list[str]]
) -> dict[tuple[str, str], np.ndarray]:
    """What the model says of each window by itself."""
    flat = [(QUERIES[query], text) for (query, _), texts in windows.items() for text in texts]
    ends = np.cumsum([len(texts) for texts in windows.values()])
    return dict(zip(windows, np.split(model.predict(flat), ends[:-1]), strict=True))


def assert_near(run: Run, expected: dict[tuple[str, str], float]) -> None:
    found = [run[query][document] for query, document in expected]
    np.testing.assert_allclose(found, list(expected.values()), rtol=1e-5, atol=1e-5)
    assert np.std(found) > 0.01


def test_maxp_and_sump_put_together_what_each_window_scores(
    folder: Path, bert: Reranker, capsys: pytest.CaptureFixture[str]
):
    scores = scores_by_pair(
        bert, {pair: windows_of(TEXTS[pair[1]], WINDOW, STRIDE) for pair in PAIRS}
    )
    windows = ["--window", str(WINDOW), "--stride", str(STRIDE)]
    run = call(folder, "--long_documents", "maxp", *windows)
    assert_near(run, {pair: float(of_windows.max()) for pair, of_windows in scores.items()})
    printed = capsys.readouterr().out
    number = sum(map(len, scores.values()))
    beyond = 2 * (1 + 120 + 2 + 90 - 2 * WINDOW)
    assert "8 pairs of 2 queries in " in printed
    assert (
        f"8 documents read in {number} windows, 4 of them in more than one; {beyond} tokens lie "
        "beyond their first\n"
    ) in printed
    assert f"{number} pairs tokenised: 0 queries cut (0 tokens lost), 0 documents cut" in printed
    sump = LongDocuments("sump", window=WINDOW, stride=STRIDE)
    found = bert.predict([(QUERIES[q], TEXTS[d]) for q, d in PAIRS], long_documents=sump)
    expected = [np.log(np.exp(of_windows).sum()) for of_windows in scores.values()]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_titles_stand_in_front_of_windows_when_asked_for(
    folder: Path, bert: Reranker, capsys: pytest.CaptureFixture[str]
):
    options = ["--long_documents", "maxp", "--window", str(WINDOW), "--stride", str(WINDOW)]
    run = call(folder, *options, "--window_title", "true")
    windows = {}
    for query, name in PAIRS:
        title = TITLES[name]
        room = WINDOW - len(title.split())
        parts = windows_of(BODIES[name], room, room)
        windows[query, name] = [f"{title} {part}".strip() for part in parts]
    scores = scores_by_pair(bert, windows)
    expected = {pair: float(of_windows.max()) for pair, of_windows in scores.items()}
    assert_near(run, expected)
    assert "documents without a title for their windows: 2" in capsys.readouterr().out
    with pytest.raises(InputError, match="window_title: got true with document_text body"):
        call(folder, *options, "--window_title", "true", "--document_text", "body")


@pytest.mark.parametrize("name", ["bert", "mamba"])
def test_windows_see_the_end_of_a_document_and_firstp_does_not(
    name: str, request: pytest.FixtureRequest
):
    model: Reranker = request.getfixturevalue(name)
    text = TEXTS["d3"]
    pairs = [("What is gout?", text), ("What is gout?", f"{text} gout gout gout gout gout gout")]
    for policy, sees in [("firstp", False), ("longp", False), ("maxp", True), ("sump", True)]:
        window = 30 if sees else None
        settings = LongDocuments(policy, window=window, stride=window)
        scorer = model.document_scorer(settings, 8)
        before, after = scorer.window_scores(pairs)
        assert (len(before) == len(after) == 1) != sees
        shared = before[:-1] if sees else before
        np.testing.assert_allclose(shared, after[: len(shared)], atol=1e-5)
        assert (abs(before[-1] - after[-1]) > 1e-3) == sees


def test_longp_reads_up_to_max_length(folder: Path, capsys: pytest.CaptureFixture[str]):
    run = call(folder, "--long_documents", "longp", "--max_length", "512")
    assert "8 pairs tokenised: 0 queries cut (0 tokens lost), 0 documents cut" in (
        capsys.readouterr().out
    )
    model = Reranker.from_pretrained(folder / "bert", max_length=512)
    scores = model.predict([(QUERIES[query], TEXTS[name]) for query, name in PAIRS])
    assert_near(run, dict(zip(PAIRS, map(float, scores), strict=True)))


def test_state_space_models_read_any_length(mamba: Reranker):
    long = replace(mamba.text, max_length=100_000)
    model = Reranker(mamba.config, mamba.module, mamba.tokenizer, long)
    scores = model.predict([("What is gout?", TEXTS["d2"] * 6), ("gout", TEXTS["d2"] * 6)])
    assert model.truncation.truncated_documents == 0
    assert np.ptp(scores) > 1e-4


@pytest.mark.parametrize(
    ("family", "tokenizer", "positions"),
    [("bert", "bert-base-uncased", 512), ("roberta", "roberta-base", 512), ("opt", "opt", 2048)],
)
def test_a_length_beyond_the_positions_is_refused_with_the_mend(
    bert_tokenizer_folder: Path, family: str, tokenizer: str, positions: int
):
    config = RerankerConfig(family, get_family(family).presets[f"{family}-tiny"])
    found = load_tokenizer(bert_tokenizer_folder.parent / tokenizer)
    loaded = LoadedModel(config, {}, found, TextConfig("pair"))
    longest = TextConfig("pair", max_length=positions)
    assert with_text(loaded, longest).text == longest
    message = f"max_length: got {positions + 1}; this model has {positions} pos.*_documents maxp"
    with pytest.raises(InputError, match=message):
        with_text(loaded, TextConfig("pair", max_length=positions + 1))


def test_groups_are_scored_by_the_same_policies(folder: Path, bert: Reranker):
    rerank.main(
        ["--model", str(folder / "bert"), "--collection", str(folder / "c"), "--groups",
         str(folder / "groups.jsonl"), "--output", str(folder / "scored.jsonl"),
         "--long_documents", "maxp", "--window", "30"]
    )  # fmt: skip
    (group,) = read_groups(folder / "scored.jsonl")
    pairs = [(QUERIES["q0"], TEXTS[name]) for name in ("d0", "d2", "d3")]
    expected = bert.predict(pairs, long_documents=LongDocuments("maxp", window=30))
    np.testing.assert_allclose(group.teacher_scores, expected, rtol=1e-5)


def test_document_text_chooses_the_fields(folder: Path, bert: Reranker):
    run = call(folder, "--document_text", "body")
    scores = bert.predict([(QUERIES[query], BODIES[name]) for query, name in PAIRS])
    assert_near(run, dict(zip(PAIRS, map(float, scores), strict=True)))


def test_python_takes_policies_and_titles(bert: Reranker):
    settings = jaxrank.LongDocuments("maxp", window=WINDOW, stride=STRIDE + 1)
    texts = list(TEXTS.values())
    scores = bert.predict([(QUERIES["q0"], text) for text in texts], long_documents=settings)
    assert scores.dtype == np.float32
    counts = bert.document_scorer(settings).counts
    assert counts is not None
    assert (counts.documents, counts.in_several) == (4, 2)
    ranked = bert.rank(QUERIES["q0"], texts, long_documents=settings)
    assert [row["score"] for row in ranked] == sorted(map(float, scores), reverse=True)
    titled = jaxrank.TitledText(TITLES["d3"], BODIES["d3"])
    plain = bert.predict([("gout", titled), ("gout", TEXTS["d3"])])
    assert plain[0] == plain[1], "without windows a title is the beginning of the text"
    assert bert.predict([], long_documents=settings).shape == (0,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--window", "30"], "window: got 30 with long_documents firstp, which has no windows"),
        (["--window_title", "true"], "window_title: got true with long_documents firstp"),
        (["--long_documents", "longp"], "longp: this model reads 48 tokens, which is firstp; giv"),
        (["--long_documents", "maxp"], "max_length: got 48; .* leaves none for a window"),
        (["--long_documents", "maxp", "--window", "46"], "window: got 46; with max_length 48"),
        (["--long_documents", "best"], "long_documents: got best; firstp, maxp, sump or longp"),
        (["--max_length", "0"], "max_length: got 0; at least 1"),
        (["--max_length", "513"], "max_length: got 513; this model has 512 positions"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(
    folder: Path, options: Sequence[str], message: str
):
    (folder / "out.run").unlink(missing_ok=True)
    with pytest.raises(InputError, match=message) as error:
        call(folder, *options)
    assert "\n" not in str(error.value)
    assert not (folder / "out.run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--window_title", "true", "--long_documents", "maxp"], "window_title: .* no titles"),
        (["--document_text", "body"], "document_text: got body; it chooses fields of a collection"),
    ],
)
def test_what_groups_have_not_is_refused(folder: Path, options: Sequence[str], message: str):
    arguments = ["--model", "none", "--groups", "none", "--output", str(folder / "none.jsonl")]
    with pytest.raises(InputError, match=message):
        rerank.main([*arguments, *options])
