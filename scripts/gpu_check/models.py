"""Checks of whole models: scores and gradients with the fused kernels, against plain float32.

The same random weights twice: in float32 with XLA's operations at "highest" precision, and as the
GPU would run them. In float32, which cuDNN does not take, the Mosaic scan must meet the plain one
closely. In bfloat16 two things differ, rounding and kernels, and how much rounding alone does to a
whole model is no matter of the kernels: where it does more than a single operation is allowed, half
as much again as plain bfloat16 does is allowed.
"""

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from jaxrank.models.families import FAMILIES
from jaxrank.models.implementations import Implementations
from jaxrank.models.module import RerankerConfig, build_module, init_module, parameters
from scripts.gpu_check.rows import BFLOAT16, GRADIENTS, Row, Sizes, compared, go_on

PRESETS = (
    "bert-base", "roberta-base", "electra-base", "modernbert-base", "opt-125m", "pythia-160m",
    "t5-base", "bart-base", "llama-3.2-1b", "mamba2-130m", "mamba-130m",
)  # fmt: skip
TOYS = ("bert-tiny", "mamba-tiny")
TEXTS, LAYERS = 8, 4
ATTENTION = ("xla", "cudnn")
CUDNN_CALL = "__cudnn$fmha"
"""What its kernels' names begin with in jax's lowered programs."""
SCAN = ("associative", "mosaic")

Found = dict[str, np.ndarray]


def check_models(sizes: Sizes) -> Iterator[Row]:
    """One size of each family."""
    known = {name: family for family in FAMILIES.values() for name in family.presets}
    for preset in TOYS if sizes.is_toy else PRESETS:
        if preset not in known:
            yield Row("models", preset, ok=None, note="there is no such preset")
            continue
        family = known[preset]
        config = plain_config(family.name, family.presets[preset])
        yield from go_on("models", preset, _compare(preset, config, sizes))


def plain_config(family: str, backbone: Any) -> RerankerConfig:
    """The architecture with a small vocabulary, few layers, and no dropout."""
    rates = {f.name: 0.0 for f in fields(backbone) if f.name.endswith("dropout")}
    depths = {f.name: getattr(backbone, f.name) for f in fields(backbone)}
    names = ("num_layers", "num_decoder_layers")
    layers = {name: min(depths[name], LAYERS) for name in names if depths.get(name) is not None}
    backbone = replace(backbone, vocab_size=1000, **rates, **layers)
    return RerankerConfig(family, backbone, head_dropout=0.0)


def _compare(preset: str, config: RerankerConfig, sizes: Sizes) -> Iterator[Row]:
    is_scan = config.family == "mamba"
    has_attention = config.family not in ("mamba", "mamba2")
    on_gpu = jax.default_backend() == "gpu"
    plain = Implementations(**_choice(has_attention, is_scan, fused=False))
    is_fused = on_gpu and (sizes.has_mosaic or not is_scan)
    choice = _choice(has_attention, is_scan, fused=is_fused)
    # The decoder reads one token, which cuDNN refuses; so "auto" there, and the rest is looked at.
    if has_attention and config.backbone.decoder_layers is not None:
        choice = {"attention": "auto"}
    fused = Implementations(**choice)
    weights = parameters(init_module(config, seed=sizes.seed))
    batch = _batch(config, 16 if sizes.is_toy else 256, sizes.seed)
    with jax.default_matmul_precision("highest"):
        want = _run(config, weights, batch, jnp.float32, plain)
        if is_scan and is_fused:
            got = _run(config, weights, batch, jnp.float32, fused)
            yield compared("models", f"{preset}, float32 fused", _errors(got, want), GRADIENTS)
    if has_attention and on_gpu:
        has_cudnn = CUDNN_CALL in _lowered(config, weights, batch, jnp.bfloat16, fused)
        note = "the compiled gradient calls it" if has_cudnn else "the gradient does not call it"
        yield Row("models", f"{preset}, cuDNN's attention", has_cudnn, note=note)
    errors = _errors(_run(config, weights, batch, jnp.bfloat16, fused), want)
    allowed = BFLOAT16
    measured = {}
    if max(errors.values()) > BFLOAT16:
        rounding = max(_errors(_run(config, weights, batch, jnp.bfloat16, plain), want).values())
        allowed = max(BFLOAT16, 1.5 * rounding)
        measured = {"plain_bf16_error": rounding}
    kind = "fused" if is_fused else "plain"
    row = compared("models", f"{preset}, bf16 {kind}", errors, allowed)
    yield replace(row, measured=measured)


