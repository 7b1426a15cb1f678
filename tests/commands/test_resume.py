"""python -m jaxrank.train, interrupted in every way: the same command ends with the same bits."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import jax
import pytest
import yaml
from jax.experimental.compilation_cache.compilation_cache import reset_cache

from jaxrank import train
from jaxrank.command_line import EXIT_INTERRUPTED, EXIT_STOPPED, run
from jaxrank.errors import InputError, TrainingStoppedError
from jaxrank.training.metrics import read_metrics
from jaxrank.training.step import TrainState
from jaxrank.training_run import run as training_run

WORDS = ("asthma", "acne", "anemia", "cancer", "cholera", "fever", "flu", "gout", "lupus", "polio")
STEPS = 24
# What is measured by a clock, or by the operating system.
SPEED = ("time_s", "_per_s", "memory", "utilisation", "utilization", "mfu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, bert_tokenizer_folder: Path) -> Path:
    """A collection with questions, a run and groups of them, and a recipe with dropout."""
    folder = tmp_path_factory.mktemp("resume")
    shutil.copytree(bert_tokenizer_folder, folder / "tokenizer")
    documents = [{"_id": f"d{i}", "text": f"{word} is an illness"} for i, word in enumerate(WORDS)]
    queries = [{"_id": f"q{i}", "text": f"What causes {word}?"} for i, word in enumerate(WORDS)]
    near = [[f"d{(i + step) % len(WORDS)}" for step in range(5)] for i in range(len(WORDS))]
    groups = [
        {"query_id": f"q{i}", "positive_id": ids[0], "negative_ids": ids[1:]}
        for i, ids in enumerate(near)
    ]
    for name, lines in (("corpus", documents), ("queries", queries), ("groups", groups)):
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"{name}.jsonl").write_text(text)
    dev = range(4)
    (folder / "qrels.dev.txt").write_text("".join(f"q{i} 0 d{i} 1\n" for i in dev))
    lines = [f"q{i} Q0 {name} {k} {-k} t" for i in dev for k, name in enumerate(near[i], start=1)]
    (folder / "dev.run").write_text("".join(f"{line}\n" for line in lines))
    recipe = {
        "model": {
            "family": "bert",
            "preset": "bert-tiny",
            "overrides": {"hidden_size": 16, "num_layers": 1},
            "tokenizer": str(folder / "tokenizer"),
        },
        "text": {"max_length": 32},
        "data": {
            "collection": str(folder),
            "groups": str(folder / "groups.jsonl"),
            "negatives": 3,
            "groups_per_batch": 2,
        },
        "dev": {"run": str(folder / "dev.run"), "batch_size": 8},
        "optimizer": {"learning_rate": 1e-3, "warmup_fraction": 0.2},
        "checkpoint": {"every": 2},
        "training": {"output": "unset", "steps": STEPS, "milestones": 2, "log_every": 1},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder


@pytest.fixture(scope="module", autouse=True)
def compilation_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Compile what all runs share once, as the commands do."""
    path = tmp_path_factory.mktemp("xla")
    options = {
        "jax_compilation_cache_dir": str(path),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_enable_compilation_cache": True,
    }
    before = {name: getattr(jax.config, name) for name in options}
    for name, value in options.items():
        jax.config.update(name, value)
    reset_cache()
    yield path
    for name, value in before.items():
        jax.config.update(name, value)
    reset_cache()


def call(folder: Path, output: Path, *arguments: object) -> None:
    options = ["--config", folder / "recipe.yaml", "--training.output", output, *arguments]
    train.main(list(map(str, options)))


def at_step(number: int, act: Callable[[], None]) -> Any:
    """A stand-in for `train` that acts before step `number` is done."""
    train = training_run.train

    def train_and_act(state: TrainState, train_step: Any, *others: Any, **options: Any) -> Any:
        def step(state: TrainState, batch: Any) -> Any:
            if int(state.step) + 1 == number:
                act()
            return train_step(state, batch)

        return train(state, step, *others, **options)

    return train_and_act


def send(*numbers: int) -> Callable[[], None]:
    def act() -> None:
        for number in numbers:
            os.kill(os.getpid(), number)

    return act


@pytest.fixture(scope="module")
def undisturbed(folder: Path) -> Path:
    call(folder, folder / "undisturbed")
    return folder / "undisturbed"


