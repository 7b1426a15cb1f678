"""The shortest time that a device could take: counted operations and bytes over what it can do.

A part of the work keeps several units of the device busy at once, so it takes at least as long as
the busiest of them; parts follow each other, so their times add up. The units, and what counts:

    matmul   multiplications and additions of matrix products, two for each term
    memory   bytes of what must come in and go out, each once
    exp      exponentials, logarithms and reciprocals, which the special-function units make at 16 a
             clock and multiprocessor
    issue    clocks in which a multiprocessor issues instructions, where they have been counted in
             compiled code

Of whole models that train or score, the rows show no such floor but the model FLOPs utilisation.
Those FLOPs are counted as in `jaxrank.training.throughput`, PaLM's way: causal attention whole,
where the floor of attention alone is half of it. For pythia-410m at 512 tokens that is 4% of all.

What an implementation does besides (recomputation, kept states, padding) is not counted, but for
the scores that attention's backward pass has to compute again since nobody keeps them. Letters as
in `jaxrank.ops`; T is the number of tokens, s the bytes of a number.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxrank.benchmarking.cases import (
    AttentionShape,
    Case,
    Direction,
    DType,
    ScanShape,
    SsdShape,
)
from jaxrank.training.throughput import find_peak_tflops

SPECIAL_A_CLOCK = 16
SSD_CHUNK = 128


@dataclass(frozen=True)
class Device:
    """What a device can do in a second."""

    name: str
    matmul: Mapping[DType, float]
    """Operations; float32 is TF32, JAX's default there."""
    memory: float
    """Bytes."""
    clocks: float
    """Of all multiprocessors together."""
    is_hopper: bool

    @property
    def exp(self) -> float:
        """Special functions."""
        return SPECIAL_A_CLOCK * self.clocks


def _device(
    name: str,
    *,
    terabytes: float,
    multiprocessors: int,
    gigahertz: float,
    is_hopper: bool,
) -> Device:
    tflops = find_peak_tflops(name)
    assert tflops is not None
    return Device(
        name,
        matmul={"bfloat16": 1e12 * tflops, "float32": 0.5e12 * tflops},
        memory=1e12 * terabytes,
        clocks=1e9 * gigahertz * multiprocessors,
        is_hopper=is_hopper,
    )


# Memory: NVIDIA's data sheets of the H200, the H100 and the A100. Multiprocessors: the white papers
# of both architectures. Clocks: the highest of the SXM modules; an H200 under load was seen to hold
# it. Its data sheet's matrix products go with 1.83 GHz, so that unit may beat its figure a little.
# 16 special functions a clock and multiprocessor on compute capability 8.0 and 9.0: CUDA C++
# Programming Guide, table of arithmetic instructions' throughput.
DEVICES: tuple[Device, ...] = (
    _device("NVIDIA H200", terabytes=4.8, multiprocessors=132, gigahertz=1.98, is_hopper=True),
    _device(
        "NVIDIA H100 80GB HBM3",
        terabytes=3.35,
        multiprocessors=132,
        gigahertz=1.98,
        is_hopper=True,
    ),
    _device(
        "NVIDIA A100-SXM4-80GB",
        terabytes=2.039,
        multiprocessors=108,
        gigahertz=1.41,
        is_hopper=False,
    ),
    _device(
        "NVIDIA A100-SXM4-40GB",
        terabytes=1.555,
        multiprocessors=108,
        gigahertz=1.41,
        is_hopper=False,
    ),
)
"""The devices whose floors are known, by JAX's `device_kind`."""


@dataclass(frozen=True)
class Work:
    """A part of what is to be done."""

    name: str
    matmul: float | int = 0
    memory: float | int = 0
    exp: float | int = 0
    issue: float | int = 0
    """Clocks of a multiprocessor of the Hopper architecture."""


def find_device(device_kind: str) -> Device | None:
    """The device of that kind; None where its figures are not known, as of any CPU."""
    for device in DEVICES:
        if device_kind.startswith(device.name):
            return device
    return None


def floor_terms(parts: Sequence[Work], device: Device, dtype: DType) -> dict[str, float]:
    """Seconds of each unit for all parts together, for those that have something to do."""
    terms = [_seconds(part, device, dtype) for part in parts]
    totals = {unit: sum(seconds[unit] for seconds in terms) for unit in terms[0]}
    return {unit: seconds for unit, seconds in totals.items() if seconds}


def floor_seconds(parts: Sequence[Work], device: Device, dtype: DType) -> float:
    """Seconds below which the work cannot be done: of each part its busiest unit's."""
    return sum(max(_seconds(part, device, dtype).values()) for part in parts)


def count_operation(case: Case) -> list[Work]:
    """The work of a scan, of Mamba-2's recurrence or of attention, forward part before backward."""
    shape = case.shape
    assert isinstance(shape, ScanShape | SsdShape | AttentionShape)
    size = 2 if case.dtype == "bfloat16" else 4
    passes = passes_of(case.direction)
    return [_count_operation(shape, size, is_backward=is_backward) for is_backward in passes]


def passes_of(direction: Direction) -> tuple[bool, ...]:
    """Whether each pass of a direction is the backward one."""
    return {"forward": (False,), "backward": (True,)}.get(direction, (False, True))


