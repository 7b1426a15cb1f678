"""Train one model of the study with one seed, score the dev candidates, write one JSON.

A process of its own for each part, so that the memory it reports is its own. Only jax, flax, optax
and numpy are needed. Nothing is printed but the progress; nothing is written until all is done.

    python -m scripts.gpu_study.part DATA MODEL:SEED RESULT [--cpu]
"""

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxrank.benchmarking.report import describe_machine
from jaxrank.command_line import run
from jaxrank.errors import InputError
from jaxrank.models.implementations import Implementations
from jaxrank.models.module import RerankerModule, build_module, init_module
from jaxrank.text.buckets import bucket_for
from jaxrank.training.optimizer import make_optimizer
from jaxrank.training.step import TrainState, init_state, make_train_step
from scripts.gpu_study.archive import ABSENT, Archive, write_json
from scripts.gpu_study.models import StudyModel, count_parameters, study_model
from scripts.gpu_study.pairs import Pairs, join_pairs
from scripts.gpu_study.settings import Settings, add_settings, settings_of

TIMED_STEPS = 10
LOSSES = 50
"""Points of the loss curve: means over that many stretches of the training."""


def main() -> None:
    """Train the part and write its JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("part", help="MODEL:SEED")
    parser.add_argument("result", type=Path)
    add_settings(parser)
    options = parser.parse_args()
    settings = settings_of(options)
    if options.cpu:
        jax.config.update("jax_platforms", "cpu")
    archive = Archive.open(options.data)
    name, seed = options.part.split(":")
    model = study_model(name, archive.study, is_toy=settings.cpu)
    result = train_part(archive, model, int(seed), settings, limit_s=60 * options.minutes)
    write_json(options.result, {"part": options.part, **result}, indent=None)


class Compiled:
    """A function compiled once for each length of its batches, and the time that took."""

    def __init__(self, function: Any) -> None:
        self._function = function
        self._compiled: dict[int, Callable[..., Any]] = {}
        self.seconds = 0.0

    def __call__(self, length: int, *arguments: Any) -> Any:
        """Call it with arguments whose shapes `length` tells apart."""
        if length not in self._compiled:
            start = time.perf_counter()
            self._compiled[length] = self._function.lower(*arguments).compile()
            self.seconds += time.perf_counter() - start
        return self._compiled[length](*arguments)


def train_part(
    archive: Archive, model: StudyModel, seed: int, settings: Settings, *, limit_s: float
) -> dict[str, Any]:
    """Train from the start, then score the dev queries' candidates.

    Raises:
        InputError: after the first steps it shows that the part would take longer than `limit_s`.
    """
    begin = time.perf_counter()
    batches = _Batches(archive, model, seed, settings)
    module = _start(archive, model, seed, settings)
    optimizer, schedule = make_optimizer(model.recipe, batches.total_steps)
    graph, state = init_state(module, optimizer, key=jax.random.key(seed), release=True)
    step = Compiled(make_train_step(graph, optimizer, schedule))
    metrics = []
    timed = min(TIMED_STEPS, batches.total_steps - 1)
    clock = time.perf_counter(), step.seconds
    for number, (length, batch) in enumerate(batches, start=1):
        if number == 2:  # the first has compiled
            state.step.block_until_ready()
            clock = time.perf_counter(), step.seconds
        state, measured = step(length, state, batch)
        metrics.append(measured)
        if number == 1 + timed:
            state.step.block_until_ready()
            step_s = (time.perf_counter() - clock[0] - step.seconds + clock[1]) / max(timed, 1)
            left_s = step_s * (batches.total_steps - number) + _scoring_s(archive, settings, step_s)
            _check_time(begin, left_s, model.name, limit_s)
    jax.block_until_ready(state)
    training_s = time.perf_counter() - clock[0] - (step.seconds - clock[1])
    done = jax.device_get(metrics)
    pairs = [int(one["pairs"]) for one in done]
    # Of the steps that were timed: all but the first, unless it is the only one.
    timed_pairs = sum(pairs[1:]) or sum(pairs)
    memory_mib = peak_memory_mib()
    scores, scoring = _score(archive, model, graph, state, settings)
    total, without_embeddings = count_parameters(model.config)
    return {
        "settings": settings.as_json(archive),
        "machine": describe_machine(),
        "parameters": total,
        "parameters_without_embeddings": without_embeddings,
        "steps": len(done),
        "pairs": sum(pairs),
        "tokens": sum(int(one["tokens"]) for one in done),
        "losses": _curve([float(one["loss"]) for one in done]),
        "skipped_steps": sum(int(one["skipped"]) > 0 for one in done),
        "wall_clock_s": time.perf_counter() - begin,
        "compile_s": step.seconds + scoring.pop("compile_s"),
        "training_s": training_s,
        "pairs_per_s": timed_pairs / training_s,
        "memory_mib": memory_mib,
        **scoring,
        "scores": scores,
    }


class _Batches:
    """Every group once an epoch, in the order that the seed draws; the same for all models."""

    def __init__(self, archive: Archive, model: StudyModel, seed: int, settings: Settings) -> None:
        documents = archive.group_documents
        self._is_there = documents != ABSENT
        self._pairs = _join(archive, model, archive.group_queries, documents)
        self._rows = np.arange(documents.size).reshape(documents.shape)
        self._seed, self._size = seed, settings.groups_per_batch
        self._epochs = settings.epochs if model.is_random else 1
        self._buckets = settings.buckets(archive)
        self.total_steps = self._epochs * -(-len(documents) // self._size)

    def __iter__(self) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        for epoch in range(self._epochs):
            order = np.random.default_rng([self._seed, epoch]).permutation(len(self._rows))
            for start in range(0, len(order), self._size):
                yield self._batch(order[start : start + self._size])

    def _batch(self, groups: np.ndarray) -> tuple[int, dict[str, np.ndarray]]:
        missing = self._size - len(groups)
        # A last batch is filled up with groups that have no candidate, which count nothing.
        rows = self._rows[np.pad(groups, (0, missing), mode="edge")]
        is_there = np.pad(self._is_there[groups], ((0, missing), (0, 0)))
        length = bucket_for(int(self._pairs.lengths[rows].max()), self._buckets)
        return length, {**self._pairs.batch(rows, length), "candidate_mask": is_there}


def _join(archive: Archive, model: StudyModel, queries: np.ndarray, documents: np.ndarray) -> Pairs:
    """The pairs of lists (lists, documents each) of row numbers, in a row; absent ones as row 0."""
    return join_pairs(
        archive.study["wordings"][model.wording],
        archive.queries[model.wording],
        archive.documents[model.wording],
        np.repeat(queries, documents.shape[1]),
        np.maximum(documents, 0).ravel(),
    )


def _start(archive: Archive, model: StudyModel, seed: int, settings: Settings) -> RerankerModule:
    """The model before training: at random, or with published weights."""
    dtype = jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    family = model.config.family
    choices = Implementations()
    if settings.plain and family == "mamba":
        choices = Implementations(selective_scan="associative")
    elif settings.plain and family == "bert":
        choices = Implementations(attention="xla")
    if model.is_random:
        return init_module(model.config, seed=seed, dtype=dtype, implementations=choices)
    return build_module(model.config, archive.weights(), dtype=dtype, implementations=choices)


def peak_memory_mib() -> float | None:
    """Most memory that this process has held on the device at once; None where it is not known."""
    stats = jax.devices()[0].memory_stats() or {}
    peak = stats.get("peak_bytes_in_use")
    return None if peak is None else peak / 2**20


def _scoring_s(archive: Archive, settings: Settings, step_s: float) -> float:
    """About how long scoring takes: a third of a training step for as many pairs."""
    candidates = archive.dev_documents.size
    trained = settings.groups_per_batch * archive.group_documents.shape[1]
    return step_s / 3 * candidates / trained


def _check_time(begin: float, left_s: float, name: str, limit_s: float) -> None:
    total_s = time.perf_counter() - begin + left_s
    print(f"{name}: about {total_s / 60:.1f} minutes of training and scoring", flush=True)
    if total_s > limit_s:
        raise InputError(
            f"{name}: it would take {total_s / 60:.1f} minutes; at most {limit_s / 60:.1f} "
            "are allowed: fewer --epochs for all models, or more --minutes"
        )


def _curve(losses: list[float]) -> list[tuple[int, float]]:
    """(last step, mean loss) of each stretch."""
    stretches = np.array_split(np.array(losses), min(LOSSES, len(losses)))
    ends = np.cumsum([len(one) for one in stretches])
    return [
        (int(end), round(float(one.mean()), 5)) for end, one in zip(ends, stretches, strict=True)
    ]


class _Scored(NamedTuple):
    rows: np.ndarray
    values: jax.Array


def _score(
    archive: Archive,
    model: StudyModel,
    graph: Any,
    state: TrainState,
    settings: Settings,
) -> tuple[list[list[float]], dict[str, float]]:
    """Scores (dev queries, candidates there are), and how fast; longest pairs first."""
    documents = archive.dev_documents
    pairs = _join(archive, model, archive.dev_queries, documents)
    buckets, size = settings.buckets(archive), settings.pairs_per_batch

    @jax.jit
    def forward(parameters: Any, batch: dict[str, jax.Array]) -> jax.Array:
        return nnx.merge(graph, parameters, state.frozen)(**batch)

    score = Compiled(forward)
    start = time.perf_counter()
    order = np.flatnonzero((documents != ABSENT).ravel())
    order = order[np.argsort(-pairs.lengths[order], kind="stable")]
    scored = []
    for first in range(0, len(order), size):
        rows = order[first : first + size]
        length = bucket_for(int(pairs.lengths[rows[0]]), buckets)
        batch = pairs.batch(np.pad(rows, (0, size - len(rows)), mode="edge"), length)
        scored.append(_Scored(rows, score(length, state.parameters, batch)))
    values = np.zeros(documents.size, np.float32)
    for one in scored:
        values[one.rows] = np.asarray(one.values)[: len(one.rows)]
    if not np.all(np.isfinite(values)):
        raise InputError(f"{model.name}: scores are not finite")
    seconds = time.perf_counter() - start - score.seconds
    lists = values.reshape(documents.shape)
    scores = [
        [float(f"{score:.9g}") for score in row[there]]  # nine digits name a float32 exactly
        for row, there in zip(lists, documents != ABSENT, strict=True)
    ]
    return scores, {"compile_s": score.seconds, "scoring_pairs_per_s": len(order) / seconds}


if __name__ == "__main__":
    run(main)
