"""The studies of long documents and of truncation, on a collection of a few documents."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxrank.errors import InputError
from jaxrank.evaluation.query_values import QueryValues
from jaxrank.evaluation.runs import read_run
from jaxrank.models.bert import BertConfig
from jaxrank.models.module import RerankerConfig, init_module
from jaxrank.reranker import Reranker
from jaxrank.text.templates import TextConfig
from jaxrank.text.tokenize import load_tokenizer
from scripts import long_documents, truncation_report

NUM_QUERIES = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, bert_tokenizer_folder: Path) -> Path:
    """Articles in which a query's number comes late, positions, a first stage and a tiny BERT."""
    folder = tmp_path_factory.mktemp("studies")
    collection = folder / "c"
    collection.mkdir()
    random = np.random.default_rng(0)
    queries, documents, qrels, run, positions = [], [], [], [], []
    for number in range(NUM_QUERIES):
        before = 10 * number
        words = ["pain"] * before + [str(number)] * 3 + ["rash"] * 30
        documents.append({"_id": f"d{number}", "text": " ".join(words)})
        queries.append({"_id": f"q{number}", "text": f"what is {number}"})
        qrels.append(f"q{number} 0 d{number} 1")
        positions.append(f"q{number}\t{before}")
        scores = random.permutation(NUM_QUERIES)
        run += [f"q{number} Q0 d{d} 1 {scores[d]} t" for d in range(NUM_QUERIES)]
    for name, lines in {
        "corpus.jsonl": map(json.dumps, documents),
        "queries.jsonl": map(json.dumps, queries),
        "qrels.dev.txt": qrels,
        "positions.dev.tsv": positions,
        "../bm25.run": run,
    }.items():
        (collection / name).write_text("".join(f"{line}\n" for line in lines))
    backbone = BertConfig(
        hidden_size=16, num_layers=1, num_heads=2, intermediate_size=32,
        max_position_embeddings=64, initializer_range=0.5,
    )  # fmt: skip
    config = RerankerConfig("bert", backbone, head="classification")
    Reranker(
        config,
        init_module(config, seed=0),
        load_tokenizer(bert_tokenizer_folder),
        TextConfig(max_length=32),
    ).save_pretrained(folder / "model")
    return folder


def call(
    script: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, *options: str
) -> dict[str, Any]:
    files = ["--collection", "c", "--run", "bm25.run", "--output", "runs", "--json", "out.json"]
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["script", *files, *options])
    script.main()
    return json.loads((folder / "out.json").read_text())


def test_every_policy_is_measured_by_position(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    result = call(
        long_documents, folder, monkeypatch, "--models", "tiny=model", "--queries", "6",
        "--depth", "4", "--edges", "20", "40", "--window", "20", "--stride", "10",
    )  # fmt: skip
    found = result["models"]["tiny"]
    names = {"firstp", "first stage", "maxp", "sump", "longp"}
    assert found["all"]["runs"].keys() == names
    assert found["all"]["baseline"] == "firstp"
    slices = found["slices"]["slices"]
    assert [(one["from"], one["to"], one["queries"]) for one in slices] == [
        (0, 10, 2), (20, 30, 2), (40, 50, 2)
    ]  # fmt: skip
    firstp, windows, longp = found["passes"]
    assert [one["max_length"] for one in found["passes"]] == [32, 32, 64], "positions set a limit"
    assert firstp["pairs"] == firstp["texts"] == longp["texts"] == windows["pairs"] == 24
    assert windows["texts"] > 48
    assert windows["tokens_lost"] == 0 < longp["tokens_lost"] < firstp["tokens_lost"]
    maxp, sump = (read_run(folder / "runs" / f"tiny.{name}.run") for name in ("maxp", "sump"))
    assert all(
        sump[query][name] > maxp[query][name] - 1e-6 for query in maxp for name in maxp[query]
    )
    printed = capsys.readouterr().out
    assert "words before the relevant passage" in printed
    assert f"of 6 questions {result['settings']['found_by_first_stage']} have a rel" in printed


def test_a_model_without_a_name_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(InputError, match="models: got 'model'; NAME=FOLDER is needed"):
        call(long_documents, folder, monkeypatch, "--models", "model")


def test_queries_are_drawn_evenly_over_positions():
    places = QueryValues("p", {f"q{n:03}": float(n) for n in range(100)})
    drawn = long_documents.draw_queries(places, [10.0, 50.0], 36, seed=3)
    assert len(set(drawn)) == 36
    assert drawn == sorted(drawn)
    numbers = np.array([int(name[1:]) for name in drawn])
    # The first range has ten only; the others share what is left.
    assert np.histogram(numbers, [0, 10, 50, 100])[0].tolist() == [10, 13, 13]
    assert drawn == long_documents.draw_queries(places, [10.0, 50.0], 36, seed=3)
    assert drawn != long_documents.draw_queries(places, [10.0, 50.0], 36, seed=4)


def test_a_shorter_length_cuts_more_and_is_tested_against_the_longest(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    result = call(
        truncation_report, folder, monkeypatch, "--model", "model", "--queries", "3",
        "--depth", "4", "--lengths", "16", "64", "32",
    )  # fmt: skip
    cuts = result["cuts"]
    assert list(cuts) == ["16", "32", "64"]
    assert [cuts[length]["pairs"] for length in cuts] == [24] * 3, "all questions are counted"
    lost = [cuts[length]["lost_document_tokens"] for length in cuts]
    assert lost[0] > lost[1] > lost[2] > 0
    # 6 tokens are the query's and the special ones; documents have 33 to 83.
    run = read_run(folder / "bm25.run")
    kept = {f"d{number}": min(33 + 10 * number, 16 - 6) for number in range(NUM_QUERIES)}
    lengths = {name: 33 + 10 * int(name[1:]) for name in kept}
    best = [sorted(scores, key=lambda name: -scores[name])[:4] for scores in run.values()]
    assert lost[0] == sum(lengths[name] - kept[name] for names in best for name in names)
    assert result["measures"]["baseline"] == "64 tokens"
    assert result["measures"]["queries"] == 3
    assert result["measures"]["runs"].keys() == {"16 tokens", "32 tokens", "64 tokens"}
    assert all(len(read_run(folder / "runs" / f"{length}.run")) == 3 for length in (16, 32, 64))
    assert "6 questions, 24 candidates; measures over 3 of them" in capsys.readouterr().out


def test_more_questions_than_there_are_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(InputError, match="queries: got 7; the run has 6"):
        call(truncation_report, folder, monkeypatch, "--model", "model", "--queries", "7")
