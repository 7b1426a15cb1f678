"""Building, naming and checking rerankers."""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxrank.errors import InputError
from jaxrank.models.bert import BertConfig
from jaxrank.models.families import FAMILIES, get_family
from jaxrank.models.gpt_neox import GptNeoXConfig
from jaxrank.models.llama import LlamaConfig
from jaxrank.models.mamba import MambaConfig
from jaxrank.models.modernbert import ModernBertConfig
from jaxrank.models.module import (
    RerankerConfig,
    build_module,
    init_module,
    parameter_shapes,
    parameters,
)
from jaxrank.models.t5 import T5Config

BERT = RerankerConfig(
    family="bert",
    backbone=BertConfig(
        vocab_size=30, hidden_size=8, num_layers=2, num_heads=2, intermediate_size=12
    ),
    head="classification",
)
MAMBA = RerankerConfig(
    family="mamba", backbone=MambaConfig(vocab_size=30, hidden_size=8, num_layers=2, state_size=4)
)
IDS = jnp.arange(12).reshape(2, 6)
MASK = jnp.array([[True] * 6, [True] * 4 + [False] * 2])


@pytest.fixture(scope="module")
def start():
    """Random starts by configuration and seed, each made once."""
    return functools.cache(lambda config, seed=0: init_module(config, seed=seed))


BERT_PATHS = """
backbone.embeddings.norm.bias backbone.embeddings.norm.weight
backbone.embeddings.position.embedding backbone.embeddings.token.embedding
backbone.embeddings.token_type.embedding
backbone.layers.stacked.attention.key.bias backbone.layers.stacked.attention.key.kernel
backbone.layers.stacked.attention.output.bias backbone.layers.stacked.attention.output.kernel
backbone.layers.stacked.attention.query.bias backbone.layers.stacked.attention.query.kernel
backbone.layers.stacked.attention.value.bias backbone.layers.stacked.attention.value.kernel
backbone.layers.stacked.attention_norm.bias backbone.layers.stacked.attention_norm.weight
backbone.layers.stacked.feed_forward.down.bias backbone.layers.stacked.feed_forward.down.kernel
backbone.layers.stacked.feed_forward.up.bias backbone.layers.stacked.feed_forward.up.kernel
backbone.layers.stacked.feed_forward_norm.bias backbone.layers.stacked.feed_forward_norm.weight
head.dense.bias head.dense.kernel head.score.bias head.score.kernel
"""
MAMBA_PATHS = """
backbone.embedding.embedding backbone.final_norm.weight
backbone.layers.stacked.mixer.A_log backbone.layers.stacked.mixer.D
backbone.layers.stacked.mixer.conv_bias backbone.layers.stacked.mixer.conv_weight
backbone.layers.stacked.mixer.dt_proj.bias backbone.layers.stacked.mixer.dt_proj.kernel
backbone.layers.stacked.mixer.in_proj.kernel backbone.layers.stacked.mixer.out_proj.kernel
backbone.layers.stacked.mixer.x_proj.kernel backbone.layers.stacked.norm.weight
head.score.bias head.score.kernel
"""


@pytest.mark.parametrize(("config", "paths"), [(BERT, BERT_PATHS), (MAMBA, MAMBA_PATHS)])
def test_parameter_paths_are_the_ones_that_weights_on_disk_are_mapped_to(config, paths, start):
    shapes = parameter_shapes(config)
    assert sorted(shapes) == sorted(paths.split())
    actual = parameters(start(config))
    assert {path: (a.shape, a.dtype) for path, a in actual.items()} == {
        path: (s.shape, s.dtype) for path, s in shapes.items()
    }
    assert all(array.dtype == jnp.float32 for array in actual.values())


@pytest.mark.parametrize("config", [BERT, MAMBA])
def test_build_module_gives_back_the_module_that_the_parameters_came_from(config, start):
    arrays = {path: np.asarray(array) for path, array in parameters(start(config)).items()}
    rebuilt = build_module(config, arrays)
    assert nnx.graphdef(rebuilt) == nnx.graphdef(start(config))
    for path, array in parameters(rebuilt).items():
        np.testing.assert_array_equal(array, arrays[path])


def test_build_module_empties_what_it_may_release(start):
    arrays = {path: np.asarray(value) for path, value in parameters(start(BERT)).items()}
    kept = dict(arrays)
    module = build_module(BERT, arrays, release=True)
    assert not arrays
    for path, value in parameters(module).items():
        np.testing.assert_array_equal(value, kept[path])


def test_build_module_names_every_fault_in_one_error(start):
    arrays = dict(parameters(start(MAMBA)))
    del arrays["head.score.bias"]
    arrays["head.dense.bias"] = jnp.zeros(8)
    arrays["backbone.embedding.embedding"] = jnp.zeros((29, 8))
    with pytest.raises(InputError) as caught:
        build_module(MAMBA, arrays)
    message = str(caught.value)
    assert "head.score.bias missing" in message
    assert "head.dense.bias unused" in message
    assert "backbone.embedding.embedding has shape (29, 8), needs (30, 8)" in message
    assert "\n" not in message


def test_a_seed_gives_one_start(start):
    first, again = parameters(start(MAMBA)), parameters(init_module(MAMBA, seed=0))
    for path, array in first.items():
        np.testing.assert_array_equal(array, again[path])
    other = parameters(init_module(MAMBA, seed=1))
    assert np.any(first["head.score.kernel"] != other["head.score.kernel"])


