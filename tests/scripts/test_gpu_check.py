"""The script that checks a GPU, at toy sizes without one."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrank.benchmarking import report
from scripts.gpu_check import __main__ as gpu_check
from scripts.gpu_check.benchmarks import as_row
from scripts.gpu_check.bounds import BOUNDS
from scripts.gpu_check.checks import CHECKS, CORRECTNESS, Check
from scripts.gpu_check.comparing import compare
from scripts.gpu_check.models import plain_config
from scripts.gpu_check.poison import same_bits
from scripts.gpu_check.processes import Ended, run_apart
from scripts.gpu_check.results import Results
from scripts.gpu_check.resume import CHECKPOINT_STEP
from scripts.gpu_check.rows import BFLOAT16, TOY_SIZES, Row, compared, errors_on_device
from scripts.gpu_check.worker import END, run_check

ROOT = Path(__file__).resolve().parents[2]
MACHINE = {"device": "cpu", "versions": {"jax": "1"}, "source": None}


def test_a_check_gives_comparisons():
    rows = list(run_check("norms_and_dropout", TOY_SIZES))
    assert all(row.ok for row in rows)
    assert {row.check for row in rows} == {"norms", "dropout"}


def test_a_wrong_value_and_an_exception_are_failed_rows(monkeypatch: pytest.MonkeyPatch):
    def broken(sizes: object) -> Iterator[object]:
        yield compared("broken", "value", {"x": 0.0, "y": float("nan"), "z": 1e-6}, 1e-5)
        raise RuntimeError("out of memory\nwith a long trace")

    monkeypatch.setitem(CHECKS, "broken", Check(broken))
    rows = list(run_check("broken", TOY_SIZES))
    assert [(row.case, row.ok) for row in rows] == [("value", False), ("all, stopped", False)]
    assert rows[0].note == "worst: y"


def run_program(program: str, folder: Path, **options: float) -> Ended:
    file = folder / "rows.jsonl"
    head = f"import json, os, time\nfile = open({str(file)!r}, 'a')\n"
    head += "def write(value): print(json.dumps(value), file=file, flush=True)\n"
    command = [sys.executable, "-c", head + program]
    return run_apart(command, file, end=END, **{"silence_s": 60.0, **options})


def test_a_process_that_dies_hangs_or_is_late_leaves_what_it_wrote(tmp_path: Path):
    fates = {
        "os.abort()": "died of SIGABRT: it said nothing",
        "raise RuntimeError('ptxas: no such register')": (
            "ended with status 1: RuntimeError: ptxas: no such register"
        ),
        "time.sleep(60)": "ended, silent for 3 s: it said nothing",
    }
    for number, (fate, obstacle) in enumerate(fates.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        ended = run_program(f"write({{'case': 1}})\n{fate}", folder, silence_s=3.0)
        assert ended.values == [{"case": 1}]
        assert ended.obstacle.splitlines()[0] == obstacle
        assert not ended.is_late


def test_a_process_has_no_longer_than_there_is_time(tmp_path: Path):
    begin_s = time.monotonic()
    ended = run_program("time.sleep(60)", tmp_path, deadline_s=begin_s + 1.0)
    assert ended.is_late
    assert time.monotonic() - begin_s < 30.0


def test_a_process_that_is_done_may_crash_while_it_leaves(tmp_path: Path):
    ended = run_program(f"write({{'case': 1}})\nwrite({END})\nos.abort()", tmp_path)
    assert (ended.values, ended.obstacle) == ([{"case": 1}], "")


class Machine(gpu_check.Runner):
    """Stands for the processes: the Mosaic scan's own hangs after a row."""

    started: ClassVar[list[tuple[str, bool]]]

    def start(self, name: str, *, without_mosaic: bool = False) -> Ended:
        self.started.append((name, without_mosaic))
        rows = [asdict(Row(name, "case"))]
        return Ended(rows, "ended, silent for 120 s" if name == "mosaic_scan" else "")


def test_after_the_mosaic_scan_has_hung_the_others_keep_off_it(tmp_path: Path):
    Machine.started = []
    machine = Machine(tmp_path, seed=0, is_cpu=True)
    results = Results(tmp_path / "results.json", MACHINE, keep=False)
    done = gpu_check.run_checks(["ssd", "mosaic_scan", "repeats"], machine, results)
    assert Machine.started == [("ssd", False), ("mosaic_scan", False), ("repeats", True)]
    assert [row.ok for row in done["mosaic_scan"]] == [True, False]
    assert [row.ok for row in done["repeats"]] == [True]
    written = json.loads((tmp_path / "results.json").read_text())["checks"]
    assert [row["ok"] for row in written["mosaic_scan"]["rows"]] == [True, False]


