"""What in-batch negatives cost: the time of a training step with and without them, and its tokens.

    python scripts/in_batch_cost.py

For small Mambas, each number of groups and each length of documents, steps of both kinds take
turns on the same shapes: random tokens, one row a pair or documents apart from queries. The table
gives the ratio of the medians, and beside it that of the tokens that are run. On a CPU, unless
JAX_PLATFORMS names another device, e.g. JAX_PLATFORMS=cuda.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import numpy as np

from jaxrank.command_line import run
from jaxrank.files import atomic_open, check_target
from jaxrank.models.families import get_family
from jaxrank.models.module import RerankerConfig, init_module
from jaxrank.training.optimizer import OptimizerConfig, make_optimizer
from jaxrank.training.step import init_state, make_train_step
from jaxrank.version import source_state

PRESETS = {"mamba": "mamba-130m", "mamba2": "mamba2-130m"}
VOCABULARY = 1_000
CAPTION = (
    "Time of a step with in-batch negatives over that of a plain step; in brackets the ratio of "
    "the tokens that are run. All documents have one length and plain pairs a row each, so nothing "
    "is padded. Where lengths differ, both kinds are padded, but only the plain one can be packed "
    "(`data.packing`): against packed batches the ratios are larger."
)
Batch = dict[str, np.ndarray]
Row = dict[str, Any]


def main() -> None:
    """Measure each case, print the table, write it and the JSON."""
    options = _parse()
    for target in (options.json, options.table):
        check_target(target)
    rows = []
    for row in measure_all(options):
        rows.append(row)
        print(f"{len(rows)}: {json.dumps(row)}", flush=True)
    names = ("layers", "hidden_size", "candidates", "query_tokens", "repeats")
    settings = {name: getattr(options, name) for name in names}
    settings |= {"device": jax.devices()[0].device_kind, "cores": os.cpu_count()}
    with atomic_open(options.json) as file:
        content = {"settings": settings, "source": source_state(), "rows": rows}
        file.write(json.dumps(content, indent=1) + "\n")
    text = "\n".join([CAPTION, "", *make_table(rows)])
    with atomic_open(options.table) as file:
        file.write(text + "\n")
    print(f"{text}\nwrote {options.json} and {options.table}")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--families", nargs="+", choices=PRESETS, default=list(PRESETS))
    parser.add_argument("--groups", nargs="+", type=int, default=[2, 4, 8], help="of a batch")
    parser.add_argument("--lengths", nargs="+", type=int, default=[128, 256, 512])
    parser.add_argument("--candidates", type=int, default=8, help="documents of a group")
    parser.add_argument("--query_tokens", type=int, default=17)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--hidden_size", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3, help="steps of each kind that count")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/in_batch_cost.json"))
    parser.add_argument("--table", type=Path, default=Path("benchmarks/results/in_batch_cost.md"))
    return parser.parse_args()


def measure_all(options: argparse.Namespace) -> Iterator[Row]:
    """A row of the table for each case."""
    for family in options.families:
        preset = get_family(family).presets[PRESETS[family]]
        backbone = replace(
            preset,
            vocab_size=VOCABULARY,
            num_layers=options.layers,
            hidden_size=options.hidden_size,
        )
        config = RerankerConfig(family, backbone)
        for groups in options.groups:
            for length in options.lengths:
                shape = (groups, options.candidates, length, options.query_tokens)
                found = compare_steps(config, shape, repeats=options.repeats)
                yield {"family": family, "groups": groups, "document_tokens": length, **found}


def compare_steps(
    config: RerankerConfig, shape: tuple[int, int, int, int], *, repeats: int
) -> dict[str, Any]:
    """Seconds and tokens of a step of both kinds, and their ratios.

    Args:
        shape: groups, candidates of each, tokens of a document and of a query.
        repeats: steps of each kind that count, behind one that compiles.
    """
    optimizer, schedule = make_optimizer(OptimizerConfig(warmup_steps=0), 1_000)
    graphdef, state = init_state(
        init_module(config, seed=0), optimizer, key=jax.random.key(0), release=True
    )
    step = make_train_step(graphdef, optimizer, schedule)
    batches = {"plain": plain_batch(*shape), "in_batch": shared_batch(*shape)}
    seconds: dict[str, list[float]] = {name: [] for name in batches}
    tokens: dict[str, int] = {}
    for number in range(1 + repeats):
        for name, batch in batches.items():
            start = time.perf_counter()
            state, metrics = jax.block_until_ready(step(state, batch))
            if number:
                seconds[name].append(time.perf_counter() - start)
            tokens[name] = int(metrics["tokens"])
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "seconds": medians,
        "tokens": tokens,
        "time_ratio": medians["in_batch"] / medians["plain"],
        "token_ratio": tokens["in_batch"] / tokens["plain"],
    }


def plain_batch(groups: int, candidates: int, document: int, query: int) -> Batch:
    """Whole pairs of random tokens."""
    shape = (groups, candidates, document + query)
    return {
        "input_ids": _random_ids(*shape),
        "mask": np.ones(shape, np.bool_),
        "token_type_ids": np.zeros(shape, np.int32),
        "candidate_mask": np.ones(shape[:2], np.bool_),
    }


def shared_batch(groups: int, candidates: int, document: int, query: int) -> Batch:
    """Documents apart from queries, which all meet all of them."""
    sides = {"document": (groups, candidates, document), "query": (groups, query)}
    batch = {f"{side}_ids": _random_ids(*shape) for side, shape in sides.items()}
    batch |= {f"{side}_mask": np.ones(shape, np.bool_) for side, shape in sides.items()}
    return batch | {"candidate_mask": np.ones((groups, groups * candidates), np.bool_)}


def _random_ids(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(1, VOCABULARY, shape).astype(np.int32)


def make_table(rows: Sequence[Row]) -> list[str]:
    """Markdown: step time in-batch over plain, and in brackets the ratio of tokens."""
    lengths = list(dict.fromkeys(row["document_tokens"] for row in rows))
    cells = {
        (row["family"], row["groups"], row["document_tokens"]): (
            f"{row['time_ratio']:.2f} ({row['token_ratio']:.2f})"
        )
        for row in rows
    }
    head = " | ".join(f"{length} document tokens" for length in lengths)
    lines = [f"| Model | Groups | {head} |", f"|---|---:|{'---:|' * len(lengths)}"]
    for family, groups in dict.fromkeys((row["family"], row["groups"]) for row in rows):
        found = " | ".join(cells.get((family, groups, length), "") for length in lengths)
        lines.append(f"| {family} | {groups} | {found} |")
    return lines


if __name__ == "__main__":
    run(main)
