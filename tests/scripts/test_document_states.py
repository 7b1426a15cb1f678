"""The measurements of document states, with tiny models, and their arithmetic."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jaxrank.data.collection import Collection
from jaxrank.evaluation.report import compare_runs
from jaxrank.ranking.document_states.disk.store import StateStore
from scripts.document_states import bit_flips, exactness, kills, speed, storage
from scripts.document_states.agreement import compare_scores
from scripts.document_states.candidates import on_disk, read_documents
from scripts.document_states.killed_writer import differing_files
from scripts.document_states.random_models import RandomModel
from scripts.document_states.report import Promise
from scripts.document_states.speed_rows import (
    Line,
    Row,
    crossing,
    flatness,
    make_promises,
    ratio_table,
    ratios,
    time_table,
)
from scripts.document_states.turns import Side, take_turns

FULL, MEMORY = Line("mamba-130m", "full pass"), Line("mamba-130m", "memory")


def call(
    script: Any, monkeypatch: pytest.MonkeyPatch, folder: Path, *options: object
) -> tuple[int, dict[str, Any]]:
    """The status of a script's main function, and what it wrote."""
    path = folder / "out.json"
    arguments = ["script", "--scratch", str(folder), "--json", str(path), *map(str, options)]
    monkeypatch.setattr(sys, "argv", arguments)
    return script.main(), json.loads(path.read_text())


def row(line: Line, length: int, ms: float, measured: int = 100) -> Row:
    return Row(line, length, length + 15, measured, ms, spread=0.1, seconds=(ms / 1e3,))


def test_texts_have_exactly_so_many_tokens():
    model = RandomModel("mamba-130m", 40, is_toy=True)
    texts = model.documents(3, 37)
    assert [len(ids) for ids in model.tokenizer.documents(texts)] == [37] * 3
    assert len(set(texts)) == 3
    assert len(model.tokenizer.queries([model.query(15)])[0]) == 15
    with pytest.raises(ValueError, match="got 2; the template alone takes 2"):
        model.documents(1, 2)


def test_sides_take_turns_and_warming_up_does_not_count():
    called = []
    sides = [
        Side(name, lambda name=name: called.append(name), lambda: called.append("prepare"))
        for name in "ab"
    ]
    timings = take_turns(sides, repeats=2, warmup=1)
    assert called == ["prepare", "a", "prepare", "b"] * 3
    assert {name: len(timing.seconds) for name, timing in timings.items()} == {"a": 2, "b": 2}


def test_a_crossing_lies_between_the_lengths_around_it():
    # Half as long at 128, twice as long at 512: equal at their geometric mean.
    assert crossing({512: 2.0, 128: 0.5, 1024: 4.0}) == "256"
    assert crossing({128: 1.5, 512: 3.0}) == "below 128"
    assert crossing({128: 0.2, 2048: 0.9}) == "not up to 2,048"
    assert crossing({}) == "not measured"


def test_ratios_and_promises_are_of_the_same_length():
    rows = [row(FULL, 512, 80_000), row(MEMORY, 512, 3_000), row(MEMORY, 1024, 3_100)]
    rows += [row(FULL, 1024, 160_000, measured=25), row(Line("mamba-130m", "disk"), 512, 8_000)]
    assert ratios(rows, FULL, MEMORY) == pytest.approx({512: 80 / 3, 1024: 160 / 3.1})
    kept = {
        promise.name.split(", ")[2]: promise.kept for promise in make_promises(rows, FULL.model)
    }
    assert kept == {"memory": True, "disk": False}
    table = time_table(rows, 100).splitlines()
    assert table[2] == "| mamba-130m, full pass | 80,000 ±5% | 160,000* ±5% |"
    assert "| 26.67 | 51.61 | below 512 |" in ratio_table(rows, MEMORY)
    cold = replace(rows[-1], from_device=0.985)
    assert [one.kept for one in make_promises([cold], FULL.model)] == [True]
    cached = replace(cold, from_device=0.0)
    assert [one.kept for one in make_promises([cached], FULL.model)] == [False]
    assert "8,000 ±5% r98% |" in time_table([cold], 100)


def test_a_time_that_grows_with_the_document_breaks_the_promise():
    assert [one.kept for one in flatness({256: 1.0, 512: 2.0, 4096: 2.1})] == [True]
    assert [one.kept for one in flatness({512: 2.0, 4096: 2.3})] == [False]
    assert not Promise("a NaN", float("nan"), 1.0).kept


