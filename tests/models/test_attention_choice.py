"""What carries each family's attention on a Hopper GPU, where "auto" decides; no GPU is needed.

Forward and backward pass are traced in bfloat16, so jax's own checks see every call of cuDNN's.
"""

from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from jaxrank.models.families import FAMILIES
from jaxrank.models.module import RerankerConfig, init_module
from jaxrank.models.packing import Packing
from jaxrank.ops.attention import api
from tests.ops.hopper import pretend_hopper

LENGTH = 16
DECODING = ("bart", "t5")
TRANSFORMERS = sorted(FAMILIES.keys() - {"mamba", "mamba2"})


@pytest.fixture
def carried(monkeypatch: pytest.MonkeyPatch) -> set[tuple[int, int, str]]:
    """(queries, keys, implementation) of every call from now on, on a Hopper GPU."""
    pretend_hopper(monkeypatch)
    calls: set[tuple[int, int, str]] = set()
    for name in ("xla", "blocks", "cudnn"):
        original = getattr(api, f"attention_{name}")

        def record(query, key, *arguments, original=original, name=name, **options):
            calls.add((query.shape[1], key.shape[1], name))
            return original(query, key, *arguments, **options)

        monkeypatch.setattr(api, f"attention_{name}", record)
    return calls


def tiny(family: str) -> Any:
    (preset,) = (p for name, p in FAMILIES[family].presets.items() if name.endswith("-tiny"))
    return preset


def trace(family: str, *, head: str = "linear", **options) -> None:
    """Trace scores and gradients of two texts, or as many a row as the packing says."""
    preset = tiny(family)
    ids = jnp.ones((2, LENGTH), jnp.int32)

    def gradients() -> nnx.State:
        config = RerankerConfig(family, preset, head=head)
        graphdef, state = nnx.split(init_module(config, seed=0, dtype=jnp.bfloat16))

        def total(state: nnx.State) -> jax.Array:
            module = nnx.merge(graphdef, state)
            if "packing" in options:
                return module.score_packed(ids, **options).sum()
            mask = jnp.arange(LENGTH)[None] < jnp.array([[16], [9]])
            return module(ids, mask=mask, **options).sum()

        return jax.grad(total)(state)

    jax.eval_shape(gradients)


def expected(family: str, name: str, *, decoded: int = LENGTH) -> set[tuple[int, int, str]]:
    """The calls where all but those with a single query are `name`'s."""
    calls = {(LENGTH, LENGTH, name)}
    if family in DECODING:
        decoder = name if decoded > 1 else "xla"
        calls |= {(decoded, decoded, decoder), (decoded, LENGTH, decoder)}
    return calls


@pytest.mark.parametrize("family", TRANSFORMERS)
def test_padded_texts_are_cudnn_s_but_for_a_decoder_s_one_step(family, carried):
    trace(family)
    assert carried == expected(family, "cudnn", decoded=1)


@pytest.mark.parametrize("family", DECODING)
def test_a_decoder_that_reads_the_text_is_cudnn_s_too(family, carried):
    trace(family, head="classification")
    assert carried == expected(family, "cudnn")


@pytest.mark.parametrize("family", TRANSFORMERS)
def test_packed_texts_are_cudnn_s(family, carried):
    texts = jnp.zeros((2, 4), jnp.int32)
    places = jnp.broadcast_to(jnp.arange(LENGTH)[None], (2, LENGTH))
    trace(family, packing=Packing(1 + places // 5, places % 5, texts, texts))
    assert carried == expected(family, "cudnn", decoded=4)


@pytest.mark.parametrize("family", ["gpt_neox", "llama", "opt"])
def test_texts_that_go_on_from_a_state_are_cudnn_s_too(family, carried):
    ids = jnp.ones((2, LENGTH), jnp.int32)

    def go_on() -> jax.Array:
        config = RerankerConfig(family, tiny(family))
        backbone = init_module(config, seed=0, dtype=jnp.bfloat16).backbone
        _, state = backbone.encode(ids, mask=ids > 0, return_final_state=True)
        return backbone.encode(ids[:, :6], mask=ids[:, :6] > 0, initial_state=state)

    jax.eval_shape(go_on)
    assert carried == {(LENGTH, LENGTH, "cudnn"), (6, LENGTH + 6, "cudnn")}


@pytest.mark.parametrize("family", TRANSFORMERS)
def test_dropout_of_probabilities_is_plain_attention_s(family, carried):
    trace(family, key=jax.random.key(0))
    preset = tiny(family)
    rate = preset.dropout if family == "t5" else preset.attention_dropout
    name = "xla" if rate > 0 else "cudnn"
    assert carried == expected(family, name, decoded=1)
