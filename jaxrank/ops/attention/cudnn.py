"""Attention in cuDNN's fused kernel, through `jax.nn.dot_product_attention`.

What keeps cuDNN from a call, and how a call is put to it:

- Padding on the right goes as lengths, which costs no memory. Every call has lengths, full ones if
  need be: where cuDNN filled up the last block of keys by itself, its backward pass gave NaN
  (NVIDIA/cudnn-frontend, issues 160 and 1072; pytorch, issue 196678).
- No lengths of queries: cuDNN does not say what it leaves behind a query's padding. Padding attends
  to the real keys, as in the plain path.
- A causal window goes as such. jax hands on no window that looks ahead, so others are a mask, as
  are any other masks and segments: each score is computed, and the mask lies in memory as numbers
  of two bytes, (B, 1, L, S) at most, H times that with a bias. (cuDNN has a layout for packed
  texts; jax's public function does not reach it.)
- Causality counts from the first key. Queries that stand further on get it as a mask.
- A bias has a gradient. It is rounded to the dtype of the queries, as cuDNN demands: in float32 it
  was read wrongly (jax, issue 32242).
- On several devices the lengths and segments must be spread as the queries are, which those that
  come with a batch are; jax sees to it for queries, keys and values alone.
- There is no dropout but one whose seed is fixed at compilation, so here is none.

Sources: `jax/_src/cudnn/fused_attention_stablehlo.py` of jax 0.10.2 and 0.11.2, and the checks of
cudnn-frontend, `scaled_dot_product_flash_attention.h`.
"""

import functools
import math

import jax
import jax.numpy as jnp

from jaxrank.ops.attention.visibility import Visibility, visible_keys


def cudnn_obstacle(query: jax.Array, key: jax.Array, dropout_rate: float) -> str | None:
    """Why cuDNN cannot do this, or None if it can, the gradients included."""
    if dropout_rate > 0.0:
        return "it has no attention dropout; set the rate to 0 or take 'xla'"
    if jax.default_backend() != "gpu":
        return f"it needs an NVIDIA GPU, and this is {jax.default_backend()}"
    capability = _compute_capability()
    if capability < 8.0:
        return "it needs an NVIDIA GPU of compute capability 8.0 or more"
    if query.dtype not in (jnp.float16, jnp.bfloat16):
        return f"it needs float16 or bfloat16, not {query.dtype}"
    # Blackwell (10, 12) is back at 128.
    widest = 256 if 9.0 <= capability < 10.0 else 128
    if query.shape[-1] % 8 or query.shape[-1] > widest:
        return f"heads are {query.shape[-1]} wide; it needs a multiple of 8 up to {widest}"
    if 1 in (query.shape[1], key.shape[1]):
        return "it needs more than one query and one key"
    # Of a bias, says jax's message; its check for gradients takes every call for one with a bias.
    if query.shape[1] % 2 or key.shape[1] % 2:
        return f"it needs even lengths, not {query.shape[1]} and {key.shape[1]}"
    return None


def added_bytes(
    query: jax.Array, key: jax.Array, visibility: Visibility, bias: jax.Array | None
) -> int:
    """Bytes of what cuDNN would be given to add to the scores: bias and mask, laid out as one."""
    mask = jax.eval_shape(lambda: _mask(query, key, visibility, bias))
    shapes = [added.shape for added in (mask, bias) if added is not None]
    return 2 * math.prod(jnp.broadcast_shapes(*shapes)) if shapes else 0


def attention_cudnn(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    visibility: Visibility,
    bias: jax.Array | None,
    *,
    scale: float,
) -> jax.Array:
    """Attend; arguments and result as in `attention`, with every default resolved."""
    lengths = visibility.key_lengths
    if lengths is None:
        lengths = jnp.full(len(query), key.shape[1])
    window = _own_window(query, key, visibility, bias)
    return jax.nn.dot_product_attention(
        query,
        key,
        value,
        bias=None if bias is None else bias.astype(query.dtype),
        mask=_mask(query, key, visibility, bias),
        scale=scale,
        is_causal=_is_own_causality(visibility),
        # At least one, so that a sequence without any key gets finite values.
        key_value_seq_lengths=jnp.clip(lengths, 1, key.shape[1]).astype(jnp.int32),
        local_window_size=None if window is None else (window, 0),
        implementation="cudnn",
    )


def _mask(
    query: jax.Array, key: jax.Array, visibility: Visibility, bias: jax.Array | None
) -> jax.Array | None:
    """The rules that cuDNN does not know, (1 or B, 1, L, S)."""
    others = visibility._replace(key_lengths=None)
    if _is_own_causality(visibility):
        others = others._replace(is_causal=False)
    if _own_window(query, key, visibility, bias) is not None:
        others = others._replace(window=None)
    length, num_keys = query.shape[1], key.shape[1]
    rules = visible_keys(others, jnp.arange(length), num_keys)
    if not rules:
        return None
    mask = functools.reduce(jnp.logical_and, rules)
    # jax hands the mask on as a bias, which must have all queries.
    return jnp.broadcast_to(mask, (len(mask), 1, length, num_keys))


def _is_own_causality(visibility: Visibility) -> bool:
    """Whether the call is causal as cuDNN understands it: the first query at the first key."""
    return visibility.is_causal and visibility.query_offset == 0


def _own_window(
    query: jax.Array, key: jax.Array, visibility: Visibility, bias: jax.Array | None
) -> int | None:
    """The window if it is one of cuDNN's: known at compilation, looking back, nothing added."""
    window = visibility.window
    others = (visibility.mask, visibility.segment_ids, bias)
    is_alone = _is_own_causality(visibility) and all(other is None for other in others)
    if isinstance(window, int) and is_alone and query.shape[1] == key.shape[1]:
        return window
    return None


def _compute_capability() -> float:
    try:
        return float(getattr(jax.devices()[0], "compute_capability", 0.0))
    except ValueError:  # a GPU that is not NVIDIA's names its architecture there
        return 0.0