def test_a_swapped_pair_is_as_far_apart_as_by_right():
    right = {"q": {"a": 3.0, "b": 2.5, "c": 1.0}, "r": {"a": 1.0, "b": 0.0}}
    other = {"q": {"a": 2.4, "b": 2.6, "c": 1.0}, "r": {"a": 1.0, "b": 0.5}}
    found = compare_scores(right, other)
    assert (found.queries, found.pairs, found.same_rankings) == (2, 5, 1)
    assert found.largest_difference == pytest.approx(0.6)
    assert found.mean_difference == pytest.approx(1.2 / 5)
    assert found.largest_swapped_gap == pytest.approx(0.5)


@pytest.mark.slow
def test_speed_is_measured_for_every_way_to_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    plot = tmp_path / "plot.png"
    status, result = call(
        speed, monkeypatch, tmp_path, "--toy", "--plot", plot, "--lengths", 12, "--whole_at", 12,
        "--candidates", 3, "--repeats", 1, "--full_tokens", 60, "--dtypes", "float32", "--rivals",
        "minilm-l6",
    )  # fmt: skip
    assert status == 0
    ways = {tuple(one["line"].values()): one for one in result["rows"]}
    assert len(ways) == 5
    assert ways["mamba-130m", "full pass", "float32"]["measured"] == 3, "all, for the promise"
    assert ways["minilm-l6", "full pass", "float32"]["measured"] == 2, "60 tokens, 27 a pair"
    assert ways["mamba-130m", "disk", "float32"]["measured"] == 3
    of_disk = ways["mamba-130m", "disk", "float32"]["from_device"]
    assert of_disk is None or of_disk >= 0
    assert ways["mamba-130m", "page cache", "float32"]["from_device"] is None
    assert all(one["ms"] > 0 for one in ways.values())
    assert result["machine"]["cores"] > 0
    assert result["command"].startswith("python -m scripts.document_states.")
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert "mamba-130m, states float32, disk" in capsys.readouterr().out


def test_sizes_are_those_of_published_models():
    # 24 layers of 1536 channels, each with 16 states and 3 inputs of the convolution.
    assert storage.sizes_of("mamba-130m", 16)["bfloat16"] == 24 * 1536 * (16 + 3) * 2
    # 12 layers, keys and values of 768 for each of 16 tokens.
    assert storage.sizes_of("pythia-160m", 16)["float32"] == 12 * 2 * 768 * 16 * 4
    with pytest.raises(KeyError):
        storage.sizes_of("mamba-131m", 16)


@pytest.mark.slow
def test_stores_are_built_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    _, result = call(
        storage, monkeypatch, tmp_path, "--toy", "--length", 16, "--documents", 3, "--on_disk",
        "mamba-130m", "--dtypes", "bfloat16", "--candidates", 2, "--repeats", 1,
    )  # fmt: skip
    assert result["bytes_a_document"].keys() == set(storage.PRESETS)
    (store,) = result["stores"]
    assert store["disk_bytes"] > store["state_bytes"]
    assert len(store["reading"]) == 5
    assert all(rate["documents_per_s"] > 0 for rate in store["reading"].values())


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five documents' states."""
    folder = tmp_path_factory.mktemp("states") / "store"
    model = RandomModel("mamba-130m", 16, is_toy=True)
    on_disk(folder, *read_documents(model, "bfloat16", 12), count=5)
    return folder


def test_flipped_bits_are_found_and_refused(store: Path, tmp_path: Path):
    found = bit_flips.flip_often(store, tmp_path / "copy", flips=12, seed=0)
    assert (found.flipped, found.found_by_verify) == (12, 12)
    # The manifest is there twice: while one is whole, states are read as they were.
    assert found.refused > 4
    assert found.refused + found.harmless == 12
    assert (found.silent, found.missed) == (0, [])


