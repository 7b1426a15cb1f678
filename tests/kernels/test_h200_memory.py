"""Memory of a Mamba layer as compiled for the H200, against what has to be there."""

import math
import re

import jax
import pytest

from jaxrank.models.mamba import PRESETS
from jaxrank.ops.selective_scan.mosaic.operands import BLOCK, KEEP_EVERY
from scripts.h200 import compile_for_h200
from scripts.h200.cases import layer_case

PRESET = "mamba-370m"
BATCH, LENGTH = 64, 512
MIB = 2**20

# What only moves numbers, in an optimised program: its name and its result's shape.
MOVE = re.compile(
    r"^ *%((?:copy|transpose|wrapped_(?:copy|transpose|slice|concatenate))[\w.]*)"
    r" = \w+\[([\d,]+)\]",
    re.MULTILINE,
)


@pytest.fixture(scope="module")
def layer() -> jax.stages.Compiled:
    """Forward and backward in bfloat16."""
    return compile_for_h200(*layer_case(PRESET, batch=BATCH, length=LENGTH))


def necessary_bytes() -> dict[str, int]:
    """What lives while the backward kernel runs, where a layer takes most."""
    config = PRESETS[PRESET]
    tokens, channels, states = BATCH * LENGTH, config.inner_size, config.state_size
    activation = 2 * tokens * channels  # bfloat16
    return {
        # Kept from the forward pass.
        "normed input, for the gradient of in_proj": 2 * tokens * config.hidden_size,
        "x, for the convolution's": activation,
        "u, delta and z, which the kernel reads": 3 * activation,
        "result of x_proj": 2 * tokens * (config.rank + 2 * states),
        "states, one in KEEP_EVERY": 4 * tokens * channels * states // KEEP_EVERY,
        # Of the backward pass.
        "B and C, float32": 4 * tokens * 2 * states,
        "cotangent of y": activation,
        "cotangents of u, delta and z": 3 * activation,
        "partial sums for B and C, of two channels a thread": (
            4 * (channels // (2 * BLOCK)) * tokens * 2 * states
        ),
    }


def test_layer_takes_at_most_a_fifth_more_than_has_to_be_there(layer):
    memory = layer.memory_analysis()
    # XLA keeps temporaries in the results' memory too, as long as that is free.
    taken = memory.temp_size_in_bytes + memory.output_size_in_bytes
    necessary = necessary_bytes()
    total = sum(necessary.values())
    listed = "\n".join(f"{size / MIB:8.1f} MiB  {what}" for what, size in necessary.items())
    assert taken <= 1.2 * total, f"{taken / MIB:.0f} MiB of {total / MIB:.0f}:\n{listed}"


def test_layer_moves_no_activation_without_computing(layer):
    activation = BATCH * LENGTH * PRESETS[PRESET].hidden_size
    program = layer.as_text().partition("\nENTRY ")[2]
    assert "mosaic_gpu" in program
    moves = {name: math.prod(map(int, shape.split(","))) for name, shape in MOVE.findall(program)}
    assert moves  # small ones there are, such as A turned to (N, D)
    assert [name for name, size in moves.items() if size >= activation] == []
