"""The models of the study and how each is trained.

MiniLM-L6 is fine-tuned for one epoch. Mamba, Mamba-2 and BERT start at random with about 30M
parameters each; all three read the same texts in one vocabulary (BERT's: in two, equal numbers of
tokens would be different amounts of text) and with the same budgets, in the same order, for the
same number of epochs, under one recipe of ours. A Mamba layer holds about half of what a BERT layer
does, so there are nearly twice as many. The two BERTs have no attention dropout, since the fused
attention has none; their other dropout is the published 0.1.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from jaxrank.models.bert_config import BertConfig
from jaxrank.models.mamba import MambaConfig
from jaxrank.models.mamba2 import Mamba2Config
from jaxrank.models.module import RerankerConfig, parameter_shapes
from jaxrank.training.optimizer import OptimizerConfig

MINILM = "minilm"
FROM_RANDOM = ("mamba", "mamba2", "bert")
WORDINGS = {
    MINILM: "pair",
    "bert": "paper-encoder",
    "mamba": "paper-decoder",
    "mamba2": "paper-decoder",
}
"""Model -> the template of its texts."""

FINE_TUNING = OptimizerConfig(learning_rate=1e-4, warmup_fraction=0.1)
TRAINING = OptimizerConfig(learning_rate=3e-4, warmup_fraction=0.1, max_grad_norm=1.0)


@dataclass(frozen=True)
class StudyModel:
    """A model and its recipe."""

    name: str
    config: RerankerConfig
    wording: str
    recipe: OptimizerConfig
    is_random: bool
    """Whether it starts at random, not from published weights."""


def study_model(name: str, study: Mapping[str, Any], *, is_toy: bool) -> StudyModel:
    """The model of that name.

    Args:
        study: study.json, which knows the vocabulary and MiniLM's architecture.
        is_toy: far smaller ones, to try the commands on a CPU.
    """
    vocabulary = study["vocabulary"]
    if name == MINILM:
        found = study[MINILM]
        backbone = replace(BertConfig(**found["backbone"]), attention_dropout=0.0)
        config = RerankerConfig("bert", backbone, found["head"])
    else:
        config = RerankerConfig(name, _backbone(name, vocabulary, is_toy=is_toy))
    is_random = name != MINILM
    recipe = TRAINING if is_random else FINE_TUNING
    return StudyModel(name, config, WORDINGS[name], recipe, is_random)


def _backbone(
    name: str, vocabulary: int, *, is_toy: bool
) -> BertConfig | MambaConfig | Mamba2Config:
    width = 64 if is_toy else 384
    layers = 1 if is_toy else 18
    if name == "mamba":
        return MambaConfig(vocab_size=vocabulary, hidden_size=width, num_layers=layers)
    if name == "mamba2":
        states = 16 if is_toy else 128
        return Mamba2Config(
            vocab_size=vocabulary, hidden_size=width, num_layers=layers, state_size=states
        )
    return BertConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        num_layers=1 if is_toy else 10,
        num_heads=width // 64,
        intermediate_size=4 * width,
        attention_dropout=0.0,
    )


def count_parameters(config: RerankerConfig) -> tuple[int, int]:
    """All parameters, and those that are not embeddings."""
    sizes = {path: prod(spec.shape) for path, spec in parameter_shapes(config).items()}
    embedded = sum(size for path, size in sizes.items() if "embed" in path)
    return sum(sizes.values()), sum(sizes.values()) - embedded
