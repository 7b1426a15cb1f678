"""Checks of a training step whose queries meet all documents: against all pairs one by one.

The scans go on from a state there, under a mask and inside a loop whose backward pass runs them
again, and the gradient flows through the state into what left it: no other check has all of that.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxrank.models.families import get_family
from jaxrank.models.implementations import Implementations
from jaxrank.models.module import RerankerConfig, init_module
from jaxrank.training.optimizer import OptimizerConfig, make_optimizer
from jaxrank.training.step import init_state, make_train_step
from scripts.gpu_check.rows import GRADIENTS, Row, Sizes, compared, errors_on_device, go_on

PRESETS = {"mamba": "mamba-tiny", "mamba2": "mamba2-tiny"}
GROUPS, CANDIDATES, DOCUMENT, QUERY = 3, 2, 40, 9
VOCABULARY = 1_000
NO_GRADIENT = "head/score/bias"
"""It moves all scores of a query alike, so that under InfoNCE nothing but rounding is left."""
Batch = dict[str, np.ndarray]


def check_shared_training(sizes: Sizes) -> Iterator[Row]:
    """Loss and gradients of tiny models in float32, by what the device takes of implementations."""
    for family, preset in PRESETS.items():
        yield from go_on("shared_training", preset, _compare(family, preset, sizes))


def _compare(family: str, preset: str, sizes: Sizes) -> Iterator[Row]:
    choice = Implementations()
    if family == "mamba" and not sizes.has_mosaic:
        choice = Implementations(selective_scan="associative")
    backbone = replace(get_family(family).presets[preset], vocab_size=VOCABULARY)
    config = RerankerConfig(family, backbone, head_dropout=0.0)
    batch = make_batch(sizes.seed)
    with jax.default_matmul_precision("highest"):
        want = _take_step(config, choice, one_by_one(batch))
        got = _take_step(config, choice, batch)
    errors = errors_on_device(got, want)
    yield compared(
        "shared_training", f"{preset}, {GROUPS} x {CANDIDATES} documents", errors, GRADIENTS
    )


def _take_step(config: RerankerConfig, choice: Implementations, batch: Batch) -> dict[str, Any]:
    """Loss and gradients of one step; Adam's first average is a tenth of the gradient then."""
    optimizer, schedule = make_optimizer(OptimizerConfig(warmup_steps=0), 10)
    module = init_module(config, seed=0, implementations=choice)
    score = module.head.score.kernel
    score.set_value(jnp.sign(score.get_value()))  # a start's scores are all but equal
    graph, state = init_state(module, optimizer, key=jax.random.key(0))
    arrays = {name: jnp.asarray(array) for name, array in batch.items()}
    state, metrics = make_train_step(graph, optimizer, schedule)(state, arrays)
    averages = nnx.to_flat_state(state.optimizer_state[0].mu)
    found = {"/".join(map(str, path)): average.get_value() for path, average in averages}
    del found[NO_GRADIENT]
    return {**found, "loss": metrics["loss"]}


def make_batch(seed: int) -> Batch:
    """Groups of random tokens, of different lengths; one document does not count for one query."""
    random = np.random.default_rng(seed)
    batch = {}
    for side, shape in (("document", (GROUPS, CANDIDATES, DOCUMENT)), ("query", (GROUPS, QUERY))):
        lengths = random.integers(2, shape[-1] + 1, shape[:-1])
        batch[f"{side}_ids"] = random.integers(1, VOCABULARY, shape).astype(np.int32)
        batch[f"{side}_mask"] = np.arange(shape[-1]) < lengths[..., None]
    batch["candidate_mask"] = np.ones((GROUPS, GROUPS * CANDIDATES), np.bool_)
    batch["candidate_mask"][1, 3] = False
    return batch


def one_by_one(batch: Batch) -> Batch:
    """The same pairs, a row each."""
    groups, candidates, document = batch["document_ids"].shape
    pairs, length = groups * candidates, document + batch["query_ids"].shape[1]
    input_ids = np.zeros((groups, pairs, length), np.int32)
    mask = np.zeros(input_ids.shape, np.bool_)
    for row in range(groups):
        query = batch["query_ids"][row][batch["query_mask"][row]]
        for column in range(pairs):
            place = (row + column // candidates) % groups, column % candidates
            ids = np.append(batch["document_ids"][place][batch["document_mask"][place]], query)
            input_ids[row, column, : len(ids)] = ids
            mask[row, column, : len(ids)] = True
    return {
        "input_ids": input_ids,
        "mask": mask,
        "token_type_ids": np.zeros_like(input_ids),
        "candidate_mask": batch["candidate_mask"],
    }
