"""Values and gradients of the recurrences in numpy float64, at sizes where complex steps take long.

`jaxrank.ops.oracle` gets its gradients from one complex step a number, which is beyond doubt and
far too slow for a block of 128 channels. Here the recurrence is walked back by hand, token by
token, and a test holds the result to that oracle's. Letters as in `jaxrank.ops.selective_scan`;
g is the cotangent of the state, w = a_t h_{t-1} what the state keeps.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

Arrays = Mapping[str, np.ndarray]


class Wanted(NamedTuple):
    """What an implementation must yield."""

    outputs: tuple[np.ndarray, np.ndarray]
    """y and the final state."""
    gradients: dict[str, np.ndarray]
    """Of sum(y * cotangent) + sum(state * cotangent), by argument."""


def selective_scan_adjoint(
    arguments: Arrays, cotangents: tuple[np.ndarray, np.ndarray], *, softplus: bool = True
) -> Wanted:
    """Values and gradients of `selective_scan`, for the arguments that are there."""
    batch, length, _ = arguments["u"].shape
    present = arguments.get("mask", np.ones((batch, length), bool))
    # What an absent token holds, even a NaN, must not matter.
    u, delta, B, C = (
        np.where(present[:, :, None], arguments[name], 0.0).astype(np.float64)
        for name in ("u", "delta", "B", "C")
    )
    A = np.asarray(arguments["A"], np.float64)
    skip = arguments.get("D", np.zeros(A.shape[0])).astype(np.float64)
    raw = delta + arguments.get("delta_bias", np.zeros(A.shape[0]))
    step = (np.logaddexp(0.0, raw) if softplus else raw) * present[:, :, None]
    forgets = arguments.get("reset", np.zeros((batch, length), bool)) & present
    first = arguments.get("initial_state", np.zeros((batch, *A.shape))).astype(np.float64)

    def decay(t: int) -> np.ndarray:
        kept = np.exp(step[:, t, :, None] * A)
        return np.where(forgets[:, t, None, None], 0.0, kept)

    states = [first]
    for t in range(length):
        write = (step[:, t] * u[:, t])[:, :, None] * B[:, t, None, :]
        states.append(decay(t) * states[-1] + write)
    read = np.stack([np.einsum("bdn,bn->bd", states[t + 1], C[:, t]) for t in range(length)], 1)
    ungated = read + skip * u
    y, y_bar, z_bar = _gate(arguments.get("z"), ungated, cotangents[0], present)

    u_bar, step_bar, B_bar, C_bar = (np.zeros_like(array) for array in (u, step, B, C))
    A_bar = np.zeros_like(A)
    g = np.array(cotangents[1], np.float64)
    for t in reversed(range(length)):
        g += y_bar[:, t, :, None] * C[:, t, None, :]
        w = decay(t) * states[t]
        of_write = np.einsum("bdn,bn->bd", g, B[:, t])
        C_bar[:, t] = np.einsum("bd,bdn->bn", y_bar[:, t], states[t + 1])
        B_bar[:, t] = np.einsum("bdn,bd->bn", g, step[:, t] * u[:, t])
        u_bar[:, t] = of_write * step[:, t] + skip * y_bar[:, t]
        step_bar[:, t] = of_write * u[:, t] + np.einsum("bdn,dn->bd", g * w, A)
        A_bar += np.einsum("bdn,bd->dn", g * w, step[:, t])
        g = decay(t) * g
    delta_bar = step_bar * present[:, :, None]
    if softplus:
        delta_bar = delta_bar / (1.0 + np.exp(-raw))
    gradients = {
        "u": u_bar, "delta": delta_bar, "A": A_bar, "B": B_bar, "C": C_bar, "z": z_bar,
        "D": np.sum(y_bar * u, axis=(0, 1)),
        "delta_bias": np.sum(delta_bar, axis=(0, 1)), "initial_state": g,
    }  # fmt: skip
    there = {name: gradient for name, gradient in gradients.items() if name in arguments}
    return Wanted((y, states[-1]), there)


def _gate(
    z: np.ndarray | None, ungated: np.ndarray, y_bar: np.ndarray, present: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The gated outputs, and the cotangents of what is gated and of the gate."""
    y_bar = np.where(present[:, :, None], y_bar, 0.0)
    if z is None:
        return ungated * present[:, :, None], y_bar, np.zeros_like(ungated)
    z = np.where(present[:, :, None], z, 0.0).astype(np.float64)
    sigmoid = 1.0 / (1.0 + np.exp(-z))
    z_bar = y_bar * ungated * sigmoid * (1.0 + z * (1.0 - sigmoid))
    return ungated * z * sigmoid, y_bar * z * sigmoid, z_bar