@pytest.mark.parametrize("config", [BERT, MAMBA])
def test_module_runs_under_jit_over_pure_state(config, start):
    module = start(config)
    graphdef, state = nnx.split(module)
    score = jax.jit(lambda state, key: nnx.merge(graphdef, state)(IDS, mask=MASK, key=key))
    key = jax.random.key(0)
    np.testing.assert_allclose(score(state, key), module(IDS, mask=MASK, key=key), atol=1e-6)


def test_bert_scores_the_first_token_and_mamba_the_last_real_one(start):
    for config, positions in [(BERT, [0, 0]), (MAMBA, [5, 3])]:
        module = start(config)
        hidden = module.backbone.encode(IDS, mask=MASK)
        chosen = hidden[jnp.arange(2), jnp.array(positions)][:, None, :]
        expected = module.head(chosen, mask=jnp.ones((2, 1), bool))
        np.testing.assert_allclose(module(IDS, mask=MASK), expected, atol=1e-7)


def test_mamba_starts_as_the_official_package_starts_it(start):
    wide = replace(MAMBA, backbone=replace(MAMBA.backbone, hidden_size=64, num_layers=4))
    arrays = parameters(start(wide))
    mixer = {
        path.rpartition("mixer.")[2]: np.asarray(array)
        for path, array in arrays.items()
        if "mixer" in path
    }
    np.testing.assert_allclose(np.exp(mixer["A_log"][1, 5]), [1, 2, 3, 4], rtol=1e-6)
    steps = np.log1p(np.exp(mixer["dt_proj.bias"].astype(np.float64)))
    assert 0.001 <= steps.min() < 0.002
    assert 0.05 < steps.max() <= 0.1001
    assert np.abs(mixer["conv_weight"]).max() == pytest.approx(0.5, rel=0.02)
    assert np.abs(mixer["in_proj.kernel"]).max() == pytest.approx(64**-0.5, rel=0.02)
    assert np.abs(mixer["out_proj.kernel"]).max() == pytest.approx((128 * 4) ** -0.5, rel=0.02)
    assert np.std(arrays["backbone.embedding.embedding"]) == pytest.approx(0.02, rel=0.1)


def test_an_id_outside_the_table_is_not_taken_for_another_token(start):
    module = start(MAMBA)
    assert np.all(np.isnan(module(IDS + 30, mask=MASK)))


def test_bert_refuses_more_tokens_than_it_has_positions(start):
    long = jnp.zeros((1, 513), jnp.int32)
    with pytest.raises(ValueError, match="513 long; this model has 512 positions"):
        start(BERT)(long, mask=long == 0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BertConfig(hidden_size=10, num_heads=3), "hidden_size is 10"),
        (lambda: BertConfig(num_layers=0), "num_layers is 0; it must be at least 1"),
        (lambda: BertConfig(hidden_dropout=1.0), "hidden_dropout is 1.0"),
        (lambda: MambaConfig(norm_epsilon=float("nan")), "norm_epsilon is nan"),
        (lambda: MambaConfig(time_step_rank=0), "time_step_rank is 0"),
        (lambda: MambaConfig(time_step_min=0.2), "time_step_min is 0.2"),
        (lambda: GptNeoXConfig(rotary_base=0.0), "rotary_base is 0.0; it must be above 0"),
        (lambda: LlamaConfig(rotary_base=0.0), "rotary_base is 0.0; it must be above 0"),
        (lambda: LlamaConfig(rotary_factor=0.0), "rotary_factor is 0.0; it must be above 0"),
        (lambda: LlamaConfig(rotary_original_length=0), "rotary_original_length is 0"),
        (
            lambda: LlamaConfig(rotary_low_frequency_factor=4.0, rotary_high_frequency_factor=4.0),
            "rotary_low_frequency_factor is 4.0; it must be below rotary_high_frequency_factor",
        ),
        (lambda: ModernBertConfig(global_rotary_base=0.0), "global_rotary_base is 0.0"),
        (lambda: ModernBertConfig(local_rotary_base=0.0), "local_rotary_base is 0.0"),
        (lambda: replace(MAMBA, head="classification"), "family 'mamba' does not have"),
        (lambda: replace(MAMBA, backbone=BERT.backbone), "needs a MambaConfig"),
        (lambda: replace(MAMBA, head_dropout=1.0), "head_dropout is 1.0"),
        (lambda: get_family("mmaba"), "did you mean 'mamba'"),
        (lambda: get_family("zzz"), f"known are {', '.join(FAMILIES)}"),
    ],
)
def test_a_config_that_cannot_work_is_refused_by_name(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize(
    ("config", "field", "message"),
    [
        (T5Config(), "feed_forward", "feed_forward is 'other'; known are 'relu', 'gated-gelu'"),
        (LlamaConfig(), "rotary_scaling", "rotary_scaling is 'other'; known are 'default'"),
        (ModernBertConfig(), "classifier_pooling", "classifier_pooling is 'other'; known are"),
    ],
)
def test_a_word_that_a_field_does_not_know_is_refused(config, field, message):
    # In place: the annotation checker that tests switch on would speak before the constructor.
    object.__setattr__(config, field, "other")
    with pytest.raises(InputError, match=message):
        config.__post_init__()


def test_mambas_residual_stream_stays_float32_under_bfloat16(start):
    for config, expected in [(BERT, jnp.bfloat16), (MAMBA, jnp.float32)]:
        module = build_module(config, parameters(start(config)), dtype=jnp.bfloat16)
        encode = functools.partial(module.encode, IDS, mask=MASK, return_hidden_states=True)
        hidden, states = jax.eval_shape(encode)
        assert hidden.dtype == jnp.bfloat16
        assert states[0].dtype == expected