def test_a_store_that_says_nothing_of_flipped_bits_is_caught(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    opened = StateStore.open
    monkeypatch.setattr(
        StateStore, "open", lambda folder, **options: opened(folder, **options | {"verify": False})
    )
    found = bit_flips.flip_often(store, tmp_path / "copy", flips=12, seed=0)
    assert found.silent > 0
    assert len(found.missed) == found.silent


def test_what_opening_refuses_does_not_count_as_found_by_verify(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(bit_flips, "find_faults", lambda folder: [])
    found = bit_flips.flip_often(store, tmp_path / "copy", flips=4, seed=0)
    assert (found.flipped, found.found_by_verify) == (4, 0)
    assert found.refused > 0
    assert len(found.missed) == 4


def test_files_that_differ_are_named(tmp_path: Path):
    for folder, texts in {"a": {"x": "1", "y": "2"}, "b": {"x": "1", "y": "3", "z": ""}}.items():
        (tmp_path / folder).mkdir()
        for name, text in texts.items():
            (tmp_path / folder / name).write_text(text)
    assert differing_files(tmp_path / "a", tmp_path / "b") == ["y", "z"]


@pytest.mark.slow
def test_scores_from_states_equal_full_passes(
    tmp_path: Path, medquad_mini: Path, monkeypatch: pytest.MonkeyPatch
):
    RandomModel("mamba-130m", 12, is_toy=True).save(tmp_path / "model")
    judged = Collection.open(medquad_mini).qrels("dev")
    documents = list(dict.fromkeys(name for names in judged.values() for name in names))[:3]
    lines = [f"{query} Q0 {name} 1 0 t" for query in list(judged)[:2] for name in documents]
    (tmp_path / "run").write_text("\n".join(lines))
    status, result = call(
        exactness, monkeypatch, tmp_path, "--model", tmp_path / "model", "--collection",
        medquad_mini, "--run", tmp_path / "run", "--pairs", 3, "--dtypes", "float32", "int8",
    )  # fmt: skip
    assert status == 0
    pairs = {name: result[name]["float32"]["pairs"] for name in ("sample", "all")}
    assert pairs == {"sample": 3, "all": 6}
    exact, coarse = (result["all"][name]["largest_difference"] for name in ("float32", "int8"))
    assert exact < 1e-6
    assert coarse > 3 * exact, "eight bits differ, so the states are what is scored from"
    sizes = {name: one["bytes_a_document"] for name, one in result["stores"].items()}
    assert sizes["float32"] > 3 * sizes["int8"]
    assert not list(tmp_path.glob("exactness-*"))


def test_other_scores_rankings_and_measures_break_promises():
    full = {"q": {"a": 3.0, "b": 2.0}, "r": {"a": 1.0, "b": 0.0}}
    close = {"q": {"a": 3.00001, "b": 2.0}, "r": {"a": 1.0, "b": 0.00001}}
    worse = {"q": {"a": 1.0, "b": 2.0}, "r": {"a": 1.0, "b": 0.0}}
    qrels = {"q": {"a": 1}, "r": {"a": 1}}
    for runs, kept in (
        ({"float32": close, "bfloat16": close}, [True] * 4),
        ({"float32": worse, "bfloat16": worse}, [False] * 4),
    ):
        report = compare_runs(qrels, {exactness.FULL: full, **runs}, exactness.MEASURES)
        agreements = {name: compare_scores(full, run) for name, run in runs.items()}
        promises = exactness.make_promises(agreements, report)
        assert [promise.kept for promise in promises] == kept


def test_an_interval_beyond_the_bound_is_said():
    names = [f"q{number}" for number in range(20)]
    full = {name: {"a": 2.0, "b": 1.0} for name in names}
    other = full | {"q0": {"a": 1.0, "b": 2.0}}
    qrels = {name: {"a": 1} for name in names}
    runs = {exactness.FULL: full, "bfloat16": other, "int8": full}
    report = compare_runs(qrels, runs, exactness.MEASURES)
    stores = {name: {"bytes_a_document": 1.0} for name in ("bfloat16", "int8")}
    rows = {
        line.split(" | ")[0]: line for line in exactness.measure_table(report, stores).splitlines()
    }
    assert rows["| bfloat16"].count("no, beyond 0.002") == 2
    assert rows["| int8"].count("yes") == 2
    assert "yes" not in rows["| full pass"]


@pytest.mark.slow
def test_a_writer_killed_again_and_again_writes_the_same_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    status, result = call(kills, monkeypatch, tmp_path, "--toy", "--kills", 4, "--flips", 8)
    assert status == 0
    assert len(result["kills"]["killed_after_s"]) == 4
    assert result["differing"] == []
