"""Memory of a training step under rematerialisation, accumulation and chunks, as a table.

    python scripts/memory_table.py [--models bert-base ...] [--lengths 128 512]

The figures are the compiler's own (`memory_analysis`), for batches of 8 groups of 8 candidates in
float32: shapes are compiled, nothing is allocated and nothing run, so this needs neither a GPU nor
much memory. With it come the differences of the gradients at a small size, where steps are run.
"""

import argparse
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxrank.models.families import FAMILIES
from jaxrank.models.module import RerankerConfig, RerankerModule
from jaxrank.models.stack import Remat
from jaxrank.training.memory import GIB, StepMemory, measure_step
from jaxrank.training.optimizer import OptimizerConfig, make_optimizer
from jaxrank.training.step import init_state, make_train_step

GROUPS, CANDIDATES = 8, 8
SMALL = {"vocab_size": 100, "hidden_size": 96, "num_layers": 3}


class Variant(NamedTuple):
    """A way to save memory."""

    name: str
    remat: Remat = "none"
    accumulation: int = 1
    chunk: int | None = None


VARIANTS = (
    Variant("remat none"),
    Variant("remat projections", remat="projections"),
    Variant("remat full", remat="full"),
    Variant("accumulation 2", accumulation=2),
    Variant("accumulation 4", accumulation=4),
    Variant("accumulation 8", accumulation=8),
    Variant("chunk 8", chunk=8),
    Variant("remat full, chunk 8", remat="full", chunk=8),
)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["minilm-l6", "bert-base", "mamba-130m"])
    parser.add_argument("--lengths", nargs="+", type=int, default=[128, 512])
    arguments = parser.parse_args()
    print("Temporaries of a step in GiB; beside them the state, which is always there.\n")
    columns = [f"{model}, {length}" for model in arguments.models for length in arguments.lengths]
    print(f"| | {' | '.join(columns)} |\n|---|{'---:|' * len(columns)}", flush=True)
    states = []
    for variant in VARIANTS:
        cells = []
        for model in arguments.models:
            for length in arguments.lengths:
                memory = measure(find_config(model), variant, length)
                cells.append(f"{memory.temporaries / GIB:.2f}")
                states.append(f"{memory.shared / GIB:.2f}")
        print(f"| {variant.name} | {' | '.join(cells)} |", flush=True)
    print(f"| state | {' | '.join(states[: len(columns)])} |\n", flush=True)
    print(
        "Largest difference of a gradient from that of remat none, relative to the largest one:\n"
    )
    print(f"| | {' | '.join(arguments.models)} |\n|---|{'---:|' * len(arguments.models)}")
    for name, differences in compare_gradients(arguments.models):
        print(f"| {name} | {' | '.join(f'{value:.0e}' for value in differences)} |", flush=True)


def find_config(model: str) -> RerankerConfig:
    """The reranker of a published size."""
    for family in FAMILIES.values():
        if model in family.presets:
            return RerankerConfig(family.name, family.presets[model])
    raise SystemExit(f"--models: {model} is unknown")


def measure(config: RerankerConfig, variant: Variant, length: int) -> StepMemory:
    """Memory of the variant's step on shapes alone."""
    step, state = make_step(config, variant, is_abstract=True)
    shapes = jax.eval_shape(lambda: make_batch(variant, length))
    memory = measure_step(step, state, shapes)
    assert memory is not None, "XLA says so on CPUs and GPUs"
    return memory


def compare_gradients(models: list[str]) -> Iterator[tuple[str, list[float]]]:
    """For each variant, how far its gradients are from those of the first one."""
    plain: dict[str, list[np.ndarray]] = {}
    for variant in VARIANTS:
        differences = []
        for model in models:
            config = find_config(model)
            still = {
                name: 0.0 for name in vars(config.backbone) if name.endswith("dropout")
            }  # whose draws differ between parts and between chunks
            backbone = replace(config.backbone, **SMALL, **still)
            config = replace(config, backbone=backbone, head_dropout=0.0)
            step, state = make_step(config, variant, is_abstract=False)
            state, _ = step(state, make_batch(variant, 24))
            # After the first step Adam's first average is a tenth of the gradient.
            gradients = [np.asarray(x) for x in jax.tree.leaves(state.optimizer_state[0].mu)]
            reference = plain.setdefault(model, gradients)
            largest = max(float(np.abs(x).max()) for x in reference)
            differences.append(
                max(
                    float(np.abs(x - y).max()) / largest
                    for x, y in zip(gradients, reference, strict=True)
                )
            )
        yield variant.name, differences


def make_step(config: RerankerConfig, variant: Variant, *, is_abstract: bool) -> tuple[Any, Any]:
    """The step and its state, or the shapes of that."""
    optimizer, schedule = make_optimizer(OptimizerConfig(warmup_steps=0), 10)

    def make() -> Any:
        rngs = nnx.Rngs(params=0)
        module = RerankerModule(config, rngs=rngs, remat=variant.remat)
        return init_state(module, optimizer, key=jax.random.key(0))

    graphdef, state = jax.eval_shape(make) if is_abstract else make()
    step = make_train_step(
        graphdef, optimizer, schedule, accumulation=variant.accumulation, chunk=variant.chunk
    )
    return step, state


def make_batch(variant: Variant, length: int) -> dict[str, jax.Array]:
    """Random tokens; one group has fewer candidates."""
    parts = variant.accumulation
    lead = (parts, GROUPS // parts) if parts > 1 else (GROUPS,)
    key = jax.random.key(1)
    mask = jnp.arange(GROUPS * CANDIDATES) != CANDIDATES + 3
    return {
        "input_ids": jax.random.randint(key, (*lead, CANDIDATES, length), 1, 100),
        "mask": jnp.ones((*lead, CANDIDATES, length), bool),
        "token_type_ids": jnp.zeros((*lead, CANDIDATES, length), jnp.int32),
        "candidate_mask": mask.reshape(*lead, CANDIDATES),
    }


if __name__ == "__main__":
    main()
