from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxrank.errors import InputError
from jaxrank.models.mamba2 import PRESETS, GatedRMSNorm, Mamba2Config, Mamba2Mixer
from jaxrank.models.module import RerankerConfig, init_module, parameters
from jaxrank.models.stack import LayerStack, Remat
from jaxrank.models.state_space import StateSpaceLayer

SMALL = Mamba2Config(
    vocab_size=50, hidden_size=64, num_layers=4, state_size=8, head_size=4, num_groups=2
)


def test_it_starts_as_the_official_package_starts_it():
    arrays = parameters(init_module(RerankerConfig("mamba2", SMALL), seed=0))
    mixer = {
        path.rpartition("mixer.")[2]: np.asarray(array)
        for path, array in arrays.items()
        if "mixer" in path
    }
    decay = np.exp(mixer["A_log"])
    assert decay.shape == (4, 32)
    assert 1.0 <= decay.min() < 1.5
    assert 15.5 < decay.max() <= 16.0
    assert np.all(mixer["D"] == 1.0)
    assert np.all(mixer["norm.weight"] == 1.0)
    steps = np.log1p(np.exp(mixer["dt_bias"].astype(np.float64)))
    assert 0.001 <= steps.min() < 0.002
    assert 0.05 < steps.max() <= 0.1001
    # z and x (128 each), B and C (16 each), dt (32); the convolution sees x, B and C.
    assert mixer["in_proj.kernel"].shape == (4, 64, 2 * 128 + 2 * 16 + 32)
    assert mixer["conv_weight"].shape == (4, 128 + 2 * 16, 4)
    assert np.abs(mixer["conv_weight"]).max() == pytest.approx(0.5, rel=0.02)
    assert np.abs(mixer["in_proj.kernel"]).max() == pytest.approx(64**-0.5, rel=0.02)
    assert np.abs(mixer["out_proj.kernel"]).max() == pytest.approx((128 * 4) ** -0.5, rel=0.02)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"head_size": 48}, "128 inner channels .*, head_size 48"),
        ({"num_groups": 3}, "num_groups 3"),
        ({"num_groups": 0}, "num_groups is 0; it must be at least 1"),
        ({"time_step_limit": (0.1, 0.1)}, "time_step_limit is .*; needed is 0 <= lowest < highest"),
        ({"time_step_limit": (-1.0, 1.0)}, "time_step_limit"),
        ({"time_step_limit": (0.0, float("nan"))}, "time_step_limit"),
        ({"time_step_max": 1e-4}, "Mamba2Config: time_step_min is 0.001"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(change: dict, said: str):
    with pytest.raises(InputError, match=said):
        replace(SMALL, **change)


def test_the_gated_norm_scales_each_group_of_channels_on_its_own():
    norm = GatedRMSNorm(replace(SMALL, hidden_size=4, num_groups=2), dtype=jnp.float32)
    norm.weight.set_value(jnp.arange(1.0, 9.0))
    y, z = np.random.default_rng(0).standard_normal((2, 1, 3, 8))
    gated = (y * z / (1.0 + np.exp(-z))).reshape(1, 3, 2, 4)
    want = gated / np.sqrt(np.mean(gated**2, axis=-1, keepdims=True) + 1e-5)
    got = norm(jnp.asarray(y), jnp.asarray(z))
    np.testing.assert_allclose(got, want.reshape(1, 3, 8) * np.arange(1.0, 9.0), rtol=2e-5)


def test_all_published_sizes_have_heads_of_64_channels():
    heads = {name: config.num_heads for name, config in PRESETS.items() if "tiny" not in name}
    assert heads == {
        "mamba2-130m": 24,
        "mamba2-370m": 32,
        "mamba2-780m": 48,
        "mamba2-1.3b": 64,
    }


def count_recurrences_products(jaxpr: jax.extend.core.Jaxpr) -> int:
    """Matrix products with a batch axis, which no linear layer has; inner functions included."""
    count = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (_, (batch_axes, _)) = equation.params["dimension_numbers"]
            count += bool(batch_axes)
        for value in jax.tree.leaves(
            equation.params, is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")
        ):
            inner = getattr(value, "jaxpr", value)
            count += count_recurrences_products(inner) if hasattr(inner, "eqns") else 0
    return count


def test_of_the_recurrence_a_layer_that_keeps_projections_computes_only_the_states_again():
    def make_layer(rngs: nnx.Rngs) -> StateSpaceLayer:
        return StateSpaceLayer(SMALL, Mamba2Mixer, dtype=jnp.float32, rngs=rngs)

    def count(remat: Remat) -> int:
        graphdef, state = jax.eval_shape(
            lambda: nnx.split(LayerStack(make_layer, 2, rngs=nnx.Rngs(params=0), remat=remat))
        )
        hidden = jnp.ones((2, 70, 64))
        gradient = jax.grad(lambda state: jnp.sum(nnx.merge(graphdef, state)(hidden).hidden))
        return count_recurrences_products(jax.make_jaxpr(gradient)(state).jaxpr)

    # Going forward the recurrence takes four products: pairs of tokens match, y within a chunk,
    # what is written to the states, y from the states. The gradient needs the states alone.
    assert count("full") == count("none") + 4
    assert count("projections") == count("none") + 1
