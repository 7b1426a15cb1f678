"""Both families against transformers: hidden states, scores, and every gradient."""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from torch import nn
from transformers import BertConfig as TorchBertConfig
from transformers import BertForSequenceClassification, MambaModel
from transformers import MambaConfig as TorchMambaConfig

from jaxrank.models.bert import BertConfig
from jaxrank.models.mamba import MambaConfig
from jaxrank.models.module import (
    RerankerConfig,
    RerankerModule,
    build_module,
    parameter_shapes,
    parameters,
)

LENGTHS = np.array([11, 7, 3, 1])
# Key biases shift all logits of a query alike: their gradient is zero but for rounding.
NO_GRADIENT = "attention.key.bias"
QUICK_COMPILATION = {"xla_backend_optimization_level": 0}  # Small arrays run once or twice.


@dataclass
class Case:
    """One reranker in both frameworks, and what PyTorch makes of one batch."""

    config: RerankerConfig
    weights: dict[str, np.ndarray]
    module: RerankerModule
    batch: dict[str, jax.Array]
    hidden_states: list[np.ndarray]
    scores: np.ndarray
    gradients: dict[str, np.ndarray]


class TorchMambaReranker(nn.Module):
    """MambaModel scored at the last real token by one linear layer."""

    def __init__(self, config: TorchMambaConfig) -> None:
        super().__init__()
        self.backbone = MambaModel(config)
        self.score = nn.Linear(config.hidden_size, 1)

    def forward(self, *, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
        out = self.backbone(
            input_ids, attention_mask=attention_mask, output_hidden_states=True, use_cache=False
        )
        last = attention_mask.sum(1) - 1
        out.logits = self.score(out.last_hidden_state[torch.arange(len(last)), last])
        return out


def torch_bert(config: BertConfig) -> nn.Module:
    return BertForSequenceClassification(
        TorchBertConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            intermediate_size=config.intermediate_size,
            max_position_embeddings=config.max_position_embeddings,
            num_labels=1,
            attn_implementation="eager",
        )
    )


def torch_mamba(config: MambaConfig) -> nn.Module:
    return TorchMambaReranker(
        TorchMambaConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            num_hidden_layers=config.num_layers,
            state_size=config.state_size,
        )
    )


SMALL = {
    "bert": (
        RerankerConfig(
            family="bert",
            backbone=BertConfig(
                vocab_size=50,
                hidden_size=24,
                num_layers=3,
                num_heads=3,
                intermediate_size=40,
                max_position_embeddings=16,
            ),
            head="classification",
        ),
        torch_bert,
    ),
    "mamba": (
        RerankerConfig(
            family="mamba",
            backbone=MambaConfig(vocab_size=50, hidden_size=20, num_layers=3, state_size=4),
        ),
        torch_mamba,
    ),
}


@pytest.fixture(scope="module", params=SMALL)
def case(request, torch_parameters) -> Case:
    config, make = SMALL[request.param]
    torch.manual_seed(0)
    model = make(config.backbone).eval()
    with torch.no_grad():
        for tensor in model.parameters():  # Ones and zeros would hide a swapped weight.
            tensor.add_(0.1 * torch.randn_like(tensor))
    rng = np.random.default_rng(0)
    batch = {
        "input_ids": rng.integers(1, 50, (4, 11)),
        "token_type_ids": rng.integers(0, 2, (4, 11)),
        "attention_mask": np.arange(11) < LENGTHS[:, None],
    }
    out = model(
        **{name: torch.tensor(value.astype(np.int64)) for name, value in batch.items()},
        **({"output_hidden_states": True} if request.param == "bert" else {}),
    )
    out.logits.sum().backward()
    paths = list(parameter_shapes(config))
    named = dict(model.named_parameters())
    num_layers = config.backbone.num_layers
    weights = torch_parameters(request.param, paths, named, num_layers)
    grads = {name: tensor.grad for name, tensor in named.items()}
    batch["mask"] = batch.pop("attention_mask")
    return Case(
        config=config,
        weights=weights,
        module=build_module(config, weights),
        batch={name: jnp.asarray(value) for name, value in batch.items()},
        hidden_states=[state.detach().numpy() for state in out.hidden_states],
        scores=out.logits[:, 0].detach().numpy(),
        gradients=torch_parameters(request.param, paths, grads, num_layers),
    )


