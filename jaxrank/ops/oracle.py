"""Oracles in numpy float64 for the operations on sequences: what tests and checks compare with.

They follow the words of the contract (an absent token is left out, a reset empties the memory)
one token at a time, and share neither code nor formulas with the implementations. Gradients come
from the complex step: df/dx = imag f(x + i eps) / eps, exact to float64 since nothing cancels
(Squire and Trapp 1998). For that every array may carry leading axes, and nothing here may branch
on a value, take a maximum or an absolute value.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Arrays = Mapping[str, Any]
EPSILON = 1e-30


def selective_scan_oracle(
    *,
    u: np.ndarray,
    delta: np.ndarray,
    A: np.ndarray,
    B: np.ndarray,
    C: np.ndarray,
    D: np.ndarray | None = None,
    z: np.ndarray | None = None,
    delta_bias: np.ndarray | None = None,
    softplus: bool = True,
    initial_state: np.ndarray | None = None,
    reset: np.ndarray | None = None,
    mask: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return (y, final state) of `selective_scan`."""
    batch, length = u.shape[-3:-1]
    rows_y, rows_h = [], []
    for row in range(batch):
        h = np.zeros(A.shape) if initial_state is None else initial_state[..., row, :, :]
        ys = [np.zeros(u.shape[-1])] * length
        for t in _present(mask, row, length):
            if reset is not None and reset[row, t]:
                h = np.zeros(A.shape)
            step = delta[..., row, t, :]
            if delta_bias is not None:
                step = step + delta_bias
            if softplus:
                step = np.log1p(np.exp(step))
            x = u[..., row, t, :]
            write = (step * x)[..., :, None] * B[..., row, t, None, :]
            h = np.exp(step[..., :, None] * A) * h + write
            y = np.sum(h * C[..., row, t, None, :], axis=-1)
            if D is not None:
                y = y + D * x
            if z is not None:
                gate = z[..., row, t, :]
                y = y * gate / (1.0 + np.exp(-gate))
            ys[t] = y
        rows_y.append(_stack(ys, axis=-2))
        rows_h.append(h)
    return _stack(rows_y, axis=-3), _stack(rows_h, axis=-3)


def ssd_oracle(
    *,
    x: np.ndarray,
    dt: np.ndarray,
    A: np.ndarray,
    B: np.ndarray,
    C: np.ndarray,
    D: np.ndarray | None = None,
    initial_state: np.ndarray | None = None,
    reset: np.ndarray | None = None,
    mask: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return (y, final state) of `ssd`."""
    batch, length, heads, channels = x.shape[-4:]
    groups, states = B.shape[-2:]
    group_of_head = np.arange(heads) * groups // heads
    zero = np.zeros((heads, channels, states))
    rows_y, rows_h = [], []
    for row in range(batch):
        h = zero if initial_state is None else initial_state[..., row, :, :, :]
        ys = [np.zeros((heads, channels))] * length
        for t in _present(mask, row, length):
            if reset is not None and reset[row, t]:
                h = zero
            step = dt[..., row, t, :]
            moved = step[..., :, None] * x[..., row, t, :, :]
            write = moved[..., :, :, None] * B[..., row, t, group_of_head, :][..., :, None, :]
            h = np.exp(step * A)[..., :, None, None] * h + write
            y = np.sum(h * C[..., row, t, group_of_head, :][..., :, None, :], axis=-1)
            if D is not None:
                y = y + D[..., :, None] * x[..., row, t, :, :]
            ys[t] = y
        rows_y.append(_stack(ys, axis=-3))
        rows_h.append(h)
    return _stack(rows_y, axis=-4), _stack(rows_h, axis=-4)


def causal_conv1d_oracle(
    *,
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    activation: str | None = None,
    initial_state: np.ndarray | None = None,
    reset: np.ndarray | None = None,
    mask: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return (y, final state) of `causal_conv1d`."""
    batch, length, channels = x.shape[-3:]
    tail = weight.shape[-1] - 1
    zero = np.zeros(channels)
    rows_y, rows_state = [], []
    for row in range(batch):
        memory = [zero] * tail
        if initial_state is not None:
            memory = [initial_state[..., row, k, :] for k in range(tail)]
        ys = [zero] * length
        for t in _present(mask, row, length):
            if reset is not None and reset[row, t]:
                memory = [zero] * tail
            window = [*memory, x[..., row, t, :]]
            y = sum(weight[..., k] * window[k] for k in range(tail + 1))
            if bias is not None:
                y = y + bias
            if activation == "silu":
                y = y / (1.0 + np.exp(-y))
            ys[t] = y
            memory = window[1:]
        rows_y.append(_stack(ys, axis=-2))
        rows_state.append(_stack(memory, axis=-2) if memory else np.zeros((0, channels)))
    return _stack(rows_y, axis=-3), _stack(rows_state, axis=-3)


def oracle_gradients(
    oracle: Callable[..., tuple[np.ndarray, ...]],
    arguments: Arrays,
    names: Sequence[str],
    cotangents: tuple[np.ndarray, ...],
) -> dict[str, np.ndarray]:
    """Gradient of the sum of all outputs times their cotangents to each argument in `names`."""
    gradients = {}
    for name in names:
        value = np.asarray(arguments[name])
        directions = np.eye(value.size).reshape(value.size, *value.shape)
        outputs = oracle(**{**arguments, name: value + 1j * EPSILON * directions})
        total = np.zeros(value.size)
        for output, cotangent in zip(outputs, cotangents, strict=True):
            parts = np.broadcast_to(output, (value.size, *cotangent.shape)).imag / EPSILON
            total += np.sum(parts * cotangent, axis=tuple(range(1, parts.ndim)))
        gradients[name] = total.reshape(value.shape)
    return gradients


def largest_error(got: Any, want: np.ndarray) -> float:
    """Largest |got - want| as a share of the largest |want|; infinite if `got` is not finite."""
    got = np.asarray(got, np.float64)
    if got.shape != want.shape or not np.all(np.isfinite(got)):
        return float("inf")
    scale = np.max(np.abs(want), initial=0.0)
    error = np.max(np.abs(got - want), initial=0.0)
    return float(error / scale) if scale > 0 else float(error)


def _present(mask: np.ndarray | None, row: int, length: int) -> Sequence[int]:
    return range(length) if mask is None else [int(t) for t in np.flatnonzero(mask[row])]


def _stack(arrays: Sequence[np.ndarray], axis: int) -> np.ndarray:
    return np.stack(np.broadcast_arrays(*arrays), axis=axis)
