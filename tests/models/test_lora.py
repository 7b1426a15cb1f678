"""Adapters in every family: nothing at the start, the same when merged, no other part trained."""

import re
from dataclasses import replace
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jaxrank.errors import InputError
from jaxrank.models.families import FAMILIES, get_family
from jaxrank.models.layers import Embedding
from jaxrank.models.linear import Linear
from jaxrank.models.lora import (
    DropoutKey,
    LoraConfig,
    LoraEmbedding,
    LoraLinear,
    add_lora,
    count_trained,
    merge_lora,
    trained,
    with_dropout_keys,
)
from jaxrank.models.module import (
    RerankerConfig,
    RerankerModule,
    build_module,
    parameter_shapes,
    parameters,
)
from jaxrank.models.stack import LayerStack
from jaxrank.ops.dropout import dropout
from jaxrank.training.step import init_state, make_train_step, score_groups
from tests.families.comparison import random_batch, to_jax

ROWS = 40
BATCH = to_jax(random_batch(ROWS, np.array([7, 5, 2])))
KEY = jax.random.key(5)


def tiny(family: str, **changes: Any) -> RerankerConfig:
    preset = get_family(family).presets[f"{family.replace('_', '-')}-tiny"]
    return RerankerConfig(family, replace(preset, vocab_size=ROWS, **changes), head_dropout=0.0)


@cache
def weights(config: RerankerConfig) -> dict[str, np.ndarray]:
    """A start that numpy draws, in a tenth of the time of a real one."""
    random = np.random.default_rng(0)
    return {
        path: random.normal(0.5 if "norm" in path else 0, 0.1, spec.shape).astype(np.float32)
        for path, spec in parameter_shapes(config).items()
    }


def adapted(config: RerankerConfig, **options: Any) -> RerankerModule:
    module = build_module(config, weights(config))
    add_lora(module, LoraConfig(rank=4, **options), seed=0)
    return module


def randomise(module: RerankerModule) -> None:
    """Draw both halves of every adapter."""
    random = np.random.default_rng(1)
    for _, layer in nnx.iter_modules(module):
        if isinstance(layer, LoraLinear | LoraEmbedding):
            for half in (layer.lora_a, layer.lora_b):
                drawn = random.normal(0, 0.2, half.get_value().shape)
                half.set_value(jnp.asarray(drawn, jnp.float32))


def score(module: RerankerModule) -> np.ndarray:
    """Compiled once for each structure."""
    graphdef, state = nnx.split(module)
    return np.asarray(_scorer(graphdef)(state))


@cache
def _scorer(graphdef: Any) -> Any:
    return jax.jit(lambda state: nnx.merge(graphdef, state)(**BATCH))


# RoBERTa and XLM-RoBERTa are BERT but for the place of the first position.
@pytest.mark.parametrize(
    "family",
    [pytest.param(name, marks=pytest.mark.slow if "roberta" in name else ()) for name in FAMILIES],
)
def test_adapters_change_nothing_at_the_start_and_merging_changes_nothing_later(family: str):
    config = tiny(family)
    plain = build_module(config, weights(config))
    module = adapted(config)
    before = score(plain)
    np.testing.assert_array_equal(score(module), before)
    randomise(module)
    unmerged = score(module)
    merged = merge_lora(module)
    assert nnx.graphdef(merged) == nnx.graphdef(plain)
    np.testing.assert_allclose(score(merged), unmerged, atol=1e-5)
    assert np.abs(unmerged - before).min() > 1e-3, "the adapters change nothing"
    # What is trained is the adapters and the head; merging has left the module as it was.
    _, chosen, frozen = nnx.split(module, trained, ...)
    names = [".".join(map(str, path)) for path, _ in nnx.to_flat_state(chosen)]
    assert all(re.search(r"^head\.|\.lora_[ab]$", name) for name in names)
    kept = {".".join(map(str, p)): v.get_value() for p, v in nnx.to_flat_state(frozen)}
    assert kept.keys() == {path for path in weights(config) if path.startswith("backbone.")}
    for path, value in kept.items():
        np.testing.assert_array_equal(value, weights(config)[path])


@pytest.mark.parametrize(
    ("family", "layers"),
    [
        ("opt", {"token", "query", "key", "value", "output", "up", "down"}),
        ("gpt_neox", {"embedding", "qkv", "output", "up", "down"}),
        ("mamba", {"in_proj", "x_proj", "out_proj"}),
        ("t5", {"query", "key", "value", "output", "up", "down"}),
    ],
)
def test_targets_are_those_of_rankmambas_code(family: str, layers: set[str]):
    module = build_module(config := tiny(family), weights(config))
    assert set(add_lora(module, LoraConfig(rank=2), seed=0)) == layers
    paths = [path for path in parameters(module) if path.endswith("lora_a")]
    assert {path.split(".")[-2] for path in paths} == layers
    if family == "t5":  # both stacks, and the attention of one to the other
        assert sum("cross_attention" in path for path in paths) == 4
        assert sum("decoder" in path for path in paths) == 10


