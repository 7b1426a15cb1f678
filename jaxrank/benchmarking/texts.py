"""Scoring of real texts by a model folder: tokenizer, batches of like lengths and all."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxrank.benchmarking.cases import Case, DType, TextsShape
from jaxrank.benchmarking.operations import Prepared
from jaxrank.benchmarking.timing import MemorySource
from jaxrank.errors import InputError

Pairs = Sequence[tuple[str, str]]


class PredictSide:
    """A function from pairs of texts to scores, which it waits for itself.

    It compiles in the warm-up, as every call is of the same pairs; each call begins with another.
    """

    def __init__(self, predict: Callable[[Pairs], Any], pairs: Pairs) -> None:
        self._predict, self._pairs = predict, pairs
        self.compile_s: float | None = None
        self.temporary_bytes: int | None = None
        self.peak_bytes: int | None = None
        self.peak_source: MemorySource | None = None
        self.parameters: int | None = None

    def queue(self, index: int) -> Any:
        """Score the pairs."""
        start = index % len(self._pairs)
        return self._predict([*self._pairs[start:], *self._pairs[:start]])

    def wait(self, result: Any) -> None:
        """All is there already."""

    def values(self) -> Mapping[str, np.ndarray]:
        """The scores."""
        return {"scores": np.asarray(self.queue(0), np.float32)}


def texts_case(model: Path, pairs: Pairs, dtype: DType) -> Case:
    """The case of a model folder and pairs."""
    return Case("texts", TextsShape(str(model), tuple(pairs)), "forward", dtype)


def draw_pairs(
    queries: Sequence[str], documents: Mapping[str, str], count: int, *, seed: int = 0
) -> list[tuple[str, str]]:
    """Queries in turn, each with a document drawn at random.

    Raises:
        InputError: fewer than one pair, or none can be made.
    """
    if count < 1:
        raise InputError(f"--pairs: got {count}; at least 1 is needed")
    if not queries or not documents:
        raise InputError(
            f"--collection: has {len(queries)} queries and {len(documents)} documents; at least "
            "one of each is needed"
        )
    random, ids = np.random.default_rng(seed), list(documents)
    return [
        (queries[index % len(queries)], documents[ids[int(random.integers(len(ids)))]])
        for index in range(count)
    ]


def predicting(predict: Callable[[Pairs], Any]) -> Callable[[Case, str], Prepared]:
    """What builds our side of such a case, for `run_benchmarks`."""

    def make(case: Case, implementation: str) -> Prepared:
        assert isinstance(case.shape, TextsShape)
        return Prepared(PredictSide(predict, case.shape.pairs), [])

    return make
