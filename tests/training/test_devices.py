"""A training state and batches on four devices, which the CPU stands in for in another process."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `four_devices.py` prints."""
    environment = {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "PYTHONPATH": str(ROOT),
    }
    child = subprocess.run(
        [
            sys.executable,
            str(Path(__file__).with_name("four_devices.py")),
            str(tmp_path_factory.mktemp("checkpoints")),
        ],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    result: dict[str, Any] = json.loads(child.stdout.splitlines()[-1])
    assert result["devices"] == 4
    return result


@pytest.mark.parametrize("case", ["fsdp 2", "two parts, fsdp 4"])
def test_four_devices_train_as_one(found: dict[str, Any], case: str):
    loss, parameters = found["steps"][case]
    assert loss <= 1e-5
    # Where a gradient is near zero, Adam makes much of its rounding.
    assert parameters <= 1e-4


def test_large_arrays_are_cut_along_their_longest_axis_and_never_between_layers(
    found: dict[str, Any],
):
    layer = "backbone.layers.stacked"
    specs = {
        "backbone.embeddings.token.embedding": "('fsdp',)",  # (520, 128)
        f"{layer}.attention.query.kernel": "(None, 'fsdp')",  # (2, 128, 128)
        f"{layer}.feed_forward.up.kernel": "(None, None, 'fsdp')",  # (2, 128, 192)
        f"{layer}.feed_forward.down.kernel": "(None, 'fsdp')",  # (2, 192, 128)
        f"{layer}.attention.query.bias": "()",
        "head.score.kernel": "()",
    }
    for name, spec in specs.items():
        alike = {key: value for key, value in found["shardings"].items() if name in key}
        # The parameter and the optimizer's two averages of it.
        assert len(alike) == 3, (name, sorted(found["shardings"]))
        assert set(alike.values()) == {spec}, alike
    assert found["shardings"]["step"] == "()"


def test_a_step_reuses_the_state_s_memory_and_keeps_its_layout(found: dict[str, Any]):
    assert found["step"] == {
        "donated": True,
        "compilations": 0,
        "layout": True,
        "metrics everywhere": True,
    }


def test_dropout_takes_the_same_elements_on_any_number_of_devices(found: dict[str, Any]):
    assert found["dropout"]


def test_pairs_are_scored_on_many_devices_as_on_one(found: dict[str, Any]):
    assert found["scores"] <= 1e-5


def test_a_checkpoint_of_four_devices_restores_on_one(found: dict[str, Any]):
    assert found["restored"]


def test_devices_that_cannot_share_the_work_are_refused(found: dict[str, Any]):
    fsdp, groups, parts = found["refused"]
    assert fsdp.startswith("devices.fsdp: got 3; a divisor of the number of devices (4)")
    assert groups.startswith("data.groups_per_batch: got 6 on 4 devices; a multiple of 4 is needed")
    assert "got 8 in 4 parts (training.accumulation) on 4 devices; a multiple of 16" in parts
