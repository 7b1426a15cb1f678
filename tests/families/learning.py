"""A short training without dropout, to see that a model learns at all."""

from pathlib import Path
from typing import Any

import jax
import optax
from flax import nnx

from ckpt_convert.parity import read_pairs
from jaxrank.models.families import get_family
from jaxrank.models.module import RerankerConfig, init_module
from jaxrank.text.templates import TextConfig, resolve_template
from jaxrank.text.tokenize import PairTokenizer, load_tokenizer, pad_pairs
from jaxrank.training.losses import info_nce
from tests.families.comparison import to_jax


def learn_four_groups(
    config: RerankerConfig, tokenizer_folder: Path, collection: Path, *, enough: float
) -> list[float]:
    """Losses of up to 100 steps on the same four groups, until one is below `enough`."""
    template = resolve_template("paper", wording=get_family(config.family).wording)
    tokenizer = PairTokenizer(
        load_tokenizer(tokenizer_folder), TextConfig(template, 64, query_length=24)
    )
    pairs = read_pairs(collection, limit=32)
    groups = [(pairs[8 * (row // 8)][0], document) for row, (_, document) in enumerate(pairs)]
    encoded = tokenizer.encode(groups)
    batch = to_jax(pad_pairs(encoded, length=64, pad_token_id=tokenizer.pad_token_id))
    graph, state = nnx.split(init_module(config, seed=0))
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(2e-3))

    @jax.jit
    def train(state: Any, moments: Any) -> Any:
        def loss(state: Any) -> jax.Array:
            return info_nce(nnx.merge(graph, state)(**batch).reshape(4, 8))

        value, gradients = jax.value_and_grad(loss)(state)
        updates, moments = optimizer.update(gradients, moments, state)
        return optax.apply_updates(state, updates), moments, value

    moments = optimizer.init(state)
    losses: list[float] = []
    while len(losses) < 100 and (not losses or losses[-1] >= enough):
        state, moments, value = train(state, moments)
        losses.append(float(value))
    return losses
