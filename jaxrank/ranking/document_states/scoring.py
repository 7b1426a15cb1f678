"""Scores of one query for any number of documents, from the states that the documents left.

Per batch of candidates: their states are gathered as they are stored and moved to the device once;
one compiled function decodes them and runs the query's tokens for all of them together.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxrank.errors import InputError
from jaxrank.models.families import state_arrays
from jaxrank.models.module import RerankerModule
from jaxrank.models.states import State
from jaxrank.ranking.document_states.formats import StateDType, from_stored
from jaxrank.ranking.document_states.identity import StateIdentity
from jaxrank.ranking.document_states.model_identity import identity_of
from jaxrank.ranking.document_states.on_device import DeviceStates, Held, pick
from jaxrank.ranking.document_states.states import DocumentStates
from jaxrank.shapes import Array, Float32, Int, PyTree
from jaxrank.text.buckets import bucket_for, fine_buckets, length_buckets
from jaxrank.text.document_first import DocumentFirst

BATCH_SIZE = 100
"""Candidates that are computed together: the usual depth of a first stage."""


class Query(NamedTuple):
    """A query's side of a pair, padded on the right; a pytree."""

    input_ids: Int[Array, " L"]
    length: Int[Array, ""]
    """Tokens without the padding."""


class StateScorer:
    """Scores a query's candidates from their states; compiled once per bucket of sizes.

    A score is that of the pair read at once, up to rounding and to what `dtype` of the states
    loses. Padding is masked, so a candidate's neighbours and the buckets change rounding only.

    Args:
        module: the reranker; its weights must stay as they are.
        tokenizer: of queries without their documents.
        batch_size: candidates computed together; more come in several batches, and the next one's
            states are gathered while one is computed.
        identity: what the module's states are made for, where it is known; else the weights are
            read for it.

    Raises:
        InputError: the module's family has no document states, with the reason.
    """

    def __init__(
        self,
        module: RerankerModule,
        tokenizer: DocumentFirst,
        *,
        batch_size: int = BATCH_SIZE,
        identity: StateIdentity | None = None,
    ) -> None:
        if batch_size < 1:
            raise InputError(f"batch_size: got {batch_size}; at least 1 is needed")
        specs = state_arrays(module.config.family, module.config.backbone)
        self.identity = identity or identity_of(module, tokenizer)
        """What states must be made for."""
        self.tokenizer = tokenizer
        """Of queries; counts what is cut of them."""
        self._rows = row_buckets(batch_size)
        self._query_tokens = fine_buckets(tokenizer.query_budget)
        per_token = any(spec.per_token for spec in specs)
        self._prefixes = length_buckets(tokenizer.document_budget) if per_token else None
        graph, self._parameters = nnx.split(module)

        def score(
            parameters: PyTree, held: Held, query: Query, dtype: StateDType
        ) -> Float32[Array, " B"]:
            model: RerankerModule = nnx.merge(graph, parameters)
            state = State(from_stored(held.arrays, specs, dtype), held.lengths)
            shape = len(held.lengths), len(query.input_ids)
            is_token = jnp.arange(shape[1]) < query.length
            return model.score_continuation(
                state,
                jnp.broadcast_to(query.input_ids[None, :], shape),
                mask=jnp.broadcast_to(is_token[None, :], shape),
            )

        def score_picked(
            parameters: PyTree, held: Held, places: Array, query: Query, dtype: StateDType
        ) -> Float32[Array, " B"]:
            return score(parameters, pick(held, places), query, dtype)

        self._score: Callable[..., jax.Array] = jax.jit(score, static_argnames="dtype")
        self._score_picked: Callable[..., jax.Array] = jax.jit(
            score_picked, static_argnames="dtype"
        )

    def score(
        self, query: str, states: DocumentStates | DeviceStates, document_ids: Sequence[str]
    ) -> np.ndarray:
        """Scores of the query for those documents, in their order; higher is more relevant.

        Returns:
            float32 (n,).

        Raises:
            InputError: the states were made for another model, by what differs; they lack a
                document; or a score is not finite, by its document.
        """
        states.identity.check_same(self.identity, where=states.where)
        tokens = self._tokens(query)
        scores = np.empty(len(document_ids), np.float32)
        pending: tuple[int, jax.Array] | None = None
        for start in range(0, len(document_ids), self._rows[-1]):
            # JAX computes in the background: this batch is gathered while the last one runs.
            names = document_ids[start : start + self._rows[-1]]
            computed = self._start(tokens, states, names)
            if pending is not None:
                _collect(scores, *pending)
            pending = start, computed
        if pending is not None:
            _collect(scores, *pending)
        is_finite = np.isfinite(scores)
        if not is_finite.all():
            name = document_ids[int(np.argmin(is_finite))]
            raise InputError(
                f"document {name!r}: its score for the query {query!r:.60} is not finite; encode "
                "it anew, or check the weights"
            )
        return scores

    def _tokens(self, query: str) -> Query:
        (ids,) = self.tokenizer.queries([query])
        length = bucket_for(len(ids), self._query_tokens)
        padded = np.full(length, self.tokenizer.pad_token_id, np.int32)
        padded[: len(ids)] = ids
        return Query(jnp.asarray(padded), jnp.asarray(len(ids), jnp.int32))

    def _start(
        self, query: Query, states: DocumentStates | DeviceStates, document_ids: Sequence[str]
    ) -> jax.Array:
        """Begin to compute the scores of one batch; rows beyond the documents mean nothing."""
        rows = bucket_for(len(document_ids), self._rows)
        if isinstance(states, DeviceStates):
            places = jnp.asarray(states.places(document_ids, rows=rows))
            return self._score_picked(
                self._parameters, states.held, places, query, dtype=states.dtype
            )
        tokens = None
        if self._prefixes is not None:
            tokens = bucket_for(int(states.lengths(document_ids).max()), self._prefixes)
        gathered = states.gather(document_ids, rows=rows, tokens=tokens)
        # JAX may read the host's arrays until the scores are there: nothing else writes to them.
        held = Held(*jax.device_put(tuple(gathered)))
        return self._score(self._parameters, held, query, dtype=states.dtype)


def row_buckets(batch_size: int) -> tuple[int, ...]:
    """Rising numbers of candidates that end in `batch_size`, by a quarter at the most."""
    buckets = []
    rows = 1
    while rows < batch_size:
        buckets.append(rows)
        rows += max(1, (1 << (rows.bit_length() - 1)) // 4)
    return (*buckets, batch_size)


def _collect(scores: np.ndarray, start: int, computed: jax.Array) -> None:
    rows = len(scores[start:])
    scores[start : start + len(computed)] = np.asarray(computed)[:rows]
