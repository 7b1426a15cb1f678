"""The study on the GPU, with toys on a CPU: from the collection to the table."""

import json
import os
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

from jaxrank.errors import InputError
from jaxrank.evaluation.runs import ranking, read_run
from jaxrank.text.templates import TextConfig
from jaxrank.text.tokenize import PairTokenizer, load_tokenizer, pad_pairs
from scripts.gpu_study import collect, part, prepare, train
from scripts.gpu_study.archive import Archive, Texts
from scripts.gpu_study.models import FROM_RANDOM, WORDINGS, count_parameters, study_model
from scripts.gpu_study.pairs import join_pairs
from tests.scripts.miniature import write_model

ROOT = Path(__file__).resolve().parents[2]


def call(monkeypatch: pytest.MonkeyPatch, module: object, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
    module.main()  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, medquad_mini: Path) -> Path:
    """A prepared folder of few groups and questions."""
    folder = tmp_path_factory.mktemp("study")
    minilm = write_model(folder / "minilm", "bert")
    options = ["--max_length", 64, "--depth", 6, "--groups", 12, "--dev_queries", 5]
    with pytest.MonkeyPatch.context() as patch:
        call(
            patch, prepare, "--collection", medquad_mini, "--data", folder / "data",
            "--minilm", minilm, *options,
        )  # fmt: skip
    return folder / "data"


def toy(data: Path, *arguments: object) -> list[object]:
    return ["--data", data, "--cpu", "--epochs", 1, "--groups_per_batch", 4, *arguments]


PARTS = ["bert:0", "mamba:0"]


@pytest.fixture(scope="module")
def trained(data: Path) -> Path:
    """The folder with the results of two parts.

    One is trained in this process, which has jax already; the other is its result with other
    scores, since compiling a second model takes long.
    """

    def run_part(options: Namespace, name: str, path: Path, *, left_s: float) -> str:
        call(patch, part, options.data, name, path, *train.settings_arguments(options))
        return ""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "_run_part", run_part)
        call(patch, train, *toy(data, "--part", PARTS[0]))
    result = read_result(data, PARTS[0])
    result["part"] = PARTS[1]
    result["scores"] = [[-score for score in scores] for scores in result["scores"]]
    (data / "results" / "mamba-0.json").write_text(json.dumps(result))
    return data


def read_result(data: Path, name: str) -> dict:
    return json.loads((data / "results" / f"{name.replace(':', '-')}.json").read_text())


def test_a_model_sees_each_group_once_an_epoch(trained: Path):
    result = read_result(trained, "bert:0")
    assert result["pairs"] == 12 * 8
    assert result["steps"] == 3
    assert [step for step, _ in result["losses"]] == [1, 2, 3]
    assert len(result["scores"]) == 5


def test_what_is_done_is_kept(trained: Path, monkeypatch: pytest.MonkeyPatch):
    def run_again(options: Namespace, name: str, path: Path, *, left_s: float) -> str:
        raise AssertionError(f"{name} was done")

    monkeypatch.setattr(train, "_run_part", run_again)
    call(monkeypatch, train, *toy(trained, "--part", *PARTS))


def test_a_part_that_cannot_be_done_leaves_the_others_their_turn(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked = []

    def run_part(options: Namespace, name: str, path: Path, *, left_s: float) -> str:
        asked.append(name)
        if name == "bert:0":
            return "ended with status 1"
        path.write_text((trained / "results" / "mamba-0.json").read_text())
        return ""

    monkeypatch.setattr(train, "_run_part", run_part)
    packed = tmp_path / "packed.json"
    options = ("--part", *PARTS, "--results", tmp_path / "results", "--packed", packed)
    (tmp_path / "results").mkdir()
    with pytest.raises(InputError, match="not done: bert:0; the same command goes on"):
        call(monkeypatch, train, *toy(trained, *options))
    assert asked == PARTS

    asked.clear()
    options = ("--part", PARTS[1], "--results", tmp_path / "elsewhere", "--packed", packed)
    call(monkeypatch, train, *toy(trained, *options))
    assert not asked, "it was in the packed file"


def test_a_part_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(train, "TO_START_S", 0.2)
    monkeypatch.setattr(train, "settings_arguments", lambda options: [])
    real = subprocess.run

    def sleep(command: list[str], **options: object) -> object:
        return real(["/bin/sleep", "60"], **options)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "run", sleep)
    options = Namespace(data=tmp_path, minutes=0.0)
    obstacle = train._run_part(options, "bert:0", tmp_path / "x.json", left_s=float("inf"))
    assert obstacle == "not done in 0 s, and ended"
    obstacle = train._run_part(options, "bert:0", tmp_path / "x.json", left_s=0.0)
    assert obstacle == "no time is left"


def test_a_result_of_other_settings_is_not_taken_for_done(
    trained: Path, monkeypatch: pytest.MonkeyPatch
):
    with pytest.raises(InputError, match="other epochs"):
        call(monkeypatch, train, *toy(trained, "--part", *PARTS, "--epochs", 2))


