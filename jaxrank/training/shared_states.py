"""The scores of a batch whose queries meet all of its documents, each of which is read once.

The state after a document is all that a query needs of it (`models.states`). So Q groups of C
candidates are Q x QC pairs for the tokens of QC documents, read once, and of each query QC times:
in-batch negatives for a cross-encoder. Gradients flow through the states into the reading.
"""

from collections.abc import Mapping
from functools import partial

import jax
import jax.numpy as jnp

from jaxrank.models.lora import with_dropout_keys
from jaxrank.models.module import RerankerModule
from jaxrank.models.states import State
from jaxrank.shapes import Array, Float32, Int, Key
from jaxrank.training.group_scores import score_by_chunks


def has_shared_states(batch: Mapping[str, Array]) -> bool:
    """Whether a batch holds documents and queries apart."""
    return "document_ids" in batch


def score_all_pairs(
    module: RerankerModule,
    batch: Mapping[str, Array],
    *,
    key: Key[Array, ""] | None = None,
    chunk: int | None = None,
) -> Float32[Array, "Q QC"]:
    """Scores of each query with all documents, its own group's first; see `make_train_step`.

    One query after the other goes on from the documents' states, and the backward pass does it
    again: the states that a query leaves are never kept for all pairs. With `chunk` that many
    documents at a time are read and meet all queries, and the backward pass reads them again. Each
    query draws dropout of its own.
    """
    num_queries, num_candidates, length = batch["document_ids"].shape
    documents = {
        "input_ids": batch["document_ids"].reshape(num_queries * num_candidates, length),
        "mask": batch["document_mask"].reshape(num_queries * num_candidates, length),
    }
    score = partial(_score_documents, module, batch["query_ids"], batch["query_mask"])
    scores_RQ = score_by_chunks(score, documents, chunk, key)
    scores_QGC = scores_RQ.T.reshape(num_queries, num_queries, num_candidates)
    order_QG = group_order(num_queries)
    return jnp.take_along_axis(scores_QGC, order_QG[..., None], axis=1).reshape(num_queries, -1)


def group_order(num_queries: int) -> Int[Array, "Q Q"]:
    """Whose documents each query meets one after the other: its own, the next group's, and so on.

    >>> group_order(3).tolist()
    [[0, 1, 2], [1, 2, 0], [2, 0, 1]]
    """
    numbers = jnp.arange(num_queries, dtype=jnp.int32)
    return (numbers[:, None] + numbers[None, :]) % num_queries


def count_tokens(batch: Mapping[str, Array]) -> tuple[Int[Array, ""], int]:
    """Tokens that are run for pairs that count, and all that are run, of all parts of a batch.

    A document's are read once, those of a query run behind each document.
    """
    num_queries, num_candidates = batch["document_ids"].shape[-3:-1]
    is_pair, query_mask = batch["candidate_mask"], batch["query_mask"]
    is_document = is_pair[..., :num_candidates]
    of_documents = jnp.sum(batch["document_mask"] & is_document[..., None], dtype=jnp.int32)
    of_queries = jnp.sum(query_mask.sum(axis=-1) * is_pair.sum(axis=-1), dtype=jnp.int32)
    all_of_queries = num_queries * num_candidates * query_mask.size
    return of_documents + of_queries, batch["document_mask"].size + all_of_queries


def _score_documents(
    module: RerankerModule,
    query_ids: Array,
    query_mask: Array,
    documents: Mapping[str, Array],
    key: Array | None,
) -> Float32[Array, "R Q"]:
    """Read R documents and score each with all queries."""

    def draw(number: Array | int) -> Array | None:
        return None if key is None else jax.random.fold_in(key, number)

    num_queries, num_documents = len(query_ids), len(documents["input_ids"])
    read = with_dropout_keys(module, draw(num_queries)).read_prefix(**documents)
    # Widened, so that the gradients of all queries add up in float32.
    arrays = {name: array.astype(jnp.float32) for name, array in read.arrays.items()}
    state = State(arrays, read.lengths)

    @partial(jax.checkpoint, prevent_cse=False)  # inside a loop there is nothing to share
    def score_query(query: tuple[Array, Array, Array]) -> Array:
        ids, mask, number = query
        query_key = draw(number)
        return with_dropout_keys(module, query_key).score_continuation(
            state,
            jnp.broadcast_to(ids, (num_documents, *ids.shape)),
            mask=jnp.broadcast_to(mask, (num_documents, *mask.shape)),
            key=query_key,
        )

    return jax.lax.map(score_query, (query_ids, query_mask, jnp.arange(num_queries))).T
