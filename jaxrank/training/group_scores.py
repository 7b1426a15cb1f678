"""The scores of a training batch's groups, all at once or chunk by chunk."""

from collections.abc import Callable, Mapping
from functools import partial

import jax
import jax.numpy as jnp

from jaxrank.models.lora import with_dropout_keys
from jaxrank.models.module import RerankerModule
from jaxrank.models.packing import Packing
from jaxrank.shapes import Array, Float32, Key


def score_groups(
    module: RerankerModule,
    batch: Mapping[str, Array],
    *,
    key: Key[Array, ""] | None = None,
    chunk: int | None = None,
) -> Float32[Array, "Q C"]:
    """Scores of a batch's candidates, padded or packed; see `make_train_step`.

    With `chunk` that many sequences (packed: rows) are scored at a time, and the backward pass
    scores each chunk again: what it keeps of the forward pass is the scores. Dropout is another
    one in each chunk.
    """
    is_packed = "segment_ids" in batch

    def score(rows: Mapping[str, Array], key: Array | None) -> Array:
        keyed = with_dropout_keys(module, key)
        if not is_packed:
            return keyed(**rows, key=key)
        rest = {name: rows[name] for name in ("input_ids", "token_type_ids")}
        packing = Packing(*(rows[name] for name in Packing._fields))
        return keyed.score_packed(**rest, packing=packing, key=key)

    if is_packed:
        rows = {name: batch[name] for name in ("input_ids", "token_type_ids", *Packing._fields)}
        scores_RT = score_by_chunks(score, rows, chunk, key)
        return jnp.take(scores_RT.reshape(-1), batch["places"], axis=0)
    num_queries, num_candidates, length = batch["input_ids"].shape
    rows = {
        name: batch[name].reshape(num_queries * num_candidates, length)
        for name in ("input_ids", "mask", "token_type_ids")
    }
    return score_by_chunks(score, rows, chunk, key).reshape(num_queries, num_candidates)


def score_by_chunks(
    score: Callable[[Mapping[str, Array], Array | None], Array],
    rows: Mapping[str, Array],
    chunk: int | None,
    key: Array | None,
) -> Array:
    """`score` of all rows, at most `chunk` at a time, computed again for the backward pass."""
    count = len(rows["input_ids"])
    if chunk is None or chunk >= count:
        return score(rows, key)
    num_chunks = -(-count // chunk)

    def split(x: Array) -> Array:
        # The first rows fill the last places up. Every chunk takes rows from all over, so that
        # where they are spread over devices, each chunk is.
        filled = jnp.concatenate([x, x[: chunk * num_chunks - count]])
        return jnp.swapaxes(filled.reshape(chunk, num_chunks, *x.shape[1:]), 0, 1)

    @partial(jax.checkpoint, prevent_cse=False)  # inside a loop there is nothing to share
    def score_chunk(step: tuple[Mapping[str, Array], Array]) -> Array:
        part, number = step
        return score(part, None if key is None else jax.random.fold_in(key, number))

    parts = {name: split(x) for name, x in rows.items()}
    scores = jax.lax.map(score_chunk, (parts, jnp.arange(num_chunks)))
    return jnp.swapaxes(scores, 0, 1).reshape(-1, *scores.shape[2:])[:count]
