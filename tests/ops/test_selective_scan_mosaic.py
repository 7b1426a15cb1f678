"""What `selective_scan` does around the Mosaic kernels: choice, refusal, export, mapping, devices.

The kernels themselves are in tests/kernels; here stand-ins compute what they would.
"""

import json
import logging
import os
import re
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrank.ops import arguments
from jaxrank.ops.oracle import largest_error
from jaxrank.ops.selective_scan import selective_scan
from jaxrank.ops.selective_scan.mosaic.operands import KEEP_EVERY
from tests.ops.mosaic_stand_in import replace_kernels
from tests.ops.selective_scan_cases import (
    FLOAT32,
    differentiable,
    make_arguments,
    make_cotangents,
    run_with_gradients,
    to_jax,
)


def shapes(channels: int = 128, states: int = 16) -> dict[str, jax.ShapeDtypeStruct]:
    """Arguments without values."""

    def shape(*sizes: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(sizes, jnp.float32)

    per_channel, per_state = shape(2, 20, channels), shape(2, 20, states)
    return {
        "u": per_channel,
        "delta": per_channel,
        "A": shape(channels, states),
        "B": per_state,
        "C": per_state,
    }


def mosaic(**arrays: jax.Array) -> jax.Array:
    return selective_scan(**arrays, implementation="mosaic")


@pytest.mark.parametrize(
    ("channels", "states", "reason"),
    [(192, 16, "D = 192 came; a multiple of 128 is"), (128, 33, "N = 33 came; at most 32 is")],
)
def test_mosaic_refuses_sizes_that_its_kernels_do_not_take(channels: int, states: int, reason: str):
    with pytest.raises(ValueError, match=rf"'mosaic': {reason} needed; 'associative' takes any"):
        jax.eval_shape(mosaic, **shapes(channels, states))


def test_mosaic_on_a_cpu_is_refused_in_one_line_and_not_replaced():
    arrays = {name: jnp.ones(x.shape) for name, x in shapes().items()}
    gradient = jax.grad(lambda arrays: mosaic(**arrays).sum())
    for run in (mosaic, jax.jit(mosaic), lambda **arrays: gradient(arrays)):
        with pytest.raises(ValueError, match="platform cpu came; an NVIDIA GPU of the Hopper"):
            run(**arrays)


def exported_kernels(function: Callable[[dict], jax.Array]) -> list[str]:
    """The types of what each kernel returns, as exported for cuda by a machine without a GPU."""
    exported = jax.export.export(jax.jit(function), platforms=["cuda"])(shapes())
    return re.findall(r"custom_call @mosaic_gpu.* -> \(?(.*?)\)? loc", exported.mlir_module())


@pytest.mark.parametrize(
    ("wrap", "kernels", "keeping"),
    [
        (lambda layer: layer, 1, 0),
        (lambda layer: jax.value_and_grad(layer), 2, 1),
        (lambda layer: jax.value_and_grad(jax.checkpoint(layer)), 3, 1),
    ],
    ids=["forward", "gradient", "gradient of a checkpointed layer"],
)
def test_mosaic_is_exported_without_a_gpu_and_keeps_states_for_a_gradient_only(
    wrap: Callable, kernels: int, keeping: int
):
    layer = wrap(lambda arrays: mosaic(**arrays).sum())
    found = exported_kernels(lambda arrays: jax.tree.map(jnp.sin, layer(arrays)))
    kept = f"2x{24 // KEEP_EVERY}x16x128xf32"  # one state in KEEP_EVERY tokens
    assert len(found) == kernels
    assert sum(kept in results for results in found) == keeping


@pytest.mark.parametrize(
    ("shared", "rows"),
    # The rows that a kernel takes: of all that are mapped at once, or of those with one A.
    [(("A", "D", "delta_bias", "B", "reset"), 6), (("u", "C", "mask"), 2)],
    ids=["inputs", "weights"],
)
def test_mosaic_can_be_vmapped_over(
    shared: tuple[str, ...], rows: int, monkeypatch: pytest.MonkeyPatch
):
    cuts = replace_kernels(monkeypatch)
    made = [
        to_jax(make_arguments(9, rows=("holes", "resets"), channels=128, seed=seed))
        for seed in range(3)
    ]
    stacked = {
        name: made[0][name] if name in shared else jnp.stack([one[name] for one in made])
        for name in made[0]
    }
    axes = {name: None if name in shared else 0 for name in stacked}
    y_bar = jnp.asarray(make_cotangents(made[0])[0], jnp.float32)

    def differentiate(implementation: str) -> Callable[[dict], tuple]:
        def loss(moving: dict, arrays: dict) -> jax.Array:
            y, state = selective_scan(
                **arrays | moving, return_final_state=True, implementation=implementation
            )
            return jnp.sum(y * y_bar) + jnp.sum(jnp.sin(state))

        def both(arrays: dict) -> tuple[dict, dict]:
            """The gradients of each, and those of the sum of all."""
            moving = {name: arrays[name] for name in differentiable(arrays)}
            mapped = ({name: axes[name] for name in moving}, axes)
            each = jax.vmap(jax.grad(loss), mapped)(moving, arrays)
            whole = jax.grad(lambda *both: jnp.sum(jax.vmap(loss, mapped)(*both)))(moving, arrays)
            return each, whole

        return jax.jit(both)

    got, want = differentiate("mosaic")(stacked), differentiate("scan")(stacked)
    for one, other in zip(*map(jax.tree.leaves, (got, want)), strict=True):
        assert largest_error(one, np.asarray(other, np.float64)) < FLOAT32
    assert max(cuts) == rows


def test_a_cotangent_of_an_absent_token_reaches_no_gradient_of_mosaic(
    monkeypatch: pytest.MonkeyPatch,
):
    replace_kernels(monkeypatch)
    arrays = to_jax(make_arguments(17, rows=("holes", "resets"), channels=128, states=4))
    y_bar, state_bar = (jnp.asarray(bar, jnp.float32) for bar in make_cotangents(arrays))
    poisoned = jnp.where(arrays["mask"][:, :, None], y_bar, jnp.nan)
    clean = run_with_gradients(arrays, (y_bar, state_bar), implementation="mosaic")
    got = run_with_gradients(arrays, (poisoned, state_bar), implementation="mosaic")
    jax.tree.map(np.testing.assert_array_equal, got, clean)


@pytest.mark.parametrize(
    ("capability", "channels", "states", "reason"),
    [
        ("9.0", 2048, 16, None),
        ("10.0", 2048, 16, None),
        ("12.0", 2048, 16, "compute capability 12.0 came; it is for 9.x and 10.x"),
        ("8.9", 2048, 16, "compute capability 8.9 came; it is for 9.x and 10.x"),
        ("9.0", 2000, 16, "D = 2000 came; a multiple of 128 is needed"),
        ("9.0", 2048, 64, "N = 64 came; at most 32 is needed"),
        ("gfx942", 2048, 16, "compute capability gfx942 came; it is for 9.x and 10.x"),
    ],
)
def test_auto_is_mosaic_on_hopper_and_blackwell_where_the_sizes_fit_or_says_why_not(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capability: str,
    channels: int,
    states: int,
    reason: str | None,
):
    device = types.SimpleNamespace(compute_capability=capability)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "devices", lambda: [device])
    chosen = "associative" if reason else "mosaic"
    because = f" (not 'mosaic': {reason})" if reason else ""
    arguments.log_choice.cache_clear()
    with caplog.at_level(logging.INFO):
        # A new function, since what has been traced before would not ask again.
        traced = jax.make_jaxpr(lambda **arrays: selective_scan(**arrays))(
            **shapes(channels, states)
        )
    assert ("custom_partitioning" in str(traced)) == (chosen == "mosaic")
    assert caplog.messages == [
        f"selective_scan: implementation 'auto' is '{chosen}' on gpu{because}"
    ]


def test_a_batch_on_two_devices_stays_there():
    environment = {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
    }
    child = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("mosaic_on_two_devices.py"))],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    found = json.loads(child.stdout)
    assert found["devices"] == 2
    assert found["segments"]["2"] == 2  # as fits the rows that a device has, not all four
    for mesh in found["meshes"].values():
        assert mesh["gathers"] == 0  # no device asks for the sequences of the other one
        assert mesh["additions"] > 0  # the gradients of the weights are those of both
        assert max(mesh["errors"].values()) < 1e-6, mesh["errors"]
