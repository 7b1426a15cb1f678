"""Memory and steps of `ssd` as compiled for the H200: a layer of mamba2-370m, 32,768 tokens."""

import re

import jax
import pytest

from scripts.h200 import compile_for_h200
from scripts.h200.cases import ssd_case

MIB = 2**20

# A batch of short texts and one of long ones. Both have the same number of tokens, of which the
# same number is computed at once; so the same bounds hold for both.
SHAPES = [(64, 512), (4, 8192)]


@pytest.fixture(autouse=True)
def sizes_of_an_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default sizes that a machine with a GPU would choose."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")


@pytest.mark.parametrize(("batch", "length"), SHAPES)
def test_forward_takes_at_most_700_mib(batch: int, length: int):
    case = ssd_case(batch=batch, length=length, with_gradients=False)
    compiled = compile_for_h200(*case)
    assert compiled.memory_analysis().temp_size_in_bytes < 700 * MIB


@pytest.mark.parametrize(("batch", "length"), SHAPES)
def test_forward_and_backward_take_at_most_1700_mib_few_steps_and_no_scatter(
    batch: int, length: int
):
    compiled = compile_for_h200(*ssd_case(batch=batch, length=length, with_gradients=True))
    assert compiled.memory_analysis().temp_size_in_bytes < 1700 * MIB
    program = compiled.as_text()
    # Whatever the length, 32,768 tokens take four steps forward and four backward; each starts
    # every kernel once more.
    steps = [int(trips) for trips in re.findall(r'known_trip_count":\{"n":"(\d+)"', program)]
    assert steps
    assert max(steps) <= 4
    # A scatter adds in the order in which threads arrive: other bits at every run.
    assert "scatter(" not in program