def test_scores_come_back_as_runs_and_as_a_table(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    call(monkeypatch, collect, "--data", trained)
    said = capsys.readouterr().out
    assert "| BERT |" in said
    assert "| Mamba | BERT | RR@10 |" in said
    summary = json.loads((trained / "study-results.json").read_text())
    assert summary["models"]["mamba"]["seeds"] == [0]
    run = read_run(trained / "results" / "mamba-0.run")
    candidates = read_run(trained / "bm25.run")
    assert {query: set(found) for query, found in run.items()} == {
        query: set(found) for query, found in candidates.items()
    }
    query = next(iter(run))
    scores = read_result(trained, "mamba:0")["scores"][0]
    best = max(zip(scores, ranking(candidates[query]), strict=True))[1]
    assert ranking(run[query])[0] == best


def test_values_are_means_over_seeds_with_an_interval_over_questions():
    seeds = [dict.fromkeys(collect.MEASURES, values) for values in (
        {"q1": 0.0, "q2": 1.0, "q3": 0.5}, {"q1": 0.5, "q2": 1.0, "q3": 0.0},
    )]  # fmt: skip
    found = collect._quality(seeds)["RR@10"]
    assert found["mean"] == pytest.approx(0.5)
    assert found["seeds"] == [pytest.approx(0.5), pytest.approx(0.5)]
    low, high = found["interval"]
    assert low < 0.25
    assert high > 0.75


def test_a_part_that_would_take_too_long_is_refused():
    now = time.perf_counter()
    with pytest.raises(InputError, match=r"mamba: it would take 10\.0 minutes; at most 8\.0"):
        part._check_time(now, 600.0, "mamba", limit_s=480.0)
    part._check_time(now, 400.0, "mamba", limit_s=480.0)


@pytest.mark.slow
def test_the_command_runs_every_model_in_processes_of_their_own(data: Path, tmp_path: Path):
    script = ["bash", str(ROOT / "scripts/gpu_study.sh")]
    parts = ["minilm:0", *(f"{name}:{seed}" for name in FROM_RANDOM for seed in (0, 1))]
    options = toy(data, "--results", tmp_path, "--part", *parts)
    environment = {**os.environ, "PYTHON": sys.executable}
    subprocess.run([*script, *map(str, options)], check=True, env=environment)
    done = subprocess.run(
        [*script, "collect", "--data", str(data), "--results", str(tmp_path)],
        check=True, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert "MiniLM-L6, fine-tuned" in done.stdout
    assert len(list(tmp_path.glob("*.run"))) == len(parts)
    results = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("*.json"))]
    tokens = {one["part"]: one["tokens"] for one in results}
    assert tokens["mamba:0"] == tokens["mamba2:0"] == tokens["mamba:1"]
    assert abs(tokens["bert:0"] - tokens["mamba:0"]) < 0.1 * tokens["bert:0"]
    scores = {str(one["scores"]) for one in results}
    assert len(scores) == len(parts)


def test_a_changed_file_is_refused(data: Path, tmp_path: Path):
    copy = tmp_path / "data"
    copy.mkdir()
    for path in data.iterdir():
        if path.is_file():
            (copy / path.name).write_bytes(path.read_bytes())
    (copy / "names.json").write_text("{}")
    with pytest.raises(InputError, match="changed since"):
        Archive.open(copy)


@pytest.mark.parametrize("template", sorted(set(WORDINGS.values())))
def test_pairs_are_joined_as_the_tokenizer_joins_them(template: str, bert_tokenizer_folder: Path):
    tokenizer = PairTokenizer(load_tokenizer(bert_tokenizer_folder), TextConfig(template, 64))
    random = np.random.default_rng(0)
    words = ["heart", "of", "unbelievable", "fever", "antidisestablishmentarianism"]

    def texts(lengths: tuple[int, ...]) -> list[str]:
        return [" ".join(random.choice(words, size)) for size in lengths]

    queries, documents = texts((3, 40, 90, 1)), texts((5, 200, 10, 300))
    packed = [
        Texts.pack([text.input_ids for text in tokenizer.tokenise(field, found)])
        for field, found in (("query", queries), ("document", documents))
    ]
    rows = np.arange(len(queries))
    wording = json.loads(json.dumps(prepare.describe_wording(tokenizer)))
    got = join_pairs(wording, *packed, rows, rows).batch(rows, 64)
    encoded = tokenizer.encode(list(zip(queries, documents, strict=True)))
    want = pad_pairs(encoded, length=64, pad_token_id=tokenizer.pad_token_id)
    for name, array in want.items():
        np.testing.assert_array_equal(got[name], array, err_msg=name)


def test_models_from_a_random_start_differ_by_less_than_a_tenth_in_size():
    counts = [
        count_parameters(study_model(name, {"vocabulary": 30522}, is_toy=False).config)
        for name in FROM_RANDOM
    ]
    for sizes in zip(*counts, strict=True):
        assert max(sizes) < 1.1 * min(sizes)
    assert all(28e6 < total < 32e6 for total, _ in counts)


def test_training_imports_nothing_beyond_jax_flax_and_optax():
    absent = (
        "grain", "jsonargparse", "bm25s", "ir_measures", "transformers", "tokenizers", "rax",
        "safetensors", "scipy.stats", "matplotlib", "tqdm",
    )  # fmt: skip
    program = (
        f"import sys\nsys.modules.update(dict.fromkeys({absent!r}))\n"
        "import scripts.gpu_study.train, scripts.gpu_study.part\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)
