"""What low-rank adapters save, and that merging them changes no score.

    .venv/bin/python scripts/lora_table.py [--rank 32] [--groups 1] [--json FILE]

Per model, trained whole and with adapters in the family's own targets: the share of numbers that
are trained, the optimizer's state, and the memory of a training step by the compiled step's own
analysis (8 sequences of 512 tokens a group, float32, the family's default of `remat`). Nothing is
allocated for it: the step is compiled for shapes. Then, on models of the smallest published size
with random weights and random adapters: the largest difference between the scores of the merged and
of the unmerged model.
"""

import argparse
import json
import math
import os
from pathlib import Path
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
from flax import nnx

from jaxrank.files import atomic_open
from jaxrank.models.families import get_family
from jaxrank.models.lora import LoraConfig, add_lora, count_trained, merge_lora, trained
from jaxrank.models.module import RerankerConfig, RerankerModule, init_module
from jaxrank.training.memory import measure_step
from jaxrank.training.optimizer import OptimizerConfig, make_optimizer
from jaxrank.training.step import init_state, make_train_step

MODELS = (("gpt_neox", "pythia-1b"), ("mamba", "mamba-790m"), ("t5", "t5-large"))
COMPARED = (("gpt_neox", "pythia-160m"), ("mamba", "mamba-130m"), ("bert", "bert-base"))
CANDIDATES, LENGTH = 8, 512
MIB = 2**20


def make(family: str, preset: str, rank: int | None) -> RerankerModule:
    """A random start, with adapters or without."""
    module = init_module(RerankerConfig(family, get_family(family).presets[preset]), seed=0)
    if rank is not None:
        add_lora(module, LoraConfig(rank=rank), seed=0)
    return module


def measure(family: str, preset: str, rank: int | None, groups: int) -> dict[str, float]:
    """Numbers trained, bytes of the optimizer's state, bytes of a step."""
    optimizer, schedule = make_optimizer(OptimizerConfig(), 10_000)
    filters = nnx.Param if rank is None else trained
    kept: list[Any] = []

    def start() -> Any:
        module = make(family, preset, rank)
        kept.append(count_trained(module))
        graphdef, state = init_state(module, optimizer, key=jax.random.key(0), trained=filters)
        kept.append(graphdef)
        return state

    state = jax.eval_shape(start)
    (count, whole), graphdef = kept[:2]
    step = make_train_step(graphdef, optimizer, schedule)
    sequence = groups, CANDIDATES, LENGTH
    batch = {
        "candidate_mask": jax.ShapeDtypeStruct(sequence[:2], jnp.bool_),
        "input_ids": jax.ShapeDtypeStruct(sequence, jnp.int32),
        "mask": jax.ShapeDtypeStruct(sequence, jnp.bool_),
        "token_type_ids": jax.ShapeDtypeStruct(sequence, jnp.int32),
    }
    memory = measure_step(step, state, batch)
    assert memory is not None
    leaves = jax.tree.leaves(state.optimizer_state)
    return {
        "trained": whole if rank is None else count,
        "all": whole,
        "optimizer_bytes": sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves),
        "state_bytes": memory.arguments,
        "temporary_bytes": memory.temporaries,
        "step_bytes": memory.total,
    }


def difference(family: str, preset: str, rank: int) -> dict[str, float]:
    """Largest difference of a merged model's scores, and what the adapters change of them."""
    module = make(family, preset, rank)
    ids = jax.random.randint(jax.random.key(1), (4, 64), 10, 30_000, jnp.int32)

    def score(module: RerankerModule) -> jax.Array:
        return module(ids, mask=jnp.ones(ids.shape, bool))

    compiled = jax.jit(score)
    before = compiled(module)
    state = nnx.state(module, nnx.LoRAParam)
    for number, (_, variable) in enumerate(nnx.to_flat_state(state)):
        value = variable.get_value()
        drawn = jax.random.normal(jax.random.fold_in(jax.random.key(2), number), value.shape)
        variable.set_value(value + 0.02 * drawn)
    nnx.update(module, state)
    unmerged = compiled(module)
    return {
        "difference": float(jnp.abs(jax.jit(score)(merge_lora(module)) - unmerged).max()),
        "effect": float(jnp.abs(unmerged - before).max()),
    }


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--groups", type=int, default=1, help="groups of 8 sequences a step")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results: dict[str, Any] = {}
    print("| Model | Trained | Optimizer state | State in all | In between | Step in all | Ratio |")
    print("|---|---|---|---|---|---|---|")
    for family, preset in MODELS:
        whole = measure(family, preset, None, options.groups)
        low = measure(family, preset, options.rank, options.groups)
        results[preset] = {"whole": whole, "lora": low}
        sizes = [
            f"{whole[name] / MIB:,.0f} to {low[name] / MIB:,.0f} MiB"
            for name in ("optimizer_bytes", "state_bytes", "temporary_bytes", "step_bytes")
        ]
        print(
            f"| {preset} | {low['trained']:,} of {low['all']:,} "
            f"({low['trained'] / low['all']:.2%}) | {' | '.join(sizes)} | "
            f"{low['step_bytes'] / whole['step_bytes']:.2f} |",
            flush=True,
        )
    print("\n| Model | Merged against unmerged | The adapters' effect |\n|---|---|---|")
    for family, preset in COMPARED:
        results[f"{preset} merged"] = found = difference(family, preset, options.rank)
        print(f"| {preset} | {found['difference']:.1e} | {found['effect']:.2f} |", flush=True)
    if options.json:
        with atomic_open(options.json) as file:
            file.write(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
