"""AdamW with linear warm-up and linear decay to zero, as both papers train."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike

from jaxrank.errors import InputError
from jaxrank.shapes import PyTree
from jaxrank.training.loss_scale import FIRST_SCALE

PAPERS_WARMUP_STEPS = 1000


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW and its learning rate over time."""

    learning_rate: float = 2e-5
    """Peak learning rate. RankMamba: 2e-5 for models of about 130M parameters, 1e-5 for about
    330M, 1e-4 with LoRA."""

    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of Adam's averages of gradients and of squared gradients."""

    epsilon: float = 1e-8
    """Added to the root of the second average, outside the root."""

    weight_decay: float = 0.01
    """Decoupled decay, times the learning rate, of EVERY parameter: biases, norms and embeddings
    too, since that is what the papers' code does."""

    max_grad_norm: float | None = None
    """Gradients with a larger global norm are scaled down to it. Null, as in the papers: none."""

    warmup_steps: int | None = None
    """Steps from a learning rate of 0 to its peak. Null: 1,000, as in the papers, unless
    `warmup_fraction` is given."""

    warmup_fraction: float | None = None
    """Warm-up as a part of all steps, for short runs; instead of `warmup_steps`."""

    loss_scale: float | None = None
    """What the loss is multiplied by, and gradients divided by again, so that small ones are not
    lost in float16; halved at an overflow and doubled after 2,000 steps without one. Null: 65,536
    under model.dtype float16, as PyTorch starts, and none under others."""


def make_optimizer(
    config: OptimizerConfig, total_steps: int
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """AdamW without its learning rate, and the learning rate by the step (counted from 0).

    A step subtracts the learning rate times what the optimizer yields. The rate is not the
    optimizer's own business because a step that is skipped makes no update, but is a step.

    Raises:
        InputError: values out of range, two kinds of warm-up, or one as long as the run.
    """
    check_optimizer(config)
    schedule = make_schedule(config, total_steps)
    parts = [
        optax.scale_by_adam(b1=config.betas[0], b2=config.betas[1], eps=config.epsilon),
        optax.add_decayed_weights(config.weight_decay),
    ]
    if config.max_grad_norm is not None:
        parts = [_clip(config.max_grad_norm), *parts]
    return _in_float32(optax.chain(*parts)), schedule


def _clip(max_norm: float) -> optax.GradientTransformation:
    """Scale gradients down to a global norm, as optax.clip_by_global_norm does.

    By one factor, which XLA multiplies in where it is needed; optax's quotients take one more copy
    of all gradients.
    """

    def update(gradients: optax.Updates, parameters: optax.Params | None) -> optax.Updates:
        del parameters
        factor = jnp.minimum(1, max_norm / optax.tree.norm(gradients))
        return jax.tree.map(lambda gradient: gradient * factor, gradients)

    return optax.stateless(update)


def _in_float32(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """The optimizer, computing in float32 whatever dtype parameters and averages are kept in."""

    def widen(tree: PyTree) -> PyTree:
        return jax.tree.map(
            lambda x: x.astype(jnp.float32) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree
        )

    def update(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        updates, new = optimizer.update(widen(updates), widen(state), widen(params))
        return updates, jax.tree.map(lambda x, kept: x.astype(kept.dtype), new, state)

    return optax.GradientTransformation(optimizer.init, update)


def first_loss_scale(config: OptimizerConfig, dtype: DTypeLike) -> float | None:
    """What the loss of a model computing in `dtype` is multiplied by at first; None: nothing."""
    if config.loss_scale is None and jnp.dtype(dtype) == jnp.float16:
        return FIRST_SCALE
    return config.loss_scale


def make_schedule(config: OptimizerConfig, total_steps: int) -> optax.Schedule:
    """0 at step 0, the peak at the end of the warm-up, 0 again at `total_steps`.

    The same values as transformers' `get_linear_schedule_with_warmup`: the first of `total_steps`
    steps has learning rate 0 and the last one not quite.
    """
    warmup_steps = count_warmup_steps(config, total_steps)
    if warmup_steps >= total_steps:
        by_default = "" if config.warmup_steps is not None else " (the default)"
        raise InputError(
            f"optimizer.warmup_steps: {warmup_steps}{by_default} in a run of {total_steps} steps; "
            "fewer are needed, or optimizer.warmup_fraction for a short run"
        )
    return optax.join_schedules(
        [
            optax.linear_schedule(0.0, config.learning_rate, warmup_steps),
            optax.linear_schedule(config.learning_rate, 0.0, total_steps - warmup_steps),
        ],
        boundaries=[warmup_steps],
    )


def count_warmup_steps(config: OptimizerConfig, total_steps: int) -> int:
    """Length of the warm-up in a run of `total_steps`."""
    if config.warmup_fraction is not None:
        return round(config.warmup_fraction * total_steps)
    return PAPERS_WARMUP_STEPS if config.warmup_steps is None else config.warmup_steps


def check_optimizer(config: OptimizerConfig) -> None:
    """Raise InputError for the first value that no run can use."""
    if config.warmup_steps is not None and config.warmup_fraction is not None:
        raise InputError(
            "optimizer.warmup_steps, optimizer.warmup_fraction: both are given; one is needed"
        )
    ranges = {
        "learning_rate": (config.learning_rate > 0, "a positive number"),
        "betas": (all(0 <= beta < 1 for beta in config.betas), "two numbers in [0, 1)"),
        "epsilon": (config.epsilon > 0, "a positive number"),
        "weight_decay": (config.weight_decay >= 0, "a number not below 0"),
        "max_grad_norm": (
            config.max_grad_norm is None or config.max_grad_norm > 0,
            "a positive number or null",
        ),
        "loss_scale": (
            config.loss_scale is None or config.loss_scale >= 1,
            "a number of at least 1 or null",
        ),
        "warmup_steps": (
            config.warmup_steps is None or config.warmup_steps >= 0,
            "a whole number not below 0",
        ),
        "warmup_fraction": (
            config.warmup_fraction is None or 0 <= config.warmup_fraction < 1,
            "a number in [0, 1)",
        ),
    }
    for name, (is_in_range, needed) in ranges.items():
        if not is_in_range:
            raise InputError(f"optimizer.{name}: got {getattr(config, name)}; {needed} is needed")
