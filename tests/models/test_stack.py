"""LayerStack equals a loop over its layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxrank.models.stack import LayerStack, keep_beside_projections


class Affine(nnx.Module):
    """A layer that can tell who called it: noise by key, an own and a shared argument."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.weight = nnx.Param(jax.random.normal(rngs.params(), (4, 4)) / 2)

    def __call__(self, hidden, *, key=None, shift=0.0, scale=1.0):
        noise = 0.0 if key is None else jax.random.normal(key, hidden.shape)
        return jnp.tanh(hidden @ self.weight[...]) * scale + shift + noise


class KeepsSine(Affine):
    """Going back it needs its projection for the cosine and the sine for the square."""

    def __call__(self, hidden, *, key=None):
        return keep_beside_projections(jnp.sin(hidden @ self.weight[...])) ** 2


class HandsOutItsInput(Affine):
    def __call__(self, hidden, *, key=None, own=None):
        return jnp.tanh(hidden @ self.weight[...]), {"read": hidden, "given": own}


def make(layer=Affine, **options) -> LayerStack:
    return LayerStack(layer, 5, rngs=nnx.Rngs(params=0), **options)


HIDDEN = jax.random.normal(jax.random.key(7), (2, 3, 4))
KEY = jax.random.key(1)
SHIFTS = jnp.arange(5.0)


def loop() -> list[jax.Array]:
    """Outputs of the layers, one after the other, by plain indexing."""
    weights, hidden, outputs = make().stacked.weight[...], HIDDEN, []
    for index in range(5):
        noise = jax.random.normal(jax.random.fold_in(KEY, index), hidden.shape)
        hidden = jnp.tanh(hidden @ weights[index]) * 3.0 + SHIFTS[index] + noise
        outputs.append(hidden)
    return outputs


@pytest.mark.parametrize(
    "options", [{}, {"remat": "full"}, {"remat": "projections", "unroll": 9}, {"unroll": 2}]
)
def test_stack_applies_its_layers_in_order(options):
    stack, expected = make(**options), loop()
    call = {"key": KEY, "per_layer": {"shift": SHIFTS}, "scale": 3.0}
    final, outputs, own = stack(HIDDEN, return_hidden_states=True, **call)
    assert own is None
    np.testing.assert_allclose(outputs, jnp.stack(expected), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(final, outputs[-1])
    if not options:
        alone = stack(HIDDEN, **call)
        np.testing.assert_allclose(alone.hidden, final, rtol=1e-6)
        assert alone.outputs == ()


@pytest.mark.usefixtures("full_compilation")  # two programs, to the last bits
@pytest.mark.parametrize("remat", ["none", "full"])
def test_what_layers_hand_out_is_stacked_beside_the_stream_and_its_hidden_states(remat: str):
    stack, plain = make(HandsOutItsInput, remat=remat), make()
    final, outputs, _ = plain(HIDDEN, return_hidden_states=True)
    call = {"per_layer": {"own": {"shift": SHIFTS}}, "return_per_layer": True}
    stream, _, handed_out = stack(HIDDEN, **call)
    np.testing.assert_allclose(stream, final, rtol=1e-6)
    np.testing.assert_allclose(handed_out["read"][1:], outputs[:-1], rtol=1e-6)
    np.testing.assert_array_equal(handed_out["read"][0], HIDDEN)
    np.testing.assert_array_equal(handed_out["given"]["shift"], SHIFTS)
    stream, hidden_states, again = stack(HIDDEN, return_hidden_states=True, **call)
    np.testing.assert_array_equal(hidden_states[-1], stream)
    np.testing.assert_array_equal(again["read"], handed_out["read"])


def test_layers_start_different_and_a_seed_gives_the_same_start():
    weights = make().stacked.weight[...]
    assert weights.shape == (5, 4, 4)
    assert len({float(layer[0, 0]) for layer in weights}) == 5
    np.testing.assert_array_equal(weights, make().stacked.weight[...])


def test_without_a_key_layers_get_none():
    stack = make()
    np.testing.assert_array_equal(stack(HIDDEN).hidden, stack(HIDDEN).hidden)
    assert np.all(stack(HIDDEN, key=KEY).hidden != stack(HIDDEN).hidden)


WIDE = jnp.broadcast_to(HIDDEN[:1], (64, 3, 4))


def keep_and_differentiate(remat: str, layer: type[Affine] = Affine) -> tuple[int, jax.Array]:
    """How many numbers the backward pass is given, and the weights' gradient."""
    graphdef, state = nnx.split(make(layer, remat=remat))
    _, pull = jax.vjp(lambda state: nnx.merge(graphdef, state)(WIDE).hidden, state)
    return sum(leaf.size for leaf in jax.tree.leaves(pull)), jax.tree.leaves(pull(WIDE))[0]


def test_recomputing_more_keeps_less_and_gives_the_same_gradient():
    everything, projections, inputs = map(keep_and_differentiate, ("none", "projections", "full"))
    assert inputs[0] < projections[0] < everything[0]
    for _, gradient in (projections, inputs):
        np.testing.assert_allclose(gradient, everything[1], rtol=1e-5, atol=1e-6)


def test_what_a_layer_says_is_kept_beside_projections_and_nowhere_else():
    plain, _ = keep_and_differentiate("projections")
    kept, gradient = keep_and_differentiate("projections", KeepsSine)
    assert kept == plain + 5 * WIDE.size
    full, same_gradient = keep_and_differentiate("full", KeepsSine)
    assert full == keep_and_differentiate("full")[0]
    np.testing.assert_allclose(gradient, same_gradient, rtol=1e-5, atol=1e-6)


def test_a_stack_without_layers_is_refused():
    with pytest.raises(ValueError, match="num_layers=0"):
        LayerStack(Affine, 0, rngs=nnx.Rngs(params=0))
