"""Memory and steps of `ssd` as compiled for the H200: a layer of mamba2-370m, 32,768 tokens."""

import re

import jax
import jax.numpy as jnp
import pytest

from jaxrank.ops.ssd import ssd
from scripts.h200 import compile_for_h200

HEADS, CHANNELS, STATES = 32, 64, 128
MIB = 2**20

# A batch of short texts and one of long ones. Both have the same number of tokens, of which the
# same number is computed at once; so the same bounds hold for both.
SHAPES = [(64, 512), (4, 8192)]


def make_arguments(batch: int, length: int) -> dict[str, jax.ShapeDtypeStruct]:
    per_group = jax.ShapeDtypeStruct((batch, length, 1, STATES), jnp.bfloat16)
    per_head = jax.ShapeDtypeStruct((HEADS,), jnp.float32)
    return {
        "x": jax.ShapeDtypeStruct((batch, length, HEADS, CHANNELS), jnp.bfloat16),
        "dt": jax.ShapeDtypeStruct((batch, length, HEADS), jnp.float32),
        "A": per_head,
        "B": per_group,
        "C": per_group,
        "D": per_head,
    }


def gradients(y_bar: jax.Array, **arguments: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Return y and the gradient of every argument."""
    y, pull = jax.vjp(lambda arguments: ssd(**arguments), arguments)
    return y, pull(y_bar)[0]


@pytest.fixture(autouse=True)
def sizes_of_an_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default sizes that a machine with a GPU would choose."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")


@pytest.mark.parametrize(("batch", "length"), SHAPES)
def test_forward_takes_at_most_700_mib(batch: int, length: int):
    compiled = compile_for_h200(ssd, make_arguments(batch, length))
    assert compiled.memory_analysis().temp_size_in_bytes < 700 * MIB


@pytest.mark.parametrize(("batch", "length"), SHAPES)
def test_forward_and_backward_take_at_most_1700_mib_few_steps_and_no_scatter(
    batch: int, length: int
):
    arguments = make_arguments(batch, length)
    compiled = compile_for_h200(gradients, {"y_bar": arguments["x"], **arguments})
    assert compiled.memory_analysis().temp_size_in_bytes < 1700 * MIB
    program = compiled.as_text()
    # Whatever the length, 32,768 tokens take four steps forward and four backward; each starts
    # every kernel once more.
    steps = [int(trips) for trips in re.findall(r'known_trip_count":\{"n":"(\d+)"', program)]
    assert steps
    assert max(steps) <= 4
    # A scatter adds in the order in which threads arrive: other bits at every run.
    assert "scatter(" not in program
