"""What a checkpoint lacks and a seed draws: a score head, and rows for tokens that a template adds.

P1's code adds the markers [query] and [passage] to the vocabulary of encoders and of T5. Their rows
of the embedding are drawn as the family draws its embedding, from a normal distribution.
"""

import dataclasses
from collections.abc import Iterable, Mapping

import jax
import numpy as np
from transformers import PreTrainedTokenizerFast

from jaxrank.models.module import RerankerConfig, init_module, parameter_shapes, parameters
from jaxrank.text.added_tokens import add_tokens, missing_tokens, vocabulary_size
from jaxrank.text.templates import TextConfig


def draw_parameters(
    config: RerankerConfig, paths: Iterable[str], seed: int
) -> dict[str, np.ndarray]:
    """Those parameters of the random start of `seed`; the rest of it is never computed."""
    paths = tuple(paths)
    if not paths:
        return {}

    def draw() -> dict[str, jax.Array]:
        drawn = parameters(init_module(config, seed=seed))
        return {path: drawn[path] for path in paths}

    return {path: np.array(value) for path, value in jax.jit(draw)().items()}


def add_template_tokens(
    config: RerankerConfig, tokenizer: PreTrainedTokenizerFast, text: TextConfig
) -> tuple[RerankerConfig, PreTrainedTokenizerFast, tuple[str, ...]]:
    """Architecture and tokenizer with the tokens that the template adds, and which were missing.

    The vocabulary of the architecture grows only where the embedding has no spare rows for them. A
    tokenizer that is too large as it is stays so, for the caller to refuse.
    """
    added = missing_tokens(tokenizer, text)
    if not added:
        return config, tokenizer, ()
    rows = config.backbone.vocab_size
    fits = vocabulary_size(tokenizer) <= rows
    tokenizer = add_tokens(tokenizer, added)
    if fits and (needed := vocabulary_size(tokenizer)) > rows:
        backbone = dataclasses.replace(config.backbone, vocab_size=needed)
        config = dataclasses.replace(config, backbone=backbone)
    return config, tokenizer, added


def grow_embedding(
    values: Mapping[str, np.ndarray], *, old: RerankerConfig, new: RerankerConfig, seed: int
) -> dict[str, np.ndarray]:
    """Parameters of `old` as those of `new`, which differs by a larger vocabulary.

    The rows that are new are those of the random start of `seed`.
    """
    before, after = parameter_shapes(old), parameter_shapes(new)
    grown = [path for path in after if after[path].shape != before[path].shape]
    drawn = draw_parameters(new, grown, seed)
    return {
        path: np.concatenate([value, drawn[path][len(value) :]]) if path in drawn else value
        for path, value in values.items()
    }