def test_checks_keep_off_the_mosaic_scan_where_they_are_told_to():
    sizes = replace(TOY_SIZES, has_mosaic=False)
    rows = list(run_check("mosaic_scan", sizes))
    assert [row.ok for row in rows] == [None]
    assert "left out" in rows[0].note


def test_a_wrong_gradient_is_seen():
    def twice(x: jnp.ndarray) -> tuple[jnp.ndarray, jnp.ndarray]:
        return 2.0 * x, jnp.zeros(1)

    def reference(arguments: dict, cotangents: tuple) -> object:
        from scripts.gpu_check.adjoint import Wanted

        outputs = (2.0 * arguments["x"], np.zeros(1))
        return Wanted(outputs, {"x": (2.0 + 1e-3) * cotangents[0]})

    arguments = {"x": np.random.default_rng(0).standard_normal((2, 3))}
    rows = list(compare("twice", "case", twice, reference, arguments, seed=0))
    assert [row.ok for row in rows] == [True, False]
    rows = list(compare("twice", "case", twice, reference, arguments, seed=0, dtype=jnp.bfloat16))
    assert [(row.ok, row.allowed) for row in rows] == [(True, BFLOAT16)] * 2


def test_what_nothing_wrote_is_an_infinite_error_and_other_bits():
    right, wrong = jnp.ones(4), jnp.ones(4).at[2].set(jnp.nan)
    assert errors_on_device({"y": wrong}, {"y": right}) == {"y": float("inf")}
    assert same_bits({"y": right}, {"y": right})
    assert not same_bits({"y": right}, {"y": right.at[0].set(1.0 + 1e-7)})
    assert same_bits(wrong, wrong), "NaN has bits too"


def test_results_are_written_after_every_check_and_others_are_kept(tmp_path: Path):
    path = tmp_path / "results.json"
    results = Results(path, MACHINE, keep=False)
    results.add("first", [Row("first", "case")], seed=1, seconds=1.0)
    assert list(json.loads(path.read_text())["checks"]) == ["first"]

    again = Results(path, MACHINE, keep=True)
    again.add("second", [Row("second", "case", ok=False)], seed=2, seconds=1.0)
    checks = json.loads(path.read_text())["checks"]
    assert {name: check["seed"] for name, check in checks.items()} == {"first": 1, "second": 2}

    elsewhere = Results(path, {**MACHINE, "device": "another"}, keep=True)
    elsewhere.add("second", [], seed=3, seconds=1.0)
    assert list(json.loads(path.read_text())["checks"]) == ["second"]


def test_no_check_begins_after_the_last_minute_and_what_was_measured_stays(tmp_path: Path):
    results = Results(tmp_path / "results.json", MACHINE, keep=False)
    results.add("ssd", [Row("ssd", "case")], seed=1, seconds=1.0)
    runner = gpu_check.Runner(tmp_path, seed=2, is_cpu=True, deadline_s=0.0)
    done = gpu_check.run_checks(["ssd", "attention"], runner, results)
    assert {name: [row.ok for row in rows] for name, rows in done.items()} == {
        "ssd": [None],
        "attention": [None],
    }
    checks = json.loads((tmp_path / "results.json").read_text())["checks"]
    assert {name: check["seed"] for name, check in checks.items()} == {"ssd": 1}


def test_dropped_results_are_named(tmp_path: Path):
    path = tmp_path / "results.json"
    Results(path, MACHINE, keep=False).add("ssd", [], seed=1, seconds=1.0)
    said: list[str] = []
    Results(path, MACHINE, keep=True, say=said.append)
    assert not said
    Results(path, {**MACHINE, "versions": {"jax": "2"}}, keep=True, say=said.append)
    assert "dropped" in said[0]


def test_our_failure_fails_and_a_rivals_or_want_of_memory_does_not():
    fates = {
        ("jaxrank", "ValueError: no"): False,
        ("jaxrank cudnn", "ValueError: no"): False,
        ("jaxrank", report.OUT_OF_MEMORY): None,
        ("transformers", "ValueError: no"): None,
        ("transformers", None): True,
    }
    for (side, failed), ok in fates.items():
        row = measured("train", "bert-base", 512, side=side, failed=failed)
        assert as_row("train", row).ok is ok


