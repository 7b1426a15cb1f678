"""Our side of networks, traced and not compiled: what is called, and the work that is counted."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from jaxrank.benchmarking import networks
from jaxrank.benchmarking.cases import RANDOM_SETS, Case, ModelShape
from jaxrank.benchmarking.networks import layer_side, make_ids, score_side, train_side
from jaxrank.benchmarking.operations import Prepared
from jaxrank.benchmarking.timing import CompiledSide
from jaxrank.errors import InputError


class Traced(CompiledSide):
    """Knows the shapes of what a call would yield, where all is traced and nothing computed."""

    def __init__(
        self,
        function: Any,
        inputs: Sequence[tuple[Any, ...]],
        *,
        carried: Any = None,
        names: Sequence[str] = (),
    ) -> None:
        first = inputs[0] if carried is None else (carried, *inputs[0])
        self.result = jax.eval_shape(function, *first)
        self.inputs, self.carried = inputs, carried


@pytest.fixture(autouse=True)
def nothing_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "CompiledSide", Traced)


def trace(make: Callable[[Case, str], Prepared], case: Case, implementation: str = "auto") -> Any:
    """What `make` builds, with shapes in place of arrays: no module is drawn at random."""
    built = []
    jax.eval_shape(lambda: built.append(make(case, implementation)))
    return built[0]


def test_a_training_step_is_of_whole_groups_and_counts_its_flops() -> None:
    case = Case("train", ModelShape("bert-tiny", 6, 16, candidates=3), "step", "float32")
    prepared = trace(train_side, case)
    side = prepared.side
    assert [batch["input_ids"].shape for (batch,) in side.inputs] == [(2, 3, 16)] * RANDOM_SETS
    state, metrics = side.result
    assert {"loss", "gradient_norm"} <= metrics.keys()
    assert jax.tree.structure(state) == jax.tree.structure(side.carried)
    # Two layers of 32,768 weights in products, their biases and norms, 96 tokens, 2 x 16 of
    # attention; tables cost nothing and the head counts once a pair.
    layers = 2 * 33_472 + 2 * 64
    expected = 6 * layers * 96 + 12 * 64 * (2 * 16) * 96 + 6 * 65 * 6
    assert prepared.work[0].matmul == pytest.approx(expected)
    assert prepared.parameters == 2_053_441


def test_with_adapters_only_those_and_the_head_are_trained() -> None:
    shape = ModelShape("gpt-neox-tiny", 2, 16, candidates=2, lora_rank=4)
    side = trace(train_side, Case("train", shape, "step", "float32")).side
    trained = sum(leaf.size for leaf in jax.tree.leaves(side.carried.parameters))
    frozen = sum(leaf.size for leaf in jax.tree.leaves(side.carried.frozen))
    assert trained < 0.1 * frozen


def test_scoring_is_a_third_of_a_training_steps_work() -> None:
    shape = ModelShape("mamba-tiny", 4, 16, candidates=2)
    step = trace(train_side, Case("train", shape, "step", "float32"), "scan").work[0].matmul
    scores = trace(score_side, Case("score", shape, "forward", "float32"), "scan")
    assert scores.work[0].matmul == pytest.approx(step / 3)
    assert scores.side.result.shape == (4,)


def test_a_layer_gives_the_gradients_of_its_weights_and_its_input() -> None:
    case = Case("layer", ModelShape("mamba-tiny", 2, 16), "both", "float32")
    side = trace(layer_side, case, "scan").side
    y, (weights, hidden) = side.result
    assert y.shape == hidden.shape == (2, 16, 64)
    assert sum(leaf.size for leaf in jax.tree.leaves(weights)) == 32_704


def test_layers_that_need_more_than_a_stream_are_refused() -> None:
    with pytest.raises(InputError, match="'t5' has no layer that stands alone"):
        trace(layer_side, Case("layer", ModelShape("t5-tiny", 1, 16), "forward", "float32"))


def test_random_ids_are_real_tokens_and_another_set_each_turn() -> None:
    case = Case("score", ModelShape("bert-tiny", 2, 8), "forward", "float32")
    sets = [make_ids(case, key) for key in case.random_keys]
    assert all(jnp.all((ids >= 10) & (ids < 30522)) for ids in sets)
    assert not jnp.array_equal(sets[0], sets[1])
    assert jnp.array_equal(sets[0], make_ids(case, case.random_keys[0]))
