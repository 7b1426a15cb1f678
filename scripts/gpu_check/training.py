"""Checks of training: real steps, with a finite and falling loss; speed and memory.

The batches are made of a few fixed groups of random tokens, so the loss must fall: the model learns
them by heart. Speed here is by the way; the benchmarks measure it.
"""

import time
from collections.abc import Iterator
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from jaxrank.models.families import get_family
from jaxrank.models.implementations import Implementations
from jaxrank.models.module import RerankerConfig, init_module
from jaxrank.training.optimizer import OptimizerConfig, make_optimizer
from jaxrank.training.step import TrainState, TrainStep, init_state, make_train_step
from scripts.gpu_check.rows import Row, Sizes, go_on

STEPS = 60
GROUPS, CANDIDATES = 4, 8
PRESETS = {
    "bert": ("minilm-l6",),
    "gpt_neox": ("pythia-160m",),
    "t5": ("t5-base",),
    "mamba2": ("mamba2-130m",),
    "mamba": ("mamba-130m",),
}
TOYS = {"bert": ("bert-tiny",), "mamba": ("mamba-tiny",)}


def check_training(sizes: Sizes) -> Iterator[Row]:
    """Train presets on two fixed batches, in the precision of the device."""
    length = min(sizes.length, 256)
    for family, presets in (TOYS if sizes.is_toy else PRESETS).items():
        for preset in presets:
            rows = _train(family, preset, length=length, sizes=sizes)
            yield from go_on("training", preset, rows)


def _train(family: str, preset: str, *, length: int, sizes: Sizes) -> Iterator[Row]:
    """Loss before and after STEPS steps, pairs a second, compile time and peak memory."""
    choice = Implementations()
    if family == "mamba" and not sizes.has_mosaic:
        choice = Implementations(selective_scan="associative")
    state, step, vocab_size = make_training(
        family, preset, total_steps=STEPS, is_toy=sizes.is_toy, implementations=choice
    )
    batches = [make_batch(vocab_size, length, seed) for seed in range(2)]

    start = time.perf_counter()
    compiled = step.lower(state, batches[0]).compile()
    compile_s = time.perf_counter() - start
    losses, times = [], []
    for index in range(STEPS):
        start = time.perf_counter()
        state, metrics = compiled(state, batches[index % 2])
        losses.append(float(metrics["loss"]))
        times.append(time.perf_counter() - start)
    before, after = np.mean(losses[:10]), np.mean(losses[-10:])
    memory = compiled.memory_analysis()
    held = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    yield Row(
        "training",
        f"{preset}{' (toy)' if sizes.is_toy else ''}, {GROUPS} x {CANDIDATES} x {length}",
        ok=bool(np.all(np.isfinite(losses)) and after < before),
        measured={
            "loss_before": float(before),
            "loss_after": float(after),
            "pairs_per_s": GROUPS * CANDIDATES / float(np.median(times)),
            "ms": 1e3 * float(np.median(times)),
            "compile_s": compile_s,
            "memory_mib": held / 2**20,
        },
        note="the loss must be finite and fall",
    )


def make_training(
    family: str,
    preset: str,
    *,
    total_steps: int,
    is_toy: bool,
    implementations: Implementations | None = None,
) -> tuple[TrainState, TrainStep, int]:
    """A state, its step in the precision of the device, and the size of the vocabulary."""
    backbone = get_family(family).presets[preset]
    if is_toy:
        backbone = replace(backbone, vocab_size=1000)
    on_gpu = jax.default_backend() == "gpu"
    config = RerankerConfig(family, backbone)
    dtype = jnp.bfloat16 if on_gpu else jnp.float32
    choice = implementations or Implementations()
    module = init_module(config, seed=0, dtype=dtype, implementations=choice)
    recipe = OptimizerConfig(learning_rate=1e-3 if is_toy else 5e-5, warmup_fraction=0.1)
    optimizer, schedule = make_optimizer(recipe, total_steps)
    graph, state = init_state(module, optimizer, key=jax.random.key(0))
    return state, make_train_step(graph, optimizer, schedule), backbone.vocab_size


def make_batch(vocab_size: int, length: int, seed: int) -> dict[str, jax.Array]:
    """Groups of random tokens, of different lengths."""
    random = np.random.default_rng(seed)
    shape = (GROUPS, CANDIDATES, length)
    lengths = random.integers(length // 2, length + 1, shape[:2])
    return {
        "input_ids": jnp.asarray(random.integers(1, vocab_size, shape), jnp.int32),
        "mask": jnp.asarray(np.arange(length)[None, None, :] < lengths[:, :, None]),
        "token_type_ids": jnp.zeros(shape, jnp.int32),
        "candidate_mask": jnp.ones(shape[:2], bool),
    }