def _choice(has_attention: bool, is_scan: bool, *, fused: bool) -> dict[str, Any]:
    choice: dict[str, Any] = {}
    if has_attention:
        choice["attention"] = ATTENTION[fused]
    if is_scan:
        choice["selective_scan"] = SCAN[fused]
    return choice


def _batch(config: RerankerConfig, length: int, seed: int) -> dict[str, jax.Array]:
    random = np.random.default_rng(seed)
    lengths = random.integers(length // 3, length + 1, TEXTS)
    ids = random.integers(3, config.backbone.vocab_size, (TEXTS, length))
    return {
        "input_ids": jnp.asarray(ids, jnp.int32),
        "mask": jnp.asarray(np.arange(length)[None, :] < lengths[:, None]),
    }


def _gradients(
    config: RerankerConfig,
    weights: dict[str, jax.Array],
    dtype: Any,
    implementations: Implementations,
) -> tuple[Any, Any]:
    """A jitted function to scores and gradients, and the state that it takes before a batch."""
    module = build_module(config, weights, dtype=dtype, implementations=implementations)
    graph, state = nnx.split(module)

    @jax.jit
    def run(state: Any, batch: dict[str, jax.Array]) -> tuple[jax.Array, Any]:
        def loss(state: Any) -> tuple[jax.Array, jax.Array]:
            scores = nnx.merge(graph, state)(**batch)
            return jnp.sum(scores * jnp.linspace(-1.0, 1.0, TEXTS)), scores

        gradients, scores = jax.grad(loss, has_aux=True)(state)
        return scores, gradients

    return run, state


def _lowered(
    config: RerankerConfig,
    weights: dict[str, jax.Array],
    batch: dict[str, jax.Array],
    dtype: Any,
    implementations: Implementations,
) -> str:
    run, state = _gradients(config, weights, dtype, implementations)
    return str(run.lower(state, batch).as_text())


def _run(
    config: RerankerConfig,
    weights: dict[str, jax.Array],
    batch: dict[str, jax.Array],
    dtype: Any,
    implementations: Implementations,
) -> Found:
    """Scores, and the norm-wise parts of the gradient, by name."""
    run, state = _gradients(config, weights, dtype, implementations)
    scores, gradients = run(state, batch)
    flat = nnx.to_flat_state(gradients)
    found = {".".join(map(str, path)): np.asarray(leaf.get_value()) for path, leaf in flat}
    return {"scores": np.asarray(scores), **found}


def _errors(got: Found, want: Found) -> dict[str, float]:
    """Of the scores: the largest, over their size. Of each gradient: norms over norms.

    A gradient that is mathematically zero, as of key biases, is measured against a thousandth of
    the whole gradient's norm.
    """
    names = [name for name in want if name != "scores"]
    whole = float(optax.tree.norm([want[name] for name in names]))
    errors = {
        name: float(
            np.linalg.norm(got[name] - want[name]) / max(np.linalg.norm(want[name]), 1e-3 * whole)
        )
        for name in names
    }
    gap = np.max(np.abs(got["scores"] - want["scores"]))
    errors["scores"] = float(gap / np.max(np.abs(want["scores"])))
    return {name: error if np.isfinite(error) else float("inf") for name, error in errors.items()}
