"""Every family at its base size: parameters, memory and time of a step, beside PyTorch's.

    .venv/bin/python scripts/family_table.py [--only roberta t5] [--json FILE]

One batch of 2 groups of 4 pairs, 128 tokens each, float32, linear head, random weights. A step is
forward and backward without the optimizer, which is the same for all. Memory is what XLA's
compiled step needs beside weights and gradients. PyTorch runs transformers' class eagerly with SDPA
attention where it has one. Both sides take turns, and the ratio is of the medians.
"""

import argparse
import json
import os
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers
from flax import nnx

from ckpt_convert.architectures import ARCHITECTURES
from ckpt_convert.source_config import write_source_config
from ckpt_convert.torch_oracle import TorchReranker, quiet_transformers
from jaxrank.files import atomic_open
from jaxrank.models.families import get_family
from jaxrank.models.module import RerankerConfig, init_module, parameters
from jaxrank.text.templates import TextConfig
from jaxrank.training.losses import info_nce
from jaxrank.version import source_state

PRESETS = {
    "bert": "bert-base",
    "roberta": "roberta-base",
    "electra": "electra-base",
    "modernbert": "modernbert-base",
    "opt": "opt-125m",
    "gpt_neox": "pythia-160m",
    "t5": "t5-base",
    "bart": "bart-base",
    "mamba": "mamba-130m",
    "mamba2": "mamba2-130m",
}
# Transformers' loops over tokens have a backward pass that takes minutes on a CPU.
FORWARD_ONLY = ("mamba", "mamba2")
GROUPS, CANDIDATES, LENGTH = 2, 4, 128


def measure(family: str, rounds: int) -> dict[str, Any]:
    """One row of the table."""
    config = RerankerConfig(family, get_family(family).presets[PRESETS[family]])
    module = init_module(config, seed=0)
    arrays = parameters(module)
    rng = np.random.default_rng(0)
    ids = rng.integers(10, 30000, (GROUPS * CANDIDATES, LENGTH)).astype(np.int32)
    batch = {"input_ids": ids, "mask": np.ones(ids.shape, bool)}
    graph, state = nnx.split(module)
    theirs = torch_reranker(config, arrays)

    def score(state: Any, batch: dict[str, jax.Array]) -> jax.Array:
        return nnx.merge(graph, state)(**batch)

    def loss(state: Any, batch: dict[str, jax.Array]) -> jax.Array:
        return info_nce(score(state, batch).reshape(GROUPS, CANDIDATES))

    on_device = {name: jnp.asarray(array) for name, array in batch.items()}
    forward = jax.jit(score).lower(state, on_device).compile()
    step = jax.jit(jax.value_and_grad(loss)).lower(state, on_device).compile()
    row: dict[str, Any] = {
        "preset": PRESETS[family],
        "parameters": sum(array.size for array in arrays.values()),
        "step_temporaries_mib": step.memory_analysis().temp_size_in_bytes / 2**20,
    }

    def torch_forward() -> None:
        with torch.inference_mode():
            theirs(batch)

    def torch_step() -> None:
        theirs.model.zero_grad()
        scores = theirs(batch)[1].reshape(GROUPS, CANDIDATES)
        torch.nn.functional.cross_entropy(scores, torch.zeros(GROUPS, dtype=torch.long)).backward()

    calls = {
        "forward_s": lambda: jax.block_until_ready(forward(state, on_device)),
        "forward_torch_s": torch_forward,
        "step_s": lambda: jax.block_until_ready(step(state, on_device)),
    }
    if family not in FORWARD_ONLY:
        calls["step_torch_s"] = torch_step
    times: dict[str, list[float]] = {name: [] for name in calls}
    for index in range(rounds + 1):
        for name, call in calls.items():
            begin = time.perf_counter()
            call()
            if index:
                times[name].append(time.perf_counter() - begin)
    row |= {name: float(np.median(values)) for name, values in times.items()}
    row["forward_ratio"] = row["forward_s"] / row["forward_torch_s"]
    if "step_torch_s" in row:
        row["step_ratio"] = row["step_s"] / row["step_torch_s"]
    return row


def shown(row: dict[str, Any], name: str) -> str:
    """Seconds of both sides and their ratio."""
    ours = f"{row[f'{name}_s']:.2f} s"
    if f"{name}_ratio" not in row:
        return ours
    return f"{ours} / {row[f'{name}_torch_s']:.2f} s = {row[f'{name}_ratio']:.2f}"


def torch_reranker(config: RerankerConfig, arrays: dict[str, jax.Array]) -> TorchReranker:
    """Transformers' model of the same sizes, with random weights of its own."""
    model_class = getattr(transformers, ARCHITECTURES[config.family].classes["linear"])
    attributes = json.loads(write_source_config(config, TextConfig()))
    for name in ("architectures", "model_type", "jaxrank"):
        del attributes[name]
    with quiet_transformers():
        model = model_class(model_class.config_class(**attributes))
    head = tuple(np.asarray(arrays[f"head.score.{name}"]) for name in ("kernel", "bias"))
    return TorchReranker(model, config, (head[0], head[1]))


def main() -> None:
    """Measure, print the table, keep it as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=list(PRESETS), default=list(PRESETS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(
        f"{GROUPS} groups of {CANDIDATES} pairs, {LENGTH} tokens, float32, {os.cpu_count()} cores"
    )
    print(
        "| Family | Preset | Parameters | Temporaries of a step | Step / PyTorch "
        "| Forward / PyTorch |"
    )
    print("|---|---|---|---|---|---|")
    rows = {}
    for family in options.only:
        row = rows[family] = measure(family, options.rounds)
        step, forward = shown(row, "step"), shown(row, "forward")
        print(
            f"| {family} | {row['preset']} | {row['parameters'] / 1e6:.1f} M "
            f"| {row['step_temporaries_mib']:,.0f} MiB | {step} | {forward} |",
            flush=True,
        )
    if options.json:
        packages = ("jax", "flax", "torch", "transformers")
        result = {
            "source": source_state(),
            "versions": {name: version(name) for name in packages},
            "rows": rows,
        }
        with atomic_open(options.json) as file:
            file.write(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
