"""PyTorch's side yields what ours does on the same inputs, and says where it cannot run."""

from typing import Any

import jax
import numpy as np
import pytest

from jaxrank.benchmarking.cases import (
    AttentionShape,
    Case,
    Direction,
    ModelShape,
    ScanShape,
    Shape,
    SsdShape,
    Subject,
)
from jaxrank.benchmarking.networks import layer_side, score_side, train_side
from jaxrank.benchmarking.operations import Inputs, make_cotangent, make_inputs, make_operation
from jaxrank.benchmarking.rivals import RivalMissingError
from scripts.pytorch_rivals import RIVALS


@pytest.mark.parametrize(
    ("subject", "shape", "rival", "ours"),
    [
        ("scan", ScanShape(1, 5, 8, states=4), "transformers", "reference"),
        ("ssd", SsdShape(1, 5, 2, head_size=8, states=4), "transformers", "reference"),
        ("attention", AttentionShape(1, 6, 2, head_size=8, is_causal=True), "torch", "xla"),
    ],
)
def test_an_operations_result_and_gradients_are_ours(
    subject: Subject, shape: Shape, rival: str, ours: str
) -> None:
    case = Case(subject, shape, "both", "float32")
    key = case.random_keys[0]
    operation = make_operation(case, ours)
    inputs = make_inputs(case, key)

    @jax.jit
    def both(inputs: Inputs, cotangent: jax.Array) -> Any:
        y, pullback = jax.vjp(lambda given: operation(**given), inputs)
        return y, *pullback(cotangent)

    y, gradients = both(inputs, make_cotangent(case, key))
    side = RIVALS[rival](case)
    assert side is not None
    theirs = side.values()
    assert theirs.keys() == {"y", *(f"gradient of {name}" for name in inputs)}
    np.testing.assert_allclose(theirs["y"], y, atol=1e-5, rtol=1e-4)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(
            theirs[f"gradient of {name}"], gradient, atol=1e-4, rtol=1e-4, err_msg=name
        )


def test_what_cannot_run_here_says_why() -> None:
    case = Case("scan", ScanShape(1, 4, 8), "forward", "float32")
    for rival, reason in (
        ("mamba_ssm", "mamba_ssm not installed"),
        ("transformers compiled", "loop"),
    ):
        with pytest.raises(RivalMissingError, match=reason):
            RIVALS[rival](case)
    lora = ModelShape("mamba-tiny", 2, 8, candidates=2, lora_rank=4)
    with pytest.raises(RivalMissingError, match="no out_proj"):
        RIVALS["transformers"](Case("train", lora, "step", "float32"))
    assert RIVALS["torch"](case) is None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft's, of transformers
@pytest.mark.parametrize(
    "preset", ["bert-tiny", "gpt-neox-tiny", "opt-tiny", "mamba-tiny", "mamba2-tiny", "t5-tiny"]
)
def test_networks_have_our_weights_or_as_many(preset: str) -> None:
    plan: list[tuple[Subject, Direction]] = [("layer", "forward"), ("score", "forward")]
    makers = {"layer": layer_side, "score": score_side}
    for subject, direction in plan[preset == "t5-tiny" :]:
        case = Case(subject, ModelShape(preset, 2, 16), direction, "float32")
        ours, theirs = makers[subject](case, "auto"), RIVALS["transformers"](case)
        assert theirs is not None
        assert theirs.parameters == ours.parameters
        for name, value in theirs.values().items():
            np.testing.assert_allclose(value, ours.side.values()[name], atol=1e-4, rtol=1e-3)
    case = Case("train", ModelShape(preset, 4, 16, candidates=2), "step", "float32")
    step = RIVALS["transformers"](case)
    assert step is not None
    assert np.isfinite(float(step.queue(0)))
    assert step.parameters == train_side(case, "auto").parameters
