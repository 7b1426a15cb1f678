"""One checkpoint in PyTorch and here: made, run on one batch, and compared number by number."""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers
from flax import nnx

from ckpt_convert.architectures import ARCHITECTURES
from ckpt_convert.network import load_network
from ckpt_convert.rules import canonical_name, export_weights
from ckpt_convert.torch_oracle import TorchReranker, quiet_transformers
from jaxrank.models.module import (
    RerankerConfig,
    RerankerModule,
    build_module,
    parameters,
)

SMALL_VOCABULARY = 60
LENGTHS = np.array([11, 7, 3, 2])

# float32 rounds at 6e-8; some 10 layers' worth of sums of up to 3,000 terms make 1e-6 of it.
# A wrong term shows as 1e-3 or more.
SMALL_RELATIVE = 2e-5
# Some three times the rounding of a ReLU's input in these stacks.
KINK = 2e-6
# The bounds that are promised for published sizes.
FULL_RELATIVE = 1e-4
GRADIENT = 1e-3
# Our error in bfloat16, as a multiple of PyTorch's own: the promised bound.
BFLOAT16_RATIO = 1.5


@dataclass(frozen=True)
class Checkpoint:
    """A random checkpoint of PyTorch's making, and how it is read.

    Attributes:
        source: transformers' class whose folder is read.
        config: arguments of its configuration.
        head: the head that is asked for.
        no_gradient: patterns of tensors whose gradient is zero but for rounding.
    """

    source: str
    config: dict[str, Any]
    head: str = "linear"
    no_gradient: tuple[str, ...] = ()


@dataclass
class Compared:
    """One checkpoint in both frameworks, and what PyTorch makes of one batch."""

    checkpoint: Checkpoint
    folder: Path
    config: RerankerConfig
    weights: dict[str, np.ndarray]
    module: RerankerModule
    torch_reranker: TorchReranker
    batch: dict[str, np.ndarray]
    states: list[np.ndarray]
    scores: np.ndarray
    gradients: dict[str, np.ndarray] = field(default_factory=dict)


def random_batch(
    vocabulary: int, lengths: np.ndarray, *, types: int = 1, seed: int = 0
) -> dict[str, np.ndarray]:
    """Ids as a tokenizer makes them: no pad (0, 1), no end (2) inside, the end as last token."""
    random = np.random.default_rng(seed)
    shape = (len(lengths), int(lengths.max()))
    mask = np.arange(shape[1]) < lengths[:, None]
    ids = random.integers(3, vocabulary, shape).astype(np.int32)
    ids[np.arange(len(lengths)), lengths - 1] = 2  # T5 and BART pool at their end
    return {
        "input_ids": np.where(mask, ids, 1).astype(np.int32),
        "mask": mask,
        "token_type_ids": np.where(mask, random.integers(0, types, shape), 0).astype(np.int32),
    }


def compare(
    checkpoint: Checkpoint,
    folder: Path,
    lengths: np.ndarray,
    *,
    spread: float,
    has_gradients: bool = True,
) -> Compared:
    """Write the checkpoint, read it, and run PyTorch forward and, for gradients, backward.

    `spread` moves every weight: ones and zeros would hide two that are mixed up.
    """
    model_class = getattr(transformers, checkpoint.source)
    torch.manual_seed(0)
    with quiet_transformers():
        model = model_class(model_class.config_class(**checkpoint.config)).eval()
        with torch.no_grad():
            for tensor in model.parameters():
                tensor.add_(spread * torch.randn_like(tensor))
        model.save_pretrained(folder)
    del model  # of the largest sizes only so many copies fit
    network = load_network(folder, head=checkpoint.head)
    config = network.source.config
    # A head at its start scores near zero; make differences visible.
    if checkpoint.head == "linear":
        network.parameters["head.score.kernel"] *= 10
    reranker = TorchReranker.from_folder(folder, config, network.parameters)
    types = getattr(config.backbone, "type_vocab_size", 1)
    rows = min(config.backbone.vocab_size, 30000)
    batches = (random_batch(rows, lengths, types=types, seed=seed) for seed in range(100))
    batch = next(
        batch for batch in batches if not has_gradients or distance_to_kink(reranker, batch) > KINK
    )
    with torch.set_grad_enabled(has_gradients):
        states, scores = reranker(batch)
    if has_gradients:
        scores.sum().backward()
    named = dict(reranker.model.named_parameters())
    if reranker.score is not None:
        named |= {f"score.{name}": tensor for name, tensor in reranker.score.named_parameters()}
    return Compared(
        checkpoint,
        folder,
        config,
        network.parameters,
        build_module(config, network.parameters),
        reranker,
        batch,
        [state.detach().numpy() for state in states],
        scores.detach().numpy(),
        {name: t.grad.numpy() for name, t in named.items() if t.grad is not None},
    )