def test_targets_can_be_names_or_ends_of_paths():
    config = tiny("bert")
    module = adapted(config, targets=("attention.output", "token"))
    assert {path for path in parameters(module) if path.endswith("lora_a")} == {
        "backbone.layers.stacked.attention.output.lora_a",
        "backbone.embeddings.token.lora_a",
    }


@pytest.mark.parametrize(
    ("family", "target", "known"),
    [
        ("bert", "querry", "down, key, output, query, token, up, value"),
        ("bert", "score", "down, key"),  # the head is trained as a whole
        ("t5", "token", "down, key, output, query, up, value"),
        ("mamba", "dt_proj", "embedding, in_proj, out_proj, x_proj"),
    ],
)
def test_an_unknown_target_is_refused_with_those_that_are_known(
    family: str, target: str, known: str
):
    with pytest.raises(InputError, match=rf"lora.targets: no layer '{target}' in .*{known}"):
        adapted(tiny(family), targets=("up" if family == "bert" else target, target))


def test_a_start_is_that_of_peft():
    config = tiny("opt")
    module = adapted(config, alpha=12.0)
    up = module.backbone.layers.stacked.feed_forward.up
    assert up.scaling == 3.0
    start = up.lora_a.get_value()
    assert start.shape == (2, 64, 4)  # the layer axis stands in front
    assert 0.9 / 8 < np.abs(start).max() <= 1 / 8  # kaiming_uniform with a = sqrt(5)
    assert np.abs(start[0] - start[1]).max() > 0.1
    assert not up.lora_b.get_value().any()
    table = module.backbone.token
    assert not table.lora_a.get_value().any()
    assert np.std(table.lora_b.get_value()) == pytest.approx(1, abs=0.15)
    again = adapted(config, alpha=12.0)
    np.testing.assert_array_equal(again.backbone.layers.stacked.feed_forward.up.lora_a[...], start)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_layer_adds_its_adapters_product(dtype: Any):
    rngs = nnx.Rngs(params=0)
    base = nnx.Linear(6, 5, dtype=dtype, rngs=rngs)
    layer = LoraLinear(base, rank=2, scaling=1.5, dropout_rate=0.5, rngs=rngs)
    layer.lora_b.set_value(jax.random.normal(KEY, (2, 5)))
    x = jax.random.normal(jax.random.key(1), (3, 4, 6), dtype)
    a, b = layer.lora_a[...].astype(dtype), layer.lora_b[...].astype(dtype)
    expected = base(x) + 1.5 * (x @ a @ b)
    assert layer(x).dtype == dtype
    np.testing.assert_allclose(layer(x), expected, rtol=1e-6)
    dropped = base(x) + 1.5 * (dropout(x, 0.5, KEY) @ a @ b)
    layer.dropout_key = nnx.Variable(KEY)
    np.testing.assert_allclose(layer(x), dropped, rtol=1e-6)
    assert np.abs(dropped - expected).max() > 0.1


def test_a_table_yields_nan_beyond_its_rows_with_an_adapter_too():
    rngs = nnx.Rngs(params=0)
    base = Embedding(3, 4, standard_deviation=1.0, dtype=jnp.float32, rngs=rngs)
    table = LoraEmbedding(base, rank=2, scaling=1.0, rngs=rngs)
    assert np.isnan(table(jnp.array([3]))).all()


def test_each_layer_of_a_stack_drops_by_a_key_of_its_own():
    module = with_dropout_keys(original := adapted(tiny("bert"), dropout=0.5), KEY)
    attention = module.backbone.layers.stacked.attention
    keys = [attention.query.dropout_key[...], attention.value.dropout_key[...]]
    assert [key.shape for key in keys] == [(2,), (2,)]
    words = np.concatenate([jax.random.key_data(key) for key in keys])
    assert len({tuple(pair) for pair in words.tolist()}) == 4
    assert original.backbone.layers.stacked.attention.query.dropout_key is None
    assert with_dropout_keys(original, None) is original
    still = adapted(tiny("bert"), dropout=0.0)
    assert with_dropout_keys(still, KEY) is still


class Layer(nnx.Module):
    """A linear layer in a stack, with an adapter or without."""

    def __init__(self, rank: int | None, rngs: nnx.Rngs) -> None:
        base = nnx.Linear(64, 64, rngs=rngs)
        options: Any = {"scaling": 1.0, "dropout_rate": 0.0, "rngs": rngs}
        self.inner = base if rank is None else LoraLinear(base, rank=rank, **options)

    def __call__(self, hidden: jax.Array, *, key: None) -> jax.Array:
        del key
        return jnp.tanh(self.inner(hidden))


