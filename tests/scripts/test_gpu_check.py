"""The script that checks a GPU, at toy sizes without one."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrank.benchmarking import report
from scripts.gpu_check import __main__ as gpu_check
from scripts.gpu_check.bounds import BOUNDS
from scripts.gpu_check.comparing import compare
from scripts.gpu_check.models import plain_config
from scripts.gpu_check.poison import same_bits
from scripts.gpu_check.results import Results
from scripts.gpu_check.resume import CHECKPOINT_STEP
from scripts.gpu_check.rows import BFLOAT16, TOY_SIZES, Row, compared, errors_on_device

ROOT = Path(__file__).resolve().parents[2]
MACHINE = {"device": "cpu", "versions": {"jax": "1"}, "source": None}


def test_a_check_gives_comparisons():
    rows = gpu_check.run_checks(["norms_and_dropout"], TOY_SIZES)
    assert all(row.ok for row in rows)
    assert {row.check for row in rows} == {"norms", "dropout"}


def test_a_wrong_value_and_an_exception_are_failed_rows(monkeypatch: pytest.MonkeyPatch):
    def broken(sizes: object) -> Iterator[object]:
        yield compared("broken", "value", {"x": 0.0, "y": float("nan"), "z": 1e-6}, 1e-5)
        raise RuntimeError("out of memory\nwith a long trace")

    monkeypatch.setitem(gpu_check.CHECKS, "broken", broken)
    rows = gpu_check.run_checks(["broken"], TOY_SIZES)
    assert [(row.case, row.ok) for row in rows] == [("value", False), ("stopped", False)]
    assert rows[0].note == "worst: y"


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


def test_no_check_begins_after_the_last_minute():
    rows = gpu_check.run_checks(["norms_and_dropout", "ssd"], TOY_SIZES, deadline_s=0.0)
    assert [(row.check, row.ok) for row in rows] == [("norms_and_dropout", None), ("ssd", None)]


def measured(subject: str, name: str, length: int, **values: object) -> report.Row:
    shape = {"shape": "", "direction": "step", "dtype": "bfloat16", "batch": 64}
    row = {"side": "jaxrank", "median_ms": 1.0, **shape, **values}
    return report.Row(subject=subject, name=name, length=length, **row)  # type: ignore[arg-type]


def test_bounds_are_looked_up_among_measured_rows():
    rows = [
        measured("scan", "channels 1536 states 16", 512, direction="forward", floor_share=0.8),
        measured("scan", "channels 1536 states 16", 512, direction="backward", floor_share=0.5),
        measured("train", "mamba-370m", 512, pairs_per_s=60.0),
        measured("train", "pythia-410m", 512, pairs_per_s=100.0, floor_share=0.5),
        measured("train", "mamba-370m", 512, side="PyTorch", speed_of_ours=1.5),
        measured("train", "mamba-370m", 512, side="compiled", speed_of_ours=1.1),
    ]
    found = {
        bound.title: (verdict, value)
        for bound in BOUNDS
        for verdict, value in [bound.verdict(rows)]
        if value is not None
    }
    assert found == {
        "scan forward, share of the floor, 64 x 512, D 1536": ("met", 0.8),
        "scan backward, share of the floor, 64 x 512, D 1536": ("missed", 0.5),
        "training throughput, mamba-370m over pythia-410m, 512 tokens": ("met", 0.6),
        "training step, speed against PyTorch, mamba-370m, 512 tokens": ("missed", 1.1),
        "training step, model FLOPs utilisation, pythia-410m, 512 tokens": ("met", 0.5),
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
        "import scripts.gpu_check.__main__\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*gpu_check.CORRECTNESS, "bench_train", "bench_around"])
def test_every_check_is_well_at_toy_sizes(name: str):
    rows = gpu_check.run_checks([name], TOY_SIZES)
    assert rows
    assert not [row for row in rows if row.ok is False]


@pytest.mark.slow
def test_a_killed_training_ends_with_the_same_bits():
    rows = gpu_check.run_checks(["resume"], TOY_SIZES)
    assert [row.ok for row in rows] == [True, True, True]
    assert rows[0].measured["first_step"] >= CHECKPOINT_STEP
    assert rows[2].measured["ratio"] > 0


@pytest.mark.slow
def test_training_falls_at_toy_sizes():
    rows = gpu_check.run_checks(["training"], TOY_SIZES)
    assert {row.ok for row in rows} == {True}
    assert all(row.measured["loss_after"] < row.measured["loss_before"] for row in rows)