@pytest.fixture(scope="module")
def score(case):
    """The module as one compiled function of a batch and a key."""
    graphdef, state = nnx.split(case.module)
    compiled = jax.jit(
        lambda batch, key: nnx.merge(graphdef, state)(**batch, key=key),
        compiler_options=QUICK_COMPILATION,
    )
    return lambda batch, key=None: np.asarray(compiled(batch, key))


def test_every_hidden_state_matches(case):
    def encode(batch):
        return case.module.backbone.encode(**batch, return_hidden_states=True)

    final, states = jax.jit(encode, compiler_options=QUICK_COMPILATION)(case.batch)
    assert len(states) == len(case.hidden_states) == case.config.backbone.num_layers + 1
    real = np.asarray(case.batch["mask"])
    for ours, theirs in zip(states, case.hidden_states, strict=True):
        np.testing.assert_allclose(ours[real], theirs[real], atol=2e-5, rtol=1e-4)
    np.testing.assert_array_equal(final, states[-1])


def test_scores_match(case, score):
    scores = score(case.batch)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, case.scores, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"remat": True}])
def test_gradients_of_every_parameter_match(case, options, gradient_error):
    graphdef, state = nnx.split(build_module(case.config, case.weights, **options))
    gradients = jax.jit(
        jax.grad(lambda state: nnx.merge(graphdef, state)(**case.batch).sum()),
        compiler_options=QUICK_COMPILATION,
    )
    ours = parameters(nnx.merge(graphdef, gradients(state)))
    assert ours.keys() == case.gradients.keys()
    norm = np.sqrt(sum(np.sum(np.square(g)) for g in case.gradients.values()))
    errors = {path: gradient_error(ours[path], case.gradients[path], norm) for path in ours}
    assert {path: e for path, e in errors.items() if e > 1e-3 and NO_GRADIENT not in path} == {}
    assert [path for path in ours if not np.any(ours[path])] == []


def test_a_score_does_not_depend_on_padding_or_the_batch(case, score):
    together = score(case.batch)
    for row in (1, 3):
        alone = {name: array[row : row + 1, : LENGTHS[row]] for name, array in case.batch.items()}
        np.testing.assert_allclose(score(alone)[0], together[row], atol=1e-5)
    padding = ~case.batch["mask"]
    other = dict(case.batch, input_ids=jnp.where(padding, 49, case.batch["input_ids"]))
    np.testing.assert_allclose(score(other), together, atol=1e-6)


def test_bfloat16_compute_is_finite_and_near(case):
    module = build_module(case.config, case.weights, dtype=jnp.bfloat16)
    scores = jax.jit(lambda batch: module(**batch))(case.batch)
    assert scores.dtype == jnp.float32
    np.testing.assert_allclose(scores, case.scores, atol=0.1)
    hidden, states = jax.eval_shape(
        lambda: module.backbone.encode(**case.batch, return_hidden_states=True)
    )
    assert hidden.dtype == jnp.bfloat16
    # The stream itself is float32 in Mamba, as in transformers; in BERT it is what it computes in.
    assert states.dtype == (jnp.float32 if case.config.family == "mamba" else jnp.bfloat16)


def test_dropout_needs_a_key_and_follows_it(case, score):
    one, two = jax.random.key(1), jax.random.key(2)
    np.testing.assert_array_equal(score(case.batch), score(case.batch))
    np.testing.assert_array_equal(score(case.batch, one), score(case.batch, one))
    assert np.any(score(case.batch, one) != score(case.batch, two))
    assert np.any(score(case.batch, one) != score(case.batch))


def test_dropout_of_rate_zero_changes_nothing(case, score):
    backbone = case.config.backbone
    if case.config.family == "bert":
        backbone = replace(backbone, hidden_dropout=0.0, attention_dropout=0.0)
    config = replace(case.config, backbone=backbone, head_dropout=0.0)
    module = build_module(config, case.weights)
    keyed = jax.jit(lambda batch, key: module(**batch, key=key))(case.batch, jax.random.key(0))
    np.testing.assert_allclose(keyed, score(case.batch), atol=1e-6)


def test_a_text_without_any_token_has_a_finite_score(case, score):
    empty = dict(case.batch, mask=jnp.zeros_like(case.batch["mask"]))
    assert np.all(np.isfinite(score(empty)))
