"""The call: what `attention` takes, what it checks, and which implementation "auto" is.

Letters as in `jaxrank.shapes`: queries have length L and H heads, keys and values length S and
`kv` heads, each of which serves H / kv heads of the queries (grouped-query attention).
"""

import math

import jax
import jax.numpy as jnp

from jaxrank.ops.arguments import check_array, check_implementation, check_rank, log_choice
from jaxrank.ops.attention.blocks import attention_blocks
from jaxrank.ops.attention.cudnn import added_bytes, attention_cudnn, cudnn_obstacle
from jaxrank.ops.attention.visibility import Visibility
from jaxrank.ops.attention.xla import attention_xla
from jaxrank.shapes import Array, Bool, Float, Int, Key

SCORES_BYTES = 2**30
"""Bytes of scores from which on "auto" takes blocks, and of a bias from which on it leaves cuDNN.
A training step holds about four arrays of that size at once: 4 GiB, besides the model. Of a batch
that is spread over devices all sequences count, so each device holds its share of them."""


def attention(
    query: Float[Array, "B L H K"],
    key: Float[Array, "B S kv K"],
    value: Float[Array, "B S kv K"],
    *,
    mask: Bool[Array, "B S"] | None = None,
    key_lengths: Int[Array, " B"] | None = None,
    segment_ids: Int[Array, "B L"] | None = None,
    key_segment_ids: Int[Array, "B S"] | None = None,
    bias: Float[Array, "_ H L S"] | None = None,
    is_causal: bool = False,
    window: int | Int[Array, ""] | None = None,
    query_offset: int = 0,
    scale: float | None = None,
    dropout_rate: float = 0.0,
    dropout_key: Key[Array, ""] | None = None,
    implementation: str = "auto",
) -> Float[Array, "B L H K"]:
    """Attend: softmax(scale query key^T + bias) value, the softmax in float32.

    "cudnn" is `jax.nn.dot_product_attention`. "xla" is ours: that function has no dropout, and on a
    CPU it took 1.2 times as long forward and 1.4 times with gradients (32 x 128 x 12 x 32).
    "blocks" is "xla" a block of queries at a time, in less memory and more time.

    Dropout on the attention probabilities exists in "xla" and "blocks" alone, and is the same in
    both: cuDNN's takes a seed that is fixed at compilation. So a model that trains with attention
    dropout (the papers' BERT: 0.1) computes its scores in XLA, and a run on cuDNN has to set that
    dropout to 0, which departs from the papers and must be said in its config. No path drops the
    dropout in silence: "auto" leaves cuDNN when there is any, and an explicit "cudnn" raises.

    Args:
        mask: the keys that may be attended to. A sequence without any gets finite values that
            mean nothing.
        key_lengths: how many keys of each sequence may be attended to, the first ones: padding on
            the right. It says less than a mask, and cuDNN takes it without laying it out.
        segment_ids: which of the texts that share a row each query belongs to; it attends to that
            text's keys alone. 0 is padding, a text like the others here. The tokens of a text stand
            side by side, so `is_causal`, `window` and `bias` mean the same as in a row of its own.
            Every score is computed all the same: a longer row costs more.
        key_segment_ids: the same of the keys; None: `segment_ids`.
        bias: added to the scaled scores; the first axis is 1 or B.
        is_causal: position t attends to keys up to t.
        window: position t attends to keys from t - window to t + window. An array may be another
            one for each layer of a scan.
        query_offset: position of the first query among the keys, where keys of tokens that were
            read before stand in front of its own; `is_causal` and `window` count from there.
        scale: 1 / sqrt(K) if None.
        dropout_rate, dropout_key: no key, no dropout.
        implementation: "xla", "blocks", "cudnn" (NVIDIA GPU; float16 or bfloat16), or "auto":
            "cudnn" where it can, else "xla", or "blocks" where the scores take SCORES_BYTES.

    Raises:
        ValueError: a shape or dtype does not fit, or cuDNN cannot do what was asked.
    """
    if key_segment_ids is None:
        key_segment_ids = segment_ids
    check_arguments(query, key, value, mask, key_lengths, segment_ids, key_segment_ids, bias)
    if isinstance(window, int) and window < 0:
        raise ValueError(f"window: {window} came; at least 0 is needed")
    if query_offset < 0:
        raise ValueError(f"query_offset: {query_offset} came; at least 0 is needed")
    check_implementation("attention", implementation, ["xla", "blocks", "cudnn"])
    if dropout_key is None:
        dropout_rate = 0.0
    visibility = Visibility(
        mask, key_lengths, segment_ids, key_segment_ids, is_causal, window, query_offset
    )
    if implementation in ("auto", "cudnn"):
        obstacle = cudnn_obstacle(query, key, dropout_rate)
        if implementation == "cudnn" and obstacle:
            raise ValueError(f"attention: implementation 'cudnn' came, but {obstacle}")
        if implementation == "auto":
            implementation = _choose(query, key, visibility, bias, obstacle)
    scale = 1.0 / math.sqrt(query.shape[-1]) if scale is None else scale
    if implementation == "cudnn":
        return attention_cudnn(query, key, value, visibility, bias, scale=scale)
    attend = attention_blocks if implementation == "blocks" else attention_xla
    return attend(
        query,
        key,
        value,
        visibility,
        bias,
        scale=scale,
        dropout_rate=dropout_rate,
        dropout_key=dropout_key,
    )


def _choose(
    query: jax.Array,
    key: jax.Array,
    visibility: Visibility,
    bias: jax.Array | None,
    obstacle: str | None,
) -> str:
    """What "auto" stands for in this call; logged with the reason."""
    if obstacle is None and added_bytes(query, key, visibility, bias) >= SCORES_BYTES:
        obstacle = "its bias, with mask and segments in it, would be as large as scores may be"
    if obstacle is None:
        log_choice("attention", "cudnn")
        return "cudnn"
    batch, length, heads, _ = query.shape
    is_large = 4 * batch * heads * length * key.shape[1] >= SCORES_BYTES
    implementation = "blocks" if is_large else "xla"
    log_choice("attention", implementation, f"not 'cudnn': {obstacle}")
    return implementation


def check_arguments(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: jax.Array | None,
    key_lengths: jax.Array | None,
    segment_ids: jax.Array | None,
    key_segment_ids: jax.Array | None,
    bias: jax.Array | None,
) -> None:
    """Raise ValueError, naming the argument, if shapes or dtypes do not fit each other."""
    check_rank("query", query, "B L H K")
    check_rank("key", key, "B S H K")
    batch, length, heads, width = query.shape
    keys, key_heads = key.shape[1:3]
    check_array("query", query, query.shape)
    for name, array in (("key", key), ("value", value)):
        check_array(name, array, (batch, keys, key_heads, width), query.dtype.type)
    if heads % key_heads:
        raise ValueError(f"key: {key_heads} heads came; a divisor of the query's {heads} is needed")
    check_array("mask", mask, (batch, keys), jnp.bool_)
    check_array("key_lengths", key_lengths, (batch,), jnp.integer)
    if segment_ids is None and key_segment_ids is not None:
        raise ValueError("key_segment_ids: came without segment_ids")
    for name, ids, tokens in (
        ("segment_ids", segment_ids, length),
        ("key_segment_ids", key_segment_ids, keys),
    ):
        check_array(name, ids, (batch, tokens), jnp.integer)
    if bias is not None:
        first = bias.shape[0] if bias.shape[:1] in ((1,), (batch,)) else batch
        check_array("bias", bias, (first, heads, length, keys))
