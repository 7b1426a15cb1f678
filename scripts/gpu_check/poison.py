"""Checks that nothing is left unwritten: the same results from memory that is full of NaN.

Two things are done. Outputs are given memory that holds NaN for sure: a donated argument of their
shape, which XLA makes them alias (the compiled function says how many bytes it aliases, and that is
looked at). Temporaries, such as kept states and partial sums, come from the allocator's free
memory: as much of it as can be had is filled with NaN first and given back. That reaches them with
all but certainty on a GPU, where the allocator hands out what was given back; it proves nothing on
a CPU. The gradients' kernels then read what the forward kernel left in such memory.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from jaxrank.ops.attention import attention
from jaxrank.ops.conv import causal_conv1d
from jaxrank.ops.selective_scan import selective_scan
from jaxrank.ops.ssd import ssd
from scripts.gpu_check.inputs import full_attention, full_scan, full_ssd
from scripts.gpu_check.rows import Row, Sizes, go_on
from scripts.gpu_check.scan import CHANNELS, mosaic_scan

MAY_DIFFER = ("attention cudnn",)
"""cuDNN adds up a backward pass in any order; its bits are reported and not demanded."""
PIECE_BYTES = 2**28
SHARE = 0.8
"""Of the free memory that is filled; the rest is room for what the call itself asks for."""


def subjects(sizes: Sizes) -> Iterator[tuple[str, Callable[..., jax.Array], dict[str, jax.Array]]]:
    """Name, function and full-size arguments of what is poisoned, and repeated elsewhere.

    The Mosaic scan comes last: it could hang, or end the process, and the others with it.
    """
    on_gpu = jax.default_backend() == "gpu"
    inputs = full_scan(sizes, sizes.channels)
    yield "associative scan", _named(selective_scan, implementation="associative"), inputs
    yield "ssd", ssd, full_ssd(sizes)
    conv = {"x": inputs["u"], "weight": jnp.ones((sizes.channels, 4))}
    yield "causal_conv1d", _named(causal_conv1d, activation="silu"), conv
    tokens = full_attention(sizes)
    lengths = jnp.arange(sizes.batch) % sizes.length + 1
    for name in ("xla", "blocks", "cudnn")[: 3 if on_gpu else 2]:
        padded = _named(attention, implementation=name, key_lengths=lengths, is_causal=True)
        yield f"attention {name}", padded, tokens
    mosaic, _ = mosaic_scan(sizes)
    if mosaic is None:
        return
    inputs = full_scan(sizes, sizes.channels if on_gpu else CHANNELS)

    def run(**arguments: jax.Array) -> jax.Array:
        return mosaic(**arguments)[0]

    yield "mosaic scan", run, inputs
    few = {name: x[:1] if x.ndim == 3 else x for name, x in inputs.items()}
    yield "mosaic scan, one sequence in segments", _named(run, segments=2), few


def with_gradients(
    function: Callable[..., jax.Array],
) -> Callable[[dict[str, jax.Array]], dict[str, jax.Array]]:
    """Outputs and the gradient of every argument, for a cotangent that is the output itself."""

    def both(inputs: dict[str, jax.Array]) -> dict[str, jax.Array]:
        output, pull = jax.vjp(lambda inputs: function(**inputs), inputs)
        return {"output": output, **pull(output)[0]}

    return both


def check_poisoned(sizes: Sizes) -> Iterator[Row]:
    """Outputs and gradients from poisoned memory: finite, and the same bits as before."""
    for name, function, inputs in subjects(sizes):
        yield from go_on("poisoned", name, _poisoned(name, function, inputs))


def _poisoned(
    name: str, function: Callable[..., jax.Array], inputs: dict[str, jax.Array]
) -> Iterator[Row]:
    both = with_gradients(function)
    clean = jax.jit(both)(inputs)
    shapes = jax.eval_shape(both, inputs)

    def into(poison: Any, inputs: Any) -> Any:
        del poison  # only its memory is wanted
        return both(inputs)

    compiled = jax.jit(into, donate_argnums=0, keep_unused=True).lower(shapes, inputs).compile()
    filled = poison_free_memory()
    poison = jax.tree.map(lambda x: jnp.full(x.shape, jnp.nan, x.dtype), shapes)
    size = sum(x.nbytes for x in jax.tree.leaves(poison))
    aliased = compiled.memory_analysis().alias_size_in_bytes
    got = compiled(jax.block_until_ready(poison), inputs)
    finite = all(bool(jnp.all(jnp.isfinite(x))) for x in jax.tree.leaves(got))
    same = same_bits(clean, got)
    faults = {
        "NaN came out of memory that nothing wrote": not finite,
        "the outputs did not take the poisoned memory": aliased < size,
        "other bits than from clean memory": not same and name not in MAY_DIFFER,
    }
    found = [fault for fault, is_there in faults.items() if is_there]
    yield Row(
        "poisoned",
        name,
        ok=not found,
        measured={
            "aliased_share": aliased / size,
            "filled_mib": filled / 2**20,
            "same_bits": float(same),
        },
        note="; ".join(found) or "finite",
    )


def poison_free_memory() -> int:
    """Fill most of the device's free memory with NaN and give it back; returns bytes."""
    stats = jax.devices()[0].memory_stats() or {}
    if "bytes_limit" not in stats:
        return 0
    free = stats["bytes_limit"] - stats["bytes_in_use"]
    count = int(SHARE * free) // PIECE_BYTES
    pieces = [jnp.full(PIECE_BYTES // 4, jnp.nan, jnp.float32) for _ in range(count)]
    jax.block_until_ready(pieces)
    return count * PIECE_BYTES


def same_bits(one: Any, other: Any) -> bool:
    """Whether all arrays of two trees hold the same bits."""

    @jax.jit
    def same(one: jax.Array, other: jax.Array) -> jax.Array:
        bits = {2: jnp.uint16, 4: jnp.uint32}[one.dtype.itemsize]
        return jnp.all(
            jax.lax.bitcast_convert_type(one, bits) == jax.lax.bitcast_convert_type(other, bits)
        )

    return all(
        bool(same(a, b)) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    )


def _named(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    def call(**arguments: jax.Array) -> Any:
        return function(**arguments, **options)

    return call
