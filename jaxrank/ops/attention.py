"""Softmax attention: one call, over plain XLA or over cuDNN's fused kernel.

Letters as in `jaxrank.shapes`: queries have length L and H heads, keys and values length S and
`kv` heads, each of which serves H / kv heads of the queries (grouped-query attention).
"""

import math

import jax
import jax.numpy as jnp

from jaxrank.ops.arguments import check_array, check_implementation, check_rank, log_choice
from jaxrank.ops.dropout import dropout
from jaxrank.shapes import Array, Bool, Float, Int, Key


def attention(
    query: Float[Array, "B L H K"],
    key: Float[Array, "B S kv K"],
    value: Float[Array, "B S kv K"],
    *,
    mask: Bool[Array, "B S"] | None = None,
    segment_ids: Int[Array, "B L"] | None = None,
    key_segment_ids: Int[Array, "B S"] | None = None,
    bias: Float[Array, "_ H L S"] | None = None,
    is_causal: bool = False,
    window: int | Int[Array, ""] | None = None,
    scale: float | None = None,
    dropout_rate: float = 0.0,
    dropout_key: Key[Array, ""] | None = None,
    implementation: str = "auto",
) -> Float[Array, "B L H K"]:
    """Attend: softmax(scale query key^T + bias) value, the softmax in float32.

    "cudnn" is `jax.nn.dot_product_attention`. "xla" is ours: that function has no dropout, and on a
    CPU it took 1.2 times as long forward and 1.4 times with gradients (32 x 128 x 12 x 32).

    Dropout on the attention probabilities exists in "xla" alone: cuDNN's takes a seed that is fixed
    at compilation. So a model that trains with attention dropout (the papers' BERT: 0.1)
    materialises its scores, and a run on cuDNN has to set that dropout to 0, which departs from the
    papers and must be said in its config. No path drops the dropout in silence: "auto" takes "xla"
    when there is any, and an explicit "cudnn" raises.

    Args:
        mask: the keys that may be attended to. A sequence without any gets finite values that
            mean nothing.
        segment_ids: which of the texts that share a row each query belongs to; it attends to that
            text's keys alone. 0 is padding, a text like the others here. The tokens of a text stand
            side by side, so `is_causal`, `window` and `bias` mean the same as in a row of its own.
            Every score is computed all the same: a longer row costs more.
        key_segment_ids: the same of the keys; None: `segment_ids`.
        bias: added to the scaled scores; the first axis is 1 or B.
        is_causal: position t attends to keys up to t.
        window: position t attends to keys from t - window to t + window. An array, say another one
            for each layer of a scan, and a window without `is_causal` are for "xla" alone.
        scale: 1 / sqrt(K) if None.
        dropout_rate, dropout_key: no key, no dropout.
        implementation: "xla", "cudnn" (NVIDIA GPU; float16 or bfloat16), or "auto": "cudnn" where
            it can and there is no bias, else "xla".

    Raises:
        ValueError: a shape or dtype does not fit, or cuDNN cannot do what was asked.
    """
    if key_segment_ids is None:
        key_segment_ids = segment_ids
    check_arguments(query, key, value, mask, segment_ids, key_segment_ids, bias)
    if isinstance(window, int) and window < 0:
        raise ValueError(f"window: {window} came; at least 0 is needed")
    check_implementation("attention", implementation, ["xla", "cudnn"])
    if dropout_key is None:
        dropout_rate = 0.0
    allowed = _allowed(mask, segment_ids, key_segment_ids)
    obstacle = _cudnn_obstacle(query, key, allowed, bias, is_causal, window, dropout_rate)
    if implementation == "cudnn" and obstacle:
        raise ValueError(f"attention: implementation 'cudnn' came, but {obstacle}")
    if implementation == "auto":
        implementation = "cudnn" if obstacle is None and bias is None else "xla"
        log_choice("attention", implementation)
    scale = 1.0 / math.sqrt(query.shape[-1]) if scale is None else scale
    if implementation == "xla":
        return _attention_xla(
            query, key, value, allowed, bias, is_causal, window, scale, dropout_rate, dropout_key
        )
    return jax.nn.dot_product_attention(
        query,
        key,
        value,
        bias=bias,
        # jax hands cuDNN the mask as a bias, which must have all queries.
        mask=None
        if allowed is None
        else jnp.broadcast_to(allowed, (len(query), 1, query.shape[1], key.shape[1])),
        scale=scale,
        is_causal=is_causal,
        local_window_size=None if window is None else int(window),
        implementation="cudnn",
    )


