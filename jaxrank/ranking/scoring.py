"""Scores of any number of tokenised pairs: sorted by length, padded to few lengths, batched.

A pair's score does not depend on its neighbours: padding is masked in every operation, so whatever
it is batched with and whichever bucket it falls into, it changes by rounding only (below 1e-5 in
float32).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxrank.errors import InputError
from jaxrank.models.module import RerankerModule
from jaxrank.progress import progress_bar
from jaxrank.shapes import Array, PyTree
from jaxrank.text.buckets import bucket_for, length_buckets
from jaxrank.text.tokenize import TokenizedPair, pad_pairs

ScorePairs = Callable[[Sequence[tuple[str, str]]], np.ndarray]
"""(query, document) texts -> scores, float32 (n,)."""


class Spread(NamedTuple):
    """How batches are spread over many devices; all processes score the same pairs together."""

    devices: int
    """How many there are; batches have a multiple of rows."""

    put: Callable[[Mapping[str, np.ndarray]], dict[str, jax.Array]]
    """Cuts a batch along its rows and puts each device's on it."""

    scores: jax.sharding.Sharding
    """Where scores go: to all devices, so that every process can read them."""


class Scorer:
    """Scores tokenised pairs with a module; one compilation per length bucket and batch size.

    Args:
        module: the reranker; its parameters are the default ones of `score`.
        pad_token_id: what padded positions hold; masked, so any id of the vocabulary will do.
        max_length: tokens of the longest pair that will come.
        batch_size: pairs a batch. A last, smaller batch is computed with 1, 8 or `batch_size` rows.
        spread: for many devices, over which the parameters given to `score` are laid out too.
    """

    def __init__(
        self,
        module: RerankerModule,
        *,
        pad_token_id: int,
        max_length: int,
        batch_size: int = 32,
        spread: Spread | None = None,
    ) -> None:
        if batch_size < 1:
            raise InputError(f"batch_size: got {batch_size}; at least 1 is needed")
        graph, self._parameters = nnx.split(module)
        self._pad_token_id = pad_token_id
        self._buckets = length_buckets(max_length)
        devices = 1 if spread is None else spread.devices
        self._row_counts = sorted(
            {-(-rows // devices) * devices for rows in (1, min(8, batch_size), batch_size)}
        )
        self._put = _put_on_device if spread is None else spread.put

        def forward(
            parameters: PyTree, input_ids: Array, mask: Array, token_type_ids: Array
        ) -> Array:
            model = nnx.merge(graph, parameters)
            return model(input_ids, mask=mask, token_type_ids=token_type_ids)

        self._forward: Callable[..., jax.Array] = jax.jit(
            forward, out_shardings=None if spread is None else spread.scores
        )

    def score(
        self,
        pairs: Sequence[TokenizedPair],
        *,
        parameters: PyTree | None = None,
        progress: bool = False,
    ) -> np.ndarray:
        """Scores in the order of `pairs`.

        Args:
            parameters: other parameters for the same module, e.g. those of a training step.
            progress: whether to draw a bar.

        Returns:
            float32 (n,); higher is more relevant.

        Raises:
            InputError: a score is not finite (bad weights, or an overflow in half precision).
        """
        parameters = self._parameters if parameters is None else parameters
        scores = np.empty(len(pairs), np.float32)
        pending: tuple[np.ndarray, jax.Array] | None = None
        with progress_bar(
            description="scoring", unit="pair", enabled=progress, total=len(pairs)
        ) as bar:
            for rows, batch in self._batches(pairs):
                # JAX computes in the background: the next batch runs while this one is read.
                computed = self._forward(parameters, **batch)
                if pending is not None:
                    _collect(scores, *pending)
                    bar.update(len(pending[0]))
                pending = rows, computed
            if pending is not None:
                _collect(scores, *pending)
                bar.update(len(pending[0]))
        bad = int(np.count_nonzero(~np.isfinite(scores)))
        if bad:
            raise InputError(
                f"model: {bad} of {len(scores)} scores are not finite; check the weights, or score "
                "in float32"
            )
        return scores

    def _batches(
        self, pairs: Sequence[TokenizedPair]
    ) -> Iterator[tuple[np.ndarray, dict[str, jax.Array]]]:
        """Yield the positions of a batch's pairs, and the batch; longest pairs first.

        Longest first, so that a batch too large for the memory fails at once and not at the end.
        """
        lengths = np.array([len(pair.input_ids) for pair in pairs], np.int64)
        order = np.argsort(-lengths, kind="stable")
        for start in range(0, len(order), self._row_counts[-1]):
            rows = order[start : start + self._row_counts[-1]]
            batch = pad_pairs(
                [pairs[row] for row in rows],
                length=bucket_for(int(lengths[rows[0]]), self._buckets),
                pad_token_id=self._pad_token_id,
                rows=bucket_for(len(rows), self._row_counts),
            )
            yield rows, self._put(batch)


def _put_on_device(batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
    return {name: jnp.asarray(value) for name, value in batch.items()}


def _collect(scores: np.ndarray, rows: np.ndarray, computed: jax.Array) -> None:
    scores[rows] = np.asarray(computed)[: len(rows)]