def count_scan(shape: ScanShape, size: int, *, is_backward: bool) -> Work:
    """A selective scan with softplus, gate and skip.

    exp: for each channel of each token N decays, and beside them
        forward    softplus (exp, log), gate (exp, reciprocal)               T D (N + 4)
        backward   those, and the sigmoid of the step (exp, reciprocal)      T D (N + 6)
    memory:
        forward    u, delta, z in, y out, each T D s; B and C, 2 T N 4
        backward   u, delta, z and y's cotangent in, three cotangents out, each T D s; B and C in,
                   theirs out, 4 T N 4
    issue: 37 clocks forward and 106 backward for 32 channels of 16 states of a token, as counted in
        code that was compiled for compute capability 9.0.
    """
    tokens = shape.batch * shape.length
    channels, states = tokens * shape.channels, shape.states
    return Work(
        "scan backward" if is_backward else "scan forward",
        memory=(7 if is_backward else 4) * channels * size
        + (4 if is_backward else 2) * tokens * states * 4,
        exp=channels * (states + (6 if is_backward else 4)),
        issue=(106 if is_backward else 37) * channels / 32 * states / 16,
    )


def count_ssd(shape: SsdShape, size: int, *, is_backward: bool) -> Work:
    """Mamba-2's recurrence in chunks of Q = 128 tokens.

    matmul, forward, for each token: scores of its group 2 Q N, and for each head the scores' use
        2 Q P, what is written to the states 2 P N and read from them 2 P N. Backward twice that.
    memory: forward x and y, T H P s each, B and C, 2 T G N s, and dt, 4 T H. Backward x, y's
        cotangent and x's, B, C, dt and theirs.
    """
    tokens = shape.batch * shape.length
    chunk = min(SSD_CHUNK, shape.length)
    head = 2 * chunk * shape.head_size + 4 * shape.head_size * shape.states
    matmul = tokens * (shape.groups * 2 * chunk * shape.states + shape.heads * head)
    inner = tokens * shape.heads * shape.head_size * size
    shared = tokens * (2 * shape.groups * shape.states * size + 4 * shape.heads)
    if is_backward:
        return Work("ssd backward", matmul=2 * matmul, memory=3 * inner + 2 * shared)
    return Work("ssd forward", matmul=matmul, memory=2 * inner + shared)


def count_attention(shape: AttentionShape, size: int, *, is_backward: bool) -> Work:
    """Attention of L tokens to themselves, or to those up to each, which is half of it.

    matmul: forward two products, 4 B H L^2 K; backward five, with the scores computed again.
    memory: forward queries, keys, values and the output; backward those, four cotangents.
    """
    share = 0.5 if shape.is_causal else 1.0
    heads = shape.batch * shape.heads
    product = 2 * heads * shape.length**2 * shape.head_size * share
    array = heads * shape.length * shape.head_size * size
    if is_backward:
        return Work("attention backward", matmul=5 * product, memory=8 * array)
    return Work("attention forward", matmul=2 * product, memory=4 * array)


def count_layer(case: Case, backbone: Any, *, products: int, is_causal: bool) -> list[Work]:
    """One layer: its products with weights, the operation that mixes tokens, and what lies between.

    matmul: 2 for each token and number in a kernel forward, 4 backward.
    memory of what lies between, forward, backward twice: the norms with the sums into the residual
        stream, which comes and goes, and a state-space layer's convolution, in and out, and in
        Mamba-2 the gated norm. What can be done while a product writes (biases, activations) is
        not counted.

    Args:
        backbone: the configuration of the preset.
        products: numbers in the kernels of the layer.
        is_causal: whether its attention, if it has any, looks back alone.
    """
    size = 2 if case.dtype == "bfloat16" else 4
    tokens, width = case.tokens, backbone.hidden_size
    batch, length = case.shape.batch, case.shape.length
    between = 6 * width * size
    operation: ScanShape | SsdShape | AttentionShape
    if case.operation == "attention":
        heads = backbone.num_heads
        operation = AttentionShape(batch, length, heads, width // heads, is_causal=is_causal)
    else:
        inner, states = backbone.inner_size, backbone.state_size
        stream = 4 if backbone.residual_in_float32 else size
        between = 2 * width * (stream + size) + 2 * inner * size
        operation = ScanShape(batch, length, inner, states)
        if case.operation == "ssd":
            groups = backbone.num_groups
            operation = SsdShape(
                batch, length, backbone.num_heads, backbone.head_size, groups, states
            )
            between += (4 * groups * states + 3 * inner) * size
    parts = []
    for is_backward in passes_of(case.direction):
        times = 2 if is_backward else 1
        parts += [
            Work("products", matmul=2 * times * tokens * products),
            _count_operation(operation, size, is_backward=is_backward),
            Work("norms and sums", memory=times * tokens * between),
        ]
    return parts


def _count_operation(
    shape: ScanShape | SsdShape | AttentionShape, size: int, *, is_backward: bool
) -> Work:
    if isinstance(shape, ScanShape):
        return count_scan(shape, size, is_backward=is_backward)
    if isinstance(shape, SsdShape):
        return count_ssd(shape, size, is_backward=is_backward)
    return count_attention(shape, size, is_backward=is_backward)


def _seconds(part: Work, device: Device, dtype: DType) -> dict[str, float]:
    return {
        "matmul": part.matmul / device.matmul[dtype],
        "memory": part.memory / device.memory,
        "exp": part.exp / device.exp,
        "issue": part.issue / device.clocks if device.is_hopper else 0.0,
    }