def distance_to_kink(reranker: TorchReranker, batch: dict[str, np.ndarray]) -> float:
    """The least |x| that PyTorch gives to a ReLU.

    At zero its slope jumps. Of the 500,000 inputs in t5-base one was -4e-7 in float64; float32
    rounded it to either side, and every gradient before it was off by 1e-3.
    """
    units = [module for module in reranker.model.modules() if isinstance(module, torch.nn.ReLU)]
    least = [float("inf")]
    hooks = [
        unit.register_forward_pre_hook(lambda _, x: least.append(float(x[0].abs().min())))
        for unit in units
    ]
    if units:
        with torch.no_grad():
            reranker(batch)
    for hook in hooks:
        hook.remove()
    return min(least)


def to_jax(batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    return {name: jnp.asarray(array) for name, array in batch.items()}


def relative_difference(ours: Any, theirs: np.ndarray, mask: np.ndarray) -> float:
    """Largest |ours - theirs| over |theirs| of a real token's vector, Euclidean norms."""
    real = mask if theirs.shape[1] == mask.shape[1] else np.ones(theirs.shape[:2], bool)
    ours = np.asarray(ours, np.float32)[real]
    theirs = theirs[real]
    distance = np.linalg.norm(ours - theirs, axis=-1) / np.linalg.norm(theirs, axis=-1)
    return float(distance.max())


def check_forward(compared: Compared, bound: float) -> None:
    """Every hidden state and every score within the bound."""
    graph, state = nnx.split(compared.module)

    @jax.jit
    def run(state: Any, batch: dict[str, jax.Array]) -> Any:
        module = nnx.merge(graph, state)
        return module.encode(**batch, return_hidden_states=True), module(**batch)

    (hidden, states), scores = run(state, to_jax(compared.batch))
    assert len(states) == len(compared.states)
    for index, (ours, theirs) in enumerate(zip(states, compared.states, strict=True)):
        difference = relative_difference(ours, theirs, compared.batch["mask"])
        assert difference < bound, f"hidden state {index} of {len(states)}"
    assert scores.dtype == jnp.float32
    largest = max(1.0, float(np.abs(compared.scores).max()))
    assert np.abs(np.asarray(scores) - compared.scores).max() < bound * largest
    assert np.all(np.isfinite(hidden))


def check_gradients(compared: Compared, **options: Any) -> float:
    """Every gradient of the scores' sum: |difference| / max(|g|, 1e-3 x global norm); the worst."""
    graph, state = nnx.split(build_module(compared.config, compared.weights, **options))

    @jax.jit
    def gradients_of(state: Any, batch: dict[str, jax.Array]) -> Any:
        return jax.grad(lambda state: nnx.merge(graph, state)(**batch).sum())(state)

    module = nnx.merge(graph, gradients_of(state, to_jax(compared.batch)))
    table = ARCHITECTURES[compared.config.family].tables[compared.config.head]
    flat = {path: np.asarray(value) for path, value in parameters(module).items()}
    ours = export_weights(table, flat)
    theirs = {canonical_name(table, name): g for name, g in compared.gradients.items()}
    assert ours.keys() == theirs.keys()
    total = np.sqrt(sum(np.sum(np.square(gradient)) for gradient in theirs.values()))
    worst = 0.0
    for name, gradient in theirs.items():
        if any(re.search(pattern, name) for pattern in compared.checkpoint.no_gradient):
            assert np.abs(ours[name]).max() < GRADIENT * total, name
            continue
        scale = np.maximum(np.abs(gradient), 1e-3 * total)
        error = float(np.max(np.abs(ours[name] - gradient) / scale))
        assert error <= GRADIENT, name
        assert np.any(gradient), f"{name} has no gradient, so nothing is shown"
        worst = max(worst, error)
    return worst


def dropout_rates(config: RerankerConfig) -> list[str]:
    """The fields of the backbone's configuration that are rates of dropout."""
    return [name for name in vars(config.backbone) if name.endswith("dropout")]


def without_dropout(config: RerankerConfig) -> RerankerConfig:
    backbone = replace(config.backbone, **dict.fromkeys(dropout_rates(config), 0.0))
    return replace(config, backbone=backbone, head_dropout=0.0)


def scores_by_key(compared: Compared, config: RerankerConfig) -> tuple[np.ndarray, ...]:
    """Scores under two keys, of the weights in a model of that configuration."""
    module = build_module(config, compared.weights)
    score = jax.jit(module.__call__)
    batch = to_jax(compared.batch)
    return tuple(np.asarray(score(**batch, key=jax.random.key(seed))) for seed in (1, 2))


def relative_error(ours: Any, theirs: np.ndarray, mask: np.ndarray) -> float:
    """|ours - theirs| / |theirs| over all real tokens together."""
    real = mask if theirs.shape[1] == mask.shape[1] else np.ones(theirs.shape[:2], bool)
    ours = np.asarray(ours, np.float32)[real]
    return float(np.linalg.norm(ours - theirs[real]) / np.linalg.norm(theirs[real]))