def test_an_adapters_own_result_is_not_kept_for_the_backward_pass():
    """It is as large as the layer's, and a thin product computes it again."""

    def kept(rank: int | None) -> int:
        stack = LayerStack(partial(Layer, rank), 2, rngs=nnx.Rngs(params=0), remat="projections")
        graphdef, state = nnx.split(stack)
        hidden = jnp.ones((32, 4, 64))
        pull = jax.eval_shape(
            lambda s: jax.vjp(lambda s: nnx.merge(graphdef, s)(hidden).hidden, s)[1], state
        )
        return sum(leaf.size for leaf in jax.tree.leaves(pull))

    thin, halves = 2 * 32 * 4 * 2, 2 * 2 * (64 + 64)
    assert kept(2) - kept(None) <= thin + halves


GROUPS = {
    "candidate_mask": jnp.ones((2, 2), bool),
    "input_ids": jax.random.randint(KEY, (2, 2, 6), 3, ROWS, jnp.int32),
    "mask": jnp.ones((2, 2, 6), bool),
    "token_type_ids": jnp.zeros((2, 2, 6), jnp.int32),
}


def test_scores_of_a_training_step_are_dropped_by_its_key_in_every_chunk():
    module = adapted(tiny("llama"), dropout=0.5)
    randomise(module)
    graphdef, state = nnx.split(module)

    @jax.jit
    def both(state: Any, key: jax.Array | None) -> Any:
        module = nnx.merge(graphdef, state)
        return score_groups(module, GROUPS, key=key), score_groups(module, GROUPS, key=key, chunk=2)

    plain, chunked = both(state, None)
    np.testing.assert_allclose(plain, chunked, atol=1e-5)
    one, one_chunked = both(state, jax.random.key(1))
    two, two_chunked = both(state, jax.random.key(2))
    np.testing.assert_array_equal(one, both(state, jax.random.key(1))[0])
    assert np.all(one != two)
    assert np.all(one != plain)
    assert np.all(one_chunked != two_chunked)


@pytest.mark.parametrize("family", ["mamba", pytest.param("bert", marks=pytest.mark.slow)])
def test_a_step_moves_adapters_and_head_and_keeps_the_base_to_the_bit(family: str):
    config = tiny(family, num_layers=1)
    module = adapted(config, dropout=0.2)
    optimizer = optax.scale_by_adam()
    graphdef, state = init_state(module, optimizer, key=jax.random.key(0), trained=trained)
    lowered = make_train_step(graphdef, optimizer, lambda step: 0.01).lower(state, GROUPS)
    step = lowered.compile()
    moments = sum(leaf.size for leaf in jax.tree.leaves(state.optimizer_state) if leaf.ndim)
    assert moments == 2 * count_trained(module)[0]
    before = jax.tree.map(np.array, state.parameters)
    for _ in range(2):  # the half that starts at zero keeps the other one's first gradient zero
        state, metrics = step(state, GROUPS)
    assert np.isfinite(metrics["loss"])
    for path, value in nnx.to_flat_state(state.parameters):
        moved = np.abs(value.get_value() - dict(nnx.to_flat_state(before))[path].get_value())
        assert moved.max() > 1e-4 or path[-1] == "bias", path
    after = {".".join(map(str, p)): v.get_value() for p, v in nnx.to_flat_state(state.frozen)}
    assert after
    for path, value in after.items():
        np.testing.assert_array_equal(value, weights(config)[path], err_msg=path)


def test_the_trained_share_counts_what_merging_leaves():
    config = tiny("bert")
    count, whole = count_trained(adapted(config))
    assert whole == sum(value.size for value in weights(config).values())
    # Six layers in each of two: A and B of rank 4; and the head's 64 weights and bias.
    assert count == 2 * 4 * (4 * (64 + 64) + 2 * (64 + 128)) + 65


@pytest.mark.parametrize("use_bias", [False, True])
def test_parts_of_a_layer_are_what_a_split_makes_of_it(use_bias: bool):
    rngs = nnx.Rngs(params=0)
    base = Linear(6, 9, use_bias=use_bias, bias_init=nnx.initializers.normal(), rngs=rngs)
    layer = LoraLinear(base, rank=2, scaling=0.5, dropout_rate=0.5, rngs=rngs)
    layer.lora_b.set_value(jnp.ones((2, 9)))
    layer.dropout_key = DropoutKey(KEY)
    inputs = jax.random.normal(KEY, (2, 3, 6))
    for each in (base, layer):
        parts = each.in_parts(inputs, (2, 6))
        assert [part.shape[-1] for part in parts] == [2, 4, 3]
        np.testing.assert_allclose(jnp.concatenate(parts, axis=-1), each(inputs), rtol=1e-5)
