"""AdamW with linear warm-up and linear decay to zero, as both papers train."""

from dataclasses import dataclass

import optax

from jaxrank.errors import InputError

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


def make_optimizer(
    config: OptimizerConfig, total_steps: int
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """The optimizer, and the learning rate as a function of the step (counted from 0).

    Raises:
        InputError: values out of range, two kinds of warm-up, or one as long as the run.
    """
    check_optimizer(config)
    schedule = make_schedule(config, total_steps)
    optimizer = optax.adamw(
        schedule,
        b1=config.betas[0],
        b2=config.betas[1],
        eps=config.epsilon,
        weight_decay=config.weight_decay,
    )
    if config.max_grad_norm is not None:
        optimizer = optax.chain(optax.clip_by_global_norm(config.max_grad_norm), optimizer)
    return optimizer, schedule


def make_schedule(config: OptimizerConfig, total_steps: int) -> optax.Schedule:
    """0 at step 0, the peak at the end of the warm-up, 0 again at `total_steps`.

    The same values as transformers' `get_linear_schedule_with_warmup`: the first of `total_steps`
    steps has learning rate 0 and the last one not quite.
    """
    warmup_steps = count_warmup_steps(config, total_steps)
    if warmup_steps >= total_steps:
        raise InputError(
            f"optimizer.warmup_steps: {warmup_steps} in a run of {total_steps} steps; "
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
