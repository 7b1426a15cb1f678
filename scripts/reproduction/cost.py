"""What a recipe costs on one A100 of 80 GB, estimated before anything is run.

    python -m scripts.reproduction.cost --config configs/rankmamba/paper.yaml \
        --config configs/rankmamba/mamba-370m.yaml

It takes the options of `python -m jaxrank.train`, and `--groups` and `--tokens_per_pair` for groups
that are no paper's. Nothing of it is measured on a GPU:

- FLOPs are counted (jaxrank/training/throughput.py); pairs of documents are taken to fill
  max_length, those of passages to have PASSAGE_PAIR_TOKENS.
- Hours take them at a share of the peak that is assumed (UTILISATION).
- Memory is that of the longest batch, by the shapes of what the backward pass keeps
  (step_shapes.py), in as few parts (training.accumulation) as fit. On a CPU in float32 this comes
  within 7% of what the compiler says of BERT-base, OPT-125m and mamba-130m
  (tests/scripts/test_cost.py compares them). Attention's scores are counted as if they were held
  for one layer, which a fused kernel would not need.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import jax

from jaxrank.command_line import run
from jaxrank.errors import InputError
from jaxrank.models.module import RerankerConfig
from jaxrank.options import parse
from jaxrank.text.templates import TextConfig
from jaxrank.training.config import Recipe, count_steps
from jaxrank.training.memory import GIB, SHARE_TO_FILL
from jaxrank.training.recipe_checks import check_recipe
from jaxrank.training.throughput import PEAK_TFLOPS, count_flops
from scripts.reproduction.papers import RANKMAMBA_GROUPS
from scripts.reproduction.step_shapes import (
    compute_dtype,
    find_architecture,
    measure_bytes,
    measure_shapes,
    step_state,
)

DEVICE, DEVICE_GIB = "A100", 80
UTILISATION = {"attention": 0.30, "state space": 0.10}
"""Assumed share of the device's peak that goes into model FLOPs. A state-space layer's scan is no
matrix product, and waits for memory; what either really reaches is not measured."""

PASSAGE_PAIR_TOKENS = 96
"""Assumed mean length of a query with a passage of MS MARCO, some 60 words and the template's."""

_RECOMPUTED = {"auto": 0.0, "none": 0.0, "projections": 0.0, "full": 1 / 3}
"""Work that the backward pass does again, beside model FLOPs. Without projections it is small."""


class PapersGroups(NamedTuple):
    """What a paper trained on."""

    groups: int
    is_passages: bool = False


_PAPERS_GROUPS = {
    ("paper", 7): PapersGroups(RANKMAMBA_GROUPS),
    ("authors-code", 7): PapersGroups(RANKMAMBA_GROUPS),
    ("ssm-rerankers", 15): PapersGroups(524_000, is_passages=True),
    ("ssm-rerankers", 7): PapersGroups(320_000),
}
"""By template and number of negatives."""


@dataclass(frozen=True, kw_only=True)
class CostOptions(Recipe):
    """Estimate what a recipe costs on one A100 of 80 GB."""

    groups: int | None = None
    """Training groups. Null: as many as the paper that the recipe's template is from."""

    tokens_per_pair: int | None = None
    """Mean length of a pair in tokens. Null: text.max_length, or 96 for passages."""


@dataclass(frozen=True)
class Cost:
    """The estimate of a recipe."""

    groups: int
    steps: int
    tokens: int
    flops: float
    utilisation: float
    hours: float
    memory_gib: float
    accumulation: int
    """Parts of a batch, one after the other, with which it fits."""
    fits: bool
    disk_gib: float

    def __str__(self) -> str:
        memory = f"{self.memory_gib:.0f} GiB"
        if self.accumulation > 1:
            memory += f" in {self.accumulation} parts"
        if not self.fits:
            memory += " (too much)"
        return (
            f"{self.tokens / 1e9:.2f}B tokens, {self.flops:.1e} FLOPs, {self.hours:.0f} h at "
            f"{self.utilisation:.0%} of peak, {memory}, {self.disk_gib:.0f} GiB disk"
        ).replace("e+", "e")


