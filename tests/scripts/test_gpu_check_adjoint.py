"""The float64 gradients that the GPU checks compare with, against those of complex steps."""

from functools import partial

import numpy as np
import pytest

from jaxrank.ops.oracle import (
    largest_error,
    oracle_gradients,
    selective_scan_oracle,
    ssd_oracle,
)
from scripts.gpu_check.adjoint import attention_adjoint, selective_scan_adjoint, ssd_adjoint
from scripts.gpu_check.inputs import make_marks, random_attention, random_scan, random_ssd

EXACT = 1e-12


@pytest.mark.parametrize("softplus", [True, False])
@pytest.mark.parametrize("left_out", [(), ("D", "z", "delta_bias", "initial_state", "mask")])
def test_the_scans_adjoint_is_its_gradient(softplus: bool, left_out: tuple[str, ...]):
    random = np.random.default_rng(0)
    arguments = random_scan(random, 2, 9, 3, 2) | make_marks(random, 2, 9)
    arguments = {name: value for name, value in arguments.items() if name not in left_out}
    oracle = partial(selective_scan_oracle, softplus=softplus)
    outputs = oracle(**arguments)
    cotangents = tuple(random.standard_normal(output.shape) for output in outputs)
    found = selective_scan_adjoint(arguments, cotangents, softplus=softplus)
    names = [name for name in arguments if name not in ("mask", "reset")]
    wanted = oracle_gradients(oracle, arguments, names, cotangents)
    for got, want in zip(found.outputs, outputs, strict=True):
        assert largest_error(got, want) < EXACT
    assert found.gradients.keys() == wanted.keys()
    for name, want in wanted.items():
        assert largest_error(found.gradients[name], want) < EXACT, name


def test_the_adjoint_of_ssd_is_its_gradient():
    random = np.random.default_rng(0)
    arguments = random_ssd(random, 2, 7, 2, 3, 2) | make_marks(random, 2, 7)
    outputs = ssd_oracle(**arguments)
    cotangents = tuple(random.standard_normal(output.shape) for output in outputs)
    found = ssd_adjoint(arguments, cotangents)
    names = [name for name in arguments if name not in ("mask", "reset")]
    wanted = oracle_gradients(ssd_oracle, arguments, names, cotangents)
    for got, want in zip(found.outputs, outputs, strict=True):
        assert largest_error(got, want) < EXACT
    for name, want in wanted.items():
        assert largest_error(found.gradients[name], want) < EXACT, name


def test_the_adjoint_of_attention_is_its_gradient():
    random = np.random.default_rng(0)
    inputs = random_attention(random, 2, 5, 2, 3)
    bias = random.standard_normal((1, 2, 5, 5))
    allowed = np.tril(np.ones((2, 1, 5, 5), bool))
    output_bar = random.standard_normal(inputs["query"].shape)
    _, gradients = attention_adjoint(inputs, output_bar, allowed, bias=bias)
    direction = {name: random.standard_normal(value.shape) for name, value in inputs.items()}
    bias_direction = random.standard_normal(bias.shape)

    def loss(size: float) -> float:
        moved = {name: value + size * direction[name] for name, value in inputs.items()}
        output, _ = attention_adjoint(moved, output_bar, allowed, bias=bias + size * bias_direction)
        return float(np.sum(output * output_bar))

    slope = (loss(1e-5) - loss(-1e-5)) / 2e-5
    along = {**direction, "bias": bias_direction}
    assert slope == pytest.approx(sum(np.sum(gradients[name] * along[name]) for name in along))