def measured(subject: str, name: str, length: int, **values: object) -> report.Row:
    shape = {"shape": "", "direction": "step", "dtype": "bfloat16", "batch": 64}
    row = {"side": "jaxrank", "median_ms": 1.0, **shape, **values}
    return report.Row(subject=subject, name=name, length=length, **row)  # type: ignore[arg-type]


def test_bounds_are_looked_up_among_measured_rows():
    rows = [
        measured("scan", "channels 1536 states 16", 512, direction="forward", floor_share=0.8),
        measured("scan", "channels 1536 states 16", 512, direction="backward", floor_share=0.5),
        measured("train", "mamba-370m", 512, pairs_per_s=60.0),
        measured("train", "pythia-410m", 512, pairs_per_s=300.0),
        measured(
            "train", "pythia-410m", 512, side="jaxrank cudnn", pairs_per_s=100.0, floor_share=0.5
        ),
        measured("train", "mamba-370m", 512, side="transformers", speed_of_ours=1.5),
        measured("train", "mamba-370m", 512, side="transformers compiled", speed_of_ours=1.1),
        measured("train", "mamba2-370m", 512, side="transformers", speed_of_ours=9.0),
    ]
    verdicts = {bound.title: bound.verdict(rows) for bound in BOUNDS}
    found = {
        title: (verdict, found.value)
        for title, (verdict, found) in verdicts.items()
        if found.value is not None
    }
    strawman = verdicts["training step, speed against PyTorch, mamba2-370m, 512 tokens"]
    assert strawman[0] == "not measured"
    assert "9.00 against transformers, the fastest that was there" in strawman[1].note
    assert found == {
        "scan forward, share of the floor, 64 x 512, D 1536": ("met", 0.8),
        "scan backward, share of the floor, 64 x 512, D 1536": ("missed", 0.5),
        "training throughput, mamba-370m over pythia-410m, 512 tokens": ("met", 0.6),
        "training step, speed against PyTorch, mamba-370m, 512 tokens": ("missed", 1.1),
        "training step, model FLOPs utilisation in PaLM's count, pythia-410m, 512 tokens": (
            "met",
            0.5,
        ),
    }


def test_whole_models_are_compared_without_dropout():
    from jaxrank.models.families import FAMILIES

    for family in FAMILIES.values():
        backbone = next(iter(family.presets.values()))
        config = plain_config(family.name, backbone)
        rates = {name: rate for name, rate in vars(config.backbone).items() if "dropout" in name}
        assert set(rates.values()) <= {0.0}, family.name


def test_it_runs_where_only_jax_flax_and_optax_are():
    absent = (
        "grain", "jsonargparse", "bm25s", "ir_measures", "transformers", "tokenizers", "rax",
        "safetensors", "matplotlib", "tqdm", "torch",
    )  # fmt: skip
    program = (
        f"import sys\nsys.modules.update(dict.fromkeys({absent!r}))\n"
        "import scripts.gpu_check.worker\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


def test_document_states_are_checked_where_only_transformers_is_besides():
    absent = ("grain", "jsonargparse", "bm25s", "ir_measures", "rax", "pyarrow", "torch")
    program = (
        f"import sys\nsys.modules.update(dict.fromkeys({absent!r}))\n"
        "from jaxrank.ranking import scoring\n"
        "from scripts.document_states import candidates, random_models, turns\n"
        "from scripts.gpu_check import worker\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


def test_the_watching_process_leaves_the_gpu_alone():
    program = (
        "import scripts.gpu_check.__main__\n"
        "from jax._src import xla_bridge\n"
        "assert not xla_bridge.backends_are_initialized()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [*CORRECTNESS, "bench_train_bert-base", "bench_around", "bench_document_states"]
)
def test_every_check_is_well_at_toy_sizes(name: str):
    rows = list(run_check(name, TOY_SIZES))
    assert rows
    assert not [row for row in rows if row.ok is False]
    if name == "resume":
        assert rows[0].measured["first_step"] >= CHECKPOINT_STEP
        assert [row.ok for row in rows] == [True, True, True]
    if name == "training":
        assert all(row.measured["loss_after"] < row.measured["loss_before"] for row in rows)


@pytest.mark.slow
def test_the_script_runs_checks_in_processes(tmp_path: Path):
    path = tmp_path / "results.json"
    names = ["norms_and_dropout", "against_scan"]
    command = ["bash", "scripts/gpu_check.sh", "--cpu", "--json", str(path), "--only", *names]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHON": sys.executable}, check=False,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    checks = json.loads(path.read_text())["checks"]
    assert list(checks) == names
    assert "ok   norms" in done.stdout