def ssd_adjoint(arguments: Arrays, cotangents: tuple[np.ndarray, np.ndarray]) -> Wanted:
    """Values and gradients of `ssd` with one group: a selective scan whose heads share a decay."""
    batch, length, heads, width = arguments["x"].shape
    states = arguments["B"].shape[-1]
    flat = {
        "u": arguments["x"].reshape(batch, length, heads * width),
        "delta": np.repeat(arguments["dt"], width, axis=-1),
        "A": np.repeat(arguments["A"], width)[:, None] * np.ones(states),
        "B": arguments["B"][:, :, 0],
        "C": arguments["C"][:, :, 0],
        "D": np.repeat(arguments["D"], width),
        "initial_state": arguments["initial_state"].reshape(batch, heads * width, states),
        **{name: arguments[name] for name in ("mask", "reset") if name in arguments},
    }
    y_bar, state_bar = cotangents
    flat_cotangents = (y_bar.reshape(batch, length, -1), state_bar.reshape(batch, -1, states))
    (y, state), found = selective_scan_adjoint(flat, flat_cotangents, softplus=False)
    of_head = (heads, width)
    return Wanted(
        (y.reshape(y_bar.shape), state.reshape(state_bar.shape)),
        {
            "x": found["u"].reshape(y_bar.shape),
            "dt": found["delta"].reshape(batch, length, *of_head).sum(axis=-1),
            "A": found["A"].reshape(*of_head, states).sum(axis=(1, 2)),
            "B": found["B"][:, :, None],
            "C": found["C"][:, :, None],
            "D": found["D"].reshape(of_head).sum(axis=1),
            "initial_state": found["initial_state"].reshape(state_bar.shape),
        },
    )


def attention_adjoint(
    inputs: Arrays, output_bar: np.ndarray, allowed: np.ndarray, *, bias: np.ndarray | None = None
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Values and gradients of softmax attention.

    Args:
        inputs: query (B, L, H, K), key and value (B, S, H, K).
        output_bar: (B, L, H, K), the cotangent.
        allowed: (B, 1, L, S), which keys each query may attend to, one at least.
        bias: (1 or B, H, L, S).
    """
    query, key, value = (inputs[name].astype(np.float64) for name in ("query", "key", "value"))
    scale = query.shape[-1] ** -0.5
    scores = scale * np.einsum("blhk,bshk->bhls", query, key) + (0.0 if bias is None else bias)
    scores = np.where(allowed, scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    output = np.einsum("bhls,bshk->blhk", weights, value)
    weights_bar = np.einsum("blhk,bshk->bhls", output_bar, value)
    centre = np.sum(weights_bar * weights, axis=-1, keepdims=True)
    scores_bar = weights * (weights_bar - centre)
    gradients = {
        "query": scale * np.einsum("bhls,bshk->blhk", scores_bar, key),
        "key": scale * np.einsum("bhls,blhk->bshk", scores_bar, query),
        "value": np.einsum("bhls,blhk->bshk", weights, output_bar),
    }
    if bias is not None:
        is_shared = bias.shape[0] == 1
        gradients["bias"] = scores_bar.sum(axis=0, keepdims=True) if is_shared else scores_bar
    return output, gradients
