"""Documents read once by a model: texts in, records of their states out.

Documents are sorted by length and padded to few lengths, as pairs are in `ranking.scoring`; padding
is masked, so what a document is read with changes its state by rounding only.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxrank.data.hashing import hash_text
from jaxrank.errors import InputError
from jaxrank.models.families import state_arrays
from jaxrank.models.module import RerankerModule
from jaxrank.models.states import StateArray
from jaxrank.ranking.document_states.formats import StateDType, stored_arrays, to_stored
from jaxrank.ranking.document_states.identity import StateIdentity
from jaxrank.ranking.document_states.model_identity import identity_of
from jaxrank.ranking.document_states.records import Record
from jaxrank.shapes import Array, Bool, PyTree
from jaxrank.text.buckets import bucket_for, length_buckets
from jaxrank.text.document_first import DocumentFirst

Computed = tuple[dict[str, jax.Array], jax.Array]
"""A batch's states, and of each row whether they are finite."""


class DocumentEncoder:
    """Reads documents with a module; one compilation per length bucket and number of rows.

    Memory is that of the states of two batches, as the model computes them (for mamba-130m 2.8 MB a
    document, for mamba2-130m 19 MB), beside the records that are returned.

    Args:
        module: the reranker; its weights must stay as they are.
        tokenizer: of documents without their queries.
        dtype: what states are kept in.
        batch_size: documents a batch. A last, smaller batch is computed with 1, 8 or `batch_size`
            rows.
        identity: what the states are made for, where it is known; else the weights are read for it.

    Raises:
        InputError: the module's family has no document states, with the reason.
    """

    def __init__(
        self,
        module: RerankerModule,
        tokenizer: DocumentFirst,
        *,
        dtype: StateDType = "float32",
        batch_size: int = 32,
        identity: StateIdentity | None = None,
    ) -> None:
        if batch_size < 1:
            raise InputError(f"batch_size: got {batch_size}; at least 1 is needed")
        self.specs: tuple[StateArray, ...] = state_arrays(
            module.config.family, module.config.backbone
        )
        self.dtype: StateDType = dtype
        self.identity = identity or identity_of(module, tokenizer)
        """What the states are made for."""
        self.computed_in = computed_in(module)
        """What the network computes in, e.g. "bfloat16"."""
        self.tokenizer = tokenizer
        """Of documents; counts what is cut of them."""
        self._buckets = length_buckets(tokenizer.document_budget)
        self._row_counts = sorted({1, min(8, batch_size), batch_size})
        graph, self._parameters = nnx.split(module)

        def read(
            parameters: PyTree, input_ids: Array, mask: Array
        ) -> tuple[dict[str, Array], Bool[Array, " B"]]:
            model: RerankerModule = nnx.merge(graph, parameters)
            arrays = model.read_prefix(input_ids, mask=mask).arrays
            return arrays, _are_finite(arrays)

        self._read: Callable[..., Computed] = jax.jit(read)

    def kept_in(self, dtype: StateDType) -> "DocumentEncoder":
        """An encoder of the same documents for another type, which shares what is compiled."""
        other = copy(self)
        other.dtype = dtype
        return other

    def encode(
        self,
        documents: Sequence[tuple[str, str]],
        *,
        read: Callable[[int], object] | None = None,
    ) -> list[Record]:
        """Records of (id, text) in their order.

        The same documents give the same bits, with the same `batch_size`: what is computed together
        changes rounding.

        Args:
            read: called after each batch with the number of its documents.

        Raises:
            InputError: a document's state is not finite, by its id.
        """
        ids = self.tokenizer.documents(text for _, text in documents)
        found: dict[int, Record] = {}

        def collect(rows: np.ndarray, computed: Computed) -> None:
            found.update(self._records(documents, ids, rows, computed))
            if read is not None:
                read(len(rows))

        pending: tuple[np.ndarray, Computed] | None = None
        for rows, batch in self._batches(ids):
            # JAX computes in the background: the next batch runs while this one is converted.
            computed = self._read(self._parameters, **batch)
            if pending is not None:
                collect(*pending)
            pending = rows, computed
        if pending is not None:
            collect(*pending)
        return [found[index] for index in range(len(documents))]

    def _batches(self, ids: Sequence[np.ndarray]) -> Iterator[tuple[np.ndarray, dict[str, Array]]]:
        """Yield the positions of a batch's documents, and the batch; longest documents first.

        Longest first, so that a batch too large for the memory fails at once and not at the end.
        """
        lengths = np.array([len(one) for one in ids], np.int64)
        order = np.argsort(-lengths, kind="stable")
        for start in range(0, len(order), self._row_counts[-1]):
            rows = order[start : start + self._row_counts[-1]]
            length = bucket_for(int(lengths[rows[0]]), self._buckets)
            # Rows beyond the documents read one pad token: attention over nothing has no value.
            sizes = np.ones(bucket_for(len(rows), self._row_counts), np.int64)
            sizes[: len(rows)] = lengths[rows]
            input_ids = np.full((len(sizes), length), self.tokenizer.pad_token_id, np.int32)
            for place, row in enumerate(rows):
                input_ids[place, : sizes[place]] = ids[row]
            mask = np.arange(length) < sizes[:, None]
            yield rows, {"input_ids": jnp.asarray(input_ids), "mask": jnp.asarray(mask)}

    def _records(
        self,
        documents: Sequence[tuple[str, str]],
        ids: Sequence[np.ndarray],
        rows: np.ndarray,
        computed: Computed,
    ) -> Iterator[tuple[int, Record]]:
        """Yield the positions and records of one computed batch's documents."""
        states, finite_B = computed
        is_finite = np.asarray(finite_B)[: len(rows)]
        if not is_finite.all():
            name, _ = documents[rows[int(np.argmin(is_finite))]]
            mend = "check the weights"
            if self.computed_in != "float32":
                mend += ", or compute in float32"
            raise InputError(
                f"document {name!r}: its state, computed in {self.computed_in}, is not finite; "
                f"{mend}"
            )
        arrays = {name: np.asarray(array) for name, array in states.items()}
        stored = to_stored(arrays, self.specs, self.dtype)
        for place, row in enumerate(rows.tolist()):
            name, text = documents[row]
            length = len(ids[row])
            own = {}
            for kept in stored_arrays(self.specs, self.dtype):
                array = stored[kept.name][:, place]
                # A copy, so that a record does not hold its whole batch.
                own[kept.name] = np.array(array[:, :length] if kept.per_token else array)
            yield row, Record(name, length, own, hash_text(text))


def computed_in(module: RerankerModule) -> str:
    """What the module's backbone computes in, e.g. "bfloat16"; computes nothing."""
    graph, state = nnx.split(module)

    def hidden(state: PyTree) -> Array:
        token = jnp.zeros((1, 1), jnp.int32)
        vectors: Array = nnx.merge(graph, state).encode(token, mask=jnp.ones((1, 1), bool))
        return vectors

    return str(jax.eval_shape(hidden, state).dtype)


def _are_finite(arrays: Mapping[str, Array]) -> Bool[Array, " B"]:
    """Of each document, whether all of its arrays (layers, B, ...) are."""
    found = [
        jnp.all(jnp.isfinite(array), axis=tuple({*range(array.ndim)} - {1}))
        for array in arrays.values()
    ]
    return jnp.all(jnp.stack(found), axis=0)