def check_arguments(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: jax.Array | None,
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


def _allowed(
    mask: jax.Array | None, segment_ids: jax.Array | None, key_segment_ids: jax.Array | None
) -> jax.Array | None:
    """The keys that each query may attend to, (B, 1, 1, S) or, with segments, (B, 1, L, S)."""
    allowed = None if mask is None else mask[:, None, None, :]
    if segment_ids is None or key_segment_ids is None:
        return allowed
    is_own = (segment_ids[:, :, None] == key_segment_ids[:, None, :])[:, None]
    return is_own if allowed is None else is_own & allowed


def _cudnn_obstacle(
    query: jax.Array,
    key: jax.Array,
    allowed: jax.Array | None,
    bias: jax.Array | None,
    is_causal: bool,
    window: int | jax.Array | None,
    dropout_rate: float,
) -> str | None:
    """Why cuDNN cannot do this, or None if it can (the rules of jax's cuDNN call, for training)."""
    if dropout_rate > 0.0:
        return "it has no attention dropout; set the rate to 0 or take 'xla'"
    if isinstance(window, jax.Array):
        return "it needs a window that is a plain number, known at compilation"
    if window is not None and not is_causal:
        return "its window looks back alone, so it needs is_causal"
    if jax.default_backend() != "gpu":
        return f"it needs an NVIDIA GPU, and this is {jax.default_backend()}"
    try:
        capability = float(getattr(jax.devices()[0], "compute_capability", 0.0))
    except ValueError:  # a GPU that is not NVIDIA's names its architecture there
        capability = 0.0
    if capability < 8.0:
        return "it needs an NVIDIA GPU of compute capability 8.0 or more"
    if query.dtype not in (jnp.float16, jnp.bfloat16):
        return f"it needs float16 or bfloat16, not {query.dtype}"
    widest = 256 if capability >= 9.0 else 128
    if query.shape[-1] % 8 or query.shape[-1] > widest:
        return f"heads are {query.shape[-1]} wide; it needs a multiple of 8 up to {widest}"
    has_bias = allowed is not None or bias is not None
    if has_bias and (query.shape[1] % 2 or key.shape[1] % 2):
        return "with a mask or bias it needs even lengths"
    return None


def _attention_xla(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    allowed: jax.Array | None,
    bias: jax.Array | None,
    is_causal: bool,
    window: int | jax.Array | None,
    scale: float,
    dropout_rate: float,
    dropout_key: jax.Array | None,
) -> jax.Array:
    # Heads in front make each head's matrices contiguous: on a CPU that pays for the copies.
    query, key, value = (jnp.swapaxes(x, 1, 2) for x in (query, key, value))
    group = query.shape[1] // key.shape[1]
    if group > 1:
        key, value = (jnp.repeat(x, group, axis=1) for x in (key, value))
    scores_BHLS = scale * jnp.einsum(
        "bhlk,bhsk->bhls", query, key, preferred_element_type=jnp.float32
    )
    if bias is not None:
        scores_BHLS = scores_BHLS + bias
    # Not -inf: a sequence without any key would get NaN.
    lowest = jnp.finfo(jnp.float32).min
    if allowed is not None:
        scores_BHLS = jnp.where(allowed, scores_BHLS, lowest)
    # How far a key lies behind the query: negative ones lie ahead.
    behind_LS = jnp.arange(query.shape[2])[:, None] - jnp.arange(key.shape[2])[None, :]
    if is_causal:
        scores_BHLS = jnp.where((behind_LS >= 0)[None, None], scores_BHLS, lowest)
    if window is not None:
        is_near_LS = jnp.abs(behind_LS) <= window
        scores_BHLS = jnp.where(is_near_LS[None, None], scores_BHLS, lowest)
    probabilities = jax.nn.softmax(scores_BHLS, axis=-1).astype(value.dtype)
    probabilities = dropout(probabilities, dropout_rate, dropout_key)
    return jnp.swapaxes(jnp.einsum("bhls,bhsk->bhlk", probabilities, value), 1, 2)