def estimate(
    recipe: Recipe, *, groups: int | None = None, tokens_per_pair: int | None = None
) -> Cost:
    """What training by a recipe costs; the arguments are those of `CostOptions`.

    Raises:
        InputError: a model whose size is not known by its name, texts longer than its positions, or
            no number of groups.
    """
    config = find_architecture(recipe)
    max_length = recipe.text.max_length or TextConfig.max_length
    papers = _PAPERS_GROUPS.get((str(recipe.text.template), recipe.data.negatives))
    if groups is None:
        if papers is None:
            raise InputError("--groups: how many there are is needed for a recipe of no paper")
        groups = papers.groups
    if tokens_per_pair is None:
        is_passages = papers is not None and papers.is_passages
        tokens_per_pair = min(max_length, PASSAGE_PAIR_TOKENS) if is_passages else max_length
    steps = count_steps(
        recipe.training, num_groups=groups, groups_per_batch=recipe.data.groups_per_batch
    )
    pairs = steps * recipe.data.groups_per_batch * (1 + recipe.data.negatives)
    tokens = pairs * tokens_per_pair
    _, state = step_state(recipe, config)
    model_flops = count_flops(config, state)
    flops = model_flops.of(pairs=float(pairs), tokens=float(tokens))
    utilisation = UTILISATION["attention" if model_flops.full_layers else "state space"]
    # In float32 an A100 multiplies in TF32, half as fast.
    peak = PEAK_TFLOPS[DEVICE] * 1e12 / (2 if compute_dtype(recipe).itemsize == 4 else 1)
    accumulation, memory = _fit(recipe, config)
    parameters = sum(x.size for x in jax.tree.leaves((state.parameters, state.frozen)))
    # Kept ones and one being written; frozen parameters are in none.
    checkpoints = (recipe.checkpoint.keep + 1) * measure_bytes(state._replace(frozen=()))
    return Cost(
        groups=groups,
        steps=steps,
        tokens=tokens,
        flops=flops,
        utilisation=utilisation,
        hours=(1 + _RECOMPUTED[recipe.training.remat]) * flops / (utilisation * peak) / 3600,
        memory_gib=memory / GIB,
        accumulation=accumulation,
        fits=memory <= SHARE_TO_FILL * DEVICE_GIB * GIB,
        disk_gib=(checkpoints + 4 * parameters * recipe.training.milestones) / GIB,
    )


def _fit(recipe: Recipe, config: RerankerConfig) -> tuple[int, int]:
    """The smallest accumulation with which a step fits, or the largest there is, and its bytes."""
    groups = recipe.data.groups_per_batch
    total = 0
    parts = recipe.training.accumulation
    for parts in range(recipe.training.accumulation, groups + 1):
        if groups % parts:
            continue
        training = replace(recipe.training, accumulation=parts)
        total = measure_shapes(replace(recipe, training=training), config).total
        if total <= SHARE_TO_FILL * DEVICE_GIB * GIB:
            break
    return parts, total


def read_options(arguments: Sequence[str]) -> CostOptions:
    """The options of the command line, which need not give what costs nothing."""
    free = ["--optimizer.learning_rate=1e-5", "--training.output=runs/estimate"]
    options = parse(CostOptions, "scripts.reproduction.cost", [*arguments, *free])
    check_recipe(options)
    return options


def main(argv: Sequence[str] | None = None) -> None:
    """Print the estimate of a recipe."""
    options = read_options(sys.argv[1:] if argv is None else argv)
    cost = estimate(options, groups=options.groups, tokens_per_pair=options.tokens_per_pair)
    print(f"One {DEVICE} of {DEVICE_GIB} GB, estimated, not measured: {cost.steps:,} steps, {cost}")


if __name__ == "__main__":
    run(main)
