"""A step with shared states on two devices that the CPU stands in for; prints what it found.

`test_shared_states.py` starts it, since the number of devices is fixed when a process first uses
one.
"""

import json
import sys
from functools import partial
from typing import Any

from jaxtyping import install_import_hook

install_import_hook(["jaxrank"], "beartype.beartype")

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from jaxrank.models.mamba import MambaConfig  # noqa: E402
from jaxrank.models.module import RerankerConfig, init_module  # noqa: E402
from jaxrank.training.devices import (  # noqa: E402
    make_mesh,
    put_batch,
    put_state,
    state_shardings,
    to_host,
)
from jaxrank.training.optimizer import OptimizerConfig, make_optimizer  # noqa: E402
from jaxrank.training.step import init_state, make_train_step  # noqa: E402

GROUPS, CANDIDATES, DOCUMENT, QUERY = 4, 2, 9, 5
CONFIG = RerankerConfig(
    "mamba",
    MambaConfig(vocab_size=50, hidden_size=16, num_layers=1, state_size=4),
    head_dropout=0.0,
)


def make_batch() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    batch = {}
    for side, shape in (("document", (GROUPS, CANDIDATES, DOCUMENT)), ("query", (GROUPS, QUERY))):
        lengths = random.integers(2, shape[-1] + 1, shape[:-1])
        batch[f"{side}_mask"] = np.arange(shape[-1]) < lengths[..., None]
        batch[f"{side}_ids"] = random.integers(1, 50, shape).astype(np.int32)
    batch["candidate_mask"] = random.random((GROUPS, GROUPS * CANDIDATES)) < 0.8
    batch["candidate_mask"][:, 0] = True
    return batch


def do_step(*, is_spread: bool) -> tuple[float, list[np.ndarray]]:
    """The loss and the gradients; Adam's first average is a tenth of them."""
    optimizer, schedule = make_optimizer(OptimizerConfig(warmup_steps=0), 10)
    graph, state = init_state(init_module(CONFIG, seed=0), optimizer, key=jax.random.key(1))
    put: Any = partial(jax.tree.map, jnp.asarray)
    shardings = None
    if is_spread:
        mesh = make_mesh(1)
        shardings = state_shardings(state, mesh)
        state, put = put_state(state, shardings), partial(put_batch, mesh=mesh)
    step: Any = make_train_step(graph, optimizer, schedule, state_sharding=shardings)
    batch = put(make_batch())
    state, metrics = step.lower(state, batch).compile()(state, batch)
    averages = jax.tree.leaves(state.optimizer_state[0].mu)
    return float(metrics["loss"]), [10 * to_host(average) for average in averages]


if __name__ == "__main__":
    jax.config.update("jax_numpy_rank_promotion", "raise")
    loss, gradients = do_step(is_spread=True)
    expected_loss, expected = do_step(is_spread=False)
    largest = max(np.abs(gradient).max() for gradient in expected)
    differences = [np.abs(a - b).max() for a, b in zip(gradients, expected, strict=True)]
    result = {
        "devices": jax.device_count(),
        "loss": abs(loss - expected_loss),
        "gradients": float(max(differences) / largest),
    }
    sys.stdout.write(json.dumps(result) + "\n")