@pytest.fixture(scope="module")
def stopped(folder: Path) -> Path:
    """A run that a SIGTERM has stopped after step 15."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_run, "train", at_step(15, send(signal.SIGTERM)))
        with pytest.raises(TrainingStoppedError, match=f"after step 15 of {STEPS}"):
            call(folder, folder / "stopped")
    return folder / "stopped"


@pytest.fixture
def output(stopped: Path, tmp_path: Path) -> Path:
    """A copy of the stopped run, under another name: a run folder may be moved."""
    shutil.copytree(stopped, tmp_path / "run")
    return tmp_path / "run"


def assert_same(run: Path, undisturbed: Path) -> None:
    """Same weights, same log, same last checkpoint, to the bit."""
    for path in undisturbed.rglob("*.safetensors"):
        assert (run / path.relative_to(undisturbed)).read_bytes() == path.read_bytes()
    assert compared(run) == compared(undisturbed)
    last = f"checkpoints/step-{STEPS:06d}"
    progress, expected = (
        json.loads((at / last / "progress.json").read_text()) for at in (run, undisturbed)
    )
    assert (progress["batches"], progress["best"]) == (expected["batches"], expected["best"])
    assert arrays(run / last) == arrays(undisturbed / last)
    about = json.loads((run / "run.json").read_text())
    assert about["status"] == "finished"
    assert (
        about["results"]["best"]
        == json.loads((undisturbed / "run.json").read_text())["results"]["best"]
    )


def compared(run: Path) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in line.items() if not any(word in name for word in SPEED)}
        for line in read_metrics(run)
    ]


def arrays(checkpoint: Path) -> dict[str, bytes]:
    import numpy as np
    from orbax.checkpoint import StandardCheckpointer

    restored = StandardCheckpointer().restore((checkpoint / "state").absolute())
    return {name: np.asarray(value).tobytes() for name, value in restored.items()}


def test_sigkills_leave_no_trace(folder: Path, undisturbed: Path, compilation_cache: Path):
    output = folder / "killed"
    command = [sys.executable, "-m", "jaxrank.train", "--config", str(folder / "recipe.yaml")]
    command += ["--training.output", str(output)]
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(compilation_cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_ENABLE_COMPILATION_CACHE": "1",
        "JAX_NUMPY_RANK_PROMOTION": "raise",
    }
    for kill_at in (5, 16):
        process = subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while (step := last_step(output)) < kill_at and process.poll() is None:
            time.sleep(0.002)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        assert step < STEPS
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "goes on from step " in done.stdout
    assert len(json.loads((output / "run.json").read_text())["resumed"]) >= 1
    assert_same(output, undisturbed)


def last_step(run: Path) -> int:
    path = run / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    return max((json.loads(line)["step"] for line in lines if line.endswith(b"\n")), default=0)


def test_a_stopped_run_goes_on_where_it_was(
    folder: Path, output: Path, undisturbed: Path, capsys: pytest.CaptureFixture[str]
):
    call(folder, output, "--training.log_every", 1, "--data.num_threads", 1)
    assert f"{output}: goes on from step 15 of {STEPS} (step-000015)" in capsys.readouterr().out
    assert_same(output, undisturbed)


@pytest.mark.slow
def test_a_stopped_run_with_in_batch_negatives_ends_with_the_same_bits(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    options = [
        "--model.family", "mamba", "--model.preset", "mamba-tiny",
        "--model.overrides", "{num_layers: 1, hidden_size: 16, state_size: 4}",
        "--text.template", "paper-decoder", "--text.max_length", 64,
        "--loss.in_batch_negatives", "true",
        "--training.steps", 6, "--training.milestones", 1, "--dev.run", "null",
    ]  # fmt: skip
    call(folder, tmp_path / "undisturbed", *options)
    with monkeypatch.context() as patch:
        patch.setattr(training_run, "train", at_step(4, send(signal.SIGTERM)))
        with pytest.raises(TrainingStoppedError, match="after step 4 of 6"):
            call(folder, tmp_path / "stopped", *options)
    call(folder, tmp_path / "stopped", *options)
    weights = "model/model.safetensors"
    first, second = (tmp_path / name for name in ("undisturbed", "stopped"))
    assert (first / weights).read_bytes() == (second / weights).read_bytes()
    assert compared(first) == compared(second)
    assert compared(first)[0]["loss"] > 1.5, "of 8 documents, not of 4"


def test_a_damaged_checkpoint_is_named_and_the_one_before_taken(
    folder: Path, output: Path, undisturbed: Path, capsys: pytest.CaptureFixture[str]
):
    path = output / "checkpoints" / "step-000015" / "progress.json"
    path.write_text(path.read_text().replace('"next_index": 15', '"next_index": 14'))
    call(folder, output)
    printed = capsys.readouterr().out
    assert "step-000015: not used, since progress.json was changed since it was saved" in printed
    assert "goes on from step 14 of" in printed
    assert_same(output, undisturbed)


def test_a_run_with_damaged_checkpoints_alone_is_refused(folder: Path, output: Path):
    for path in output.glob("checkpoints/*/manifest.json"):
        path.write_text("{}")
    before = (output / "metrics.jsonl").read_bytes()
    with pytest.raises(InputError, match=r"step-000014: manifest.json is damaged.*overwrite true"):
        call(folder, output)
    assert (output / "metrics.jsonl").read_bytes() == before


def test_a_run_that_lost_its_checkpoints_does_not_start_again_in_silence(
    folder: Path, output: Path
):
    shutil.rmtree(output / "checkpoints")
    before = read_metrics(output)
    with pytest.raises(InputError, match=r"checkpoints: holds no checkpoint, and the run was at"):
        call(folder, output)
    assert read_metrics(output) == before


def change_tokenizer(folder: Path) -> None:
    path = folder / "tokenizer" / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["normalizer"]["lowercase"] = not content["normalizer"]["lowercase"]
    path.write_text(json.dumps(content), encoding="utf-8")


def change_groups(folder: Path) -> None:
    path = folder / "groups.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(reversed(lines)))


@pytest.mark.parametrize(
    ("arguments", "change", "message"),
    [
        (["--training.seed", 1], None, r"\(training.seed: 0 there, 1 now\)"),
        (["--text.max_length", 16], None, r"\(text.max_length: 32 there, 16 now\)"),
        ([], change_tokenizer, r"\(model.tokenizer: SHA-256 \w+ there, SHA-256 \w+ now\)"),
        ([], change_groups, r"content of .*groups.jsonl: \w+ there, \w+ now"),
    ],
)
def test_a_run_of_other_inputs_does_not_go_on(
    folder: Path,
    output: Path,
    arguments: list[Any],
    change: Callable[[Path], None] | None,
    message: str,
):
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    inputs = {
        path: path.read_bytes() for path in (*folder.glob("*.jsonl"), *folder.glob("tokenizer/*"))
    }
    if change is not None:
        change(folder)
    try:
        with pytest.raises(InputError, match=message) as error:
            call(folder, output, *arguments)
    finally:
        for path, content in inputs.items():
            path.write_bytes(content)
    assert "\n" not in str(error.value)
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("signals", "status", "line"),
    [
        ([signal.SIGINT], EXIT_STOPPED, "stopped after step 3 of 24, which is saved"),
        ([signal.SIGINT, signal.SIGINT], EXIT_INTERRUPTED, "interrupted"),
    ],
)
def test_ctrl_c_stops_after_the_step_and_a_second_one_at_once(
    folder: Path,
    tmp_path: Path,
    signals: list[int],
    status: int,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    def leave(status: int) -> NoReturn:
        raise SystemExit(status)

    monkeypatch.setattr(os, "_exit", leave)
    monkeypatch.setattr(training_run, "train", at_step(3, send(*signals)))
    with pytest.raises(SystemExit) as ended:
        run(lambda: call(folder, tmp_path / "run"))
    assert ended.value.code == status
    shown = capsys.readouterr()
    assert shown.err.rstrip().rpartition("\n")[2].startswith(line)
    assert "Ctrl-C: saving a checkpoint, then stopping" in shown.out
    assert (tmp_path / "run/checkpoints/step-000003").exists() == (status == EXIT_STOPPED)


def test_a_cache_of_cut_compilations_breaks_nothing(
    folder: Path, tmp_path: Path, compilation_cache: Path
):
    entries = [path for path in compilation_cache.rglob("*-cache") if path.is_file()]
    assert len(entries) > 5
    for path in entries:
        path.write_bytes(path.read_bytes()[:100])
    jax.clear_caches()
    reset_cache()
    with pytest.warns(UserWarning, match="Error reading persistent compilation cache entry"):
        call(folder, tmp_path / "run", "--training.steps", 2, "--dev.run", "null")
    assert (tmp_path / "run" / "model").exists()
