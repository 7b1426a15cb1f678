"""Pairs a second that the input pipeline makes, alone: no model, no step, no device.

    .venv/bin/python scripts/bench_input.py
    .venv/bin/python scripts/bench_input.py --collection data/medquad \
        --groups runs/medquad/groups.jsonl

Without a collection the documents are synthetic: random words, each document longer than
max_length, so that every pair has exactly that many tokens. Padded and packed batches, tokenised on
the fly and before, are made in turn (a round of each after the other), so that a change of the
machine's speed touches all; the best and the median of the rounds are reported, and pairs per
second of processor time, which other work on the same cores changes far less. The process keeps to
`--cores` cores, the tokenizer's own threads too.
"""

import argparse
import json
import os
import random
import statistics
import time
from collections import Counter
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

import numpy as np

from jaxrank.command_line import run
from jaxrank.data.collection import Collection
from jaxrank.data.groups import Group, TrainingData, read_training_data
from jaxrank.data.pipeline import training_batches
from jaxrank.data.tokens.table import GroupTokens, tokenise_groups
from jaxrank.files import atomic_open
from jaxrank.text.templates import TextConfig
from jaxrank.text.tokenize import PairTokenizer, load_tokenizer

ROOT = Path(__file__).resolve().parents[1]
TOKENIZER = ROOT / "tests" / "data" / "tokenizers" / "bert-base-uncased"
NUM_SYNTHETIC = 2000


def main() -> None:
    """Measure, print a line for each kind of input, and write them as JSON where asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--collection", type=Path, help="folder; needs --groups")
    parser.add_argument("--groups", type=Path, help="groups file as jaxrank.mine writes it")
    parser.add_argument("--tokenizer", default=str(TOKENIZER), help="folder or hub id")
    parser.add_argument("--template", default="pair")
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--groups-per-batch", type=int, default=8)
    parser.add_argument("--negatives", type=int, default=7)
    parser.add_argument(
        "--processes", type=int, default=1, help="measure one of so many, each with its groups"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])

    data = read_data(options) if options.collection else make_data(options)
    text = TextConfig(options.template, max_length=options.max_length)
    tokenizer = PairTokenizer(load_tokenizer(options.tokenizer), text)
    begin = time.perf_counter()
    store = tokenise_groups(data.groups, data.queries, data.documents, tokenizer)
    seconds = time.perf_counter() - begin
    print(f"{store.summary()}, in {seconds:.1f} s ({store.num_tokens / seconds:,.0f} tokens/s)")

    # Several processes always pretokenise.
    stores = [None, store] if options.processes == 1 else [store]
    kinds = [(tokens, packing) for tokens in stores for packing in (False, True)]
    rounds: list[list[dict[str, float]]] = [[] for _ in kinds]
    shapes: list[Counter[int]] = [Counter() for _ in kinds]
    for number in range(options.rounds):
        for kind, results, found in zip(kinds, rounds, shapes, strict=True):
            results.append(measure(options, data, tokenizer, *kind, seed=number, shapes=found))
    report = [summarise(*row) for row in zip(kinds, rounds, shapes, strict=True)]
    for line in report:
        print(
            f"{line['kind']:<24} best {line['best_pairs_per_s']:>7,.0f} pairs/s, median "
            f"{line['median_pairs_per_s']:>7,.0f}, {line['pairs_per_cpu_s']:>7,.0f} pairs/CPU s; "
            f"{line['tokens_per_pair']:.0f} tokens a pair, "
            f"{line['filled']:.1%} of the batch's places; {line['shapes']}"
        )
    if options.json:
        with atomic_open(options.json) as file:
            file.write(json.dumps(report, indent=1) + "\n")


def read_data(options: argparse.Namespace) -> TrainingData:
    """Groups of a collection."""
    collection = Collection.open(options.collection)
    return read_training_data(
        options.groups,
        queries=collection.queries,
        documents=collection.documents,
        min_negatives=options.negatives,
    )


def make_data(options: argparse.Namespace) -> TrainingData:
    """Groups of documents of random words, longer than `max_length`."""
    vocabulary = load_tokenizer(options.tokenizer).get_vocab()
    words = sorted(word for word in vocabulary if word.isascii() and word.isalpha())
    draw = random.Random(0)

    def write(count: int) -> str:
        return " ".join(draw.choices(words, k=count))

    names = [f"d{number}" for number in range(NUM_SYNTHETIC)]
    documents = {name: write(options.max_length) for name in names}
    queries = {f"q{number}": write(8) for number in range(NUM_SYNTHETIC // 4)}
    groups = []
    for query_id in queries:
        positive_id, *negative_ids = draw.sample(names, 1 + 2 * options.negatives)
        groups.append(Group(query_id, positive_id, tuple(negative_ids)))
    return TrainingData(groups, queries, documents)


def measure(
    options: argparse.Namespace,
    data: TrainingData,
    tokenizer: PairTokenizer,
    tokens: GroupTokens | None,
    packing: bool,
    *,
    seed: int,
    shapes: Counter[int],
) -> dict[str, float]:
    """One round: the rate, and how full the batches are."""
    begin, begin_cpu = time.perf_counter(), time.process_time()
    batches = iter(
        training_batches(
            data.groups,
            data.queries,
            data.documents,
            tokenizer,
            groups_per_batch=options.groups_per_batch * options.processes,
            negatives=options.negatives,
            seed=seed,
            packing=packing,
            tokens=tokens,
            shard=(0, options.processes),
            num_threads=options.threads,
        )
    )
    sums: dict[str, float] = dict.fromkeys(("pairs", "tokens", "places"), 0)
    while (seconds := time.perf_counter() - begin) < options.seconds:
        for batch in islice(batches, 4):
            for name, count in count_batch(batch).items():
                sums[name] += count
            shapes[batch["input_ids"].shape[-2 if packing else -1]] += 1
    seconds_cpu = time.process_time() - begin_cpu
    rates = {"wall": sums["pairs"] / seconds, "cpu": sums["pairs"] / seconds_cpu}
    return sums | rates


def count_batch(batch: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Pairs, their tokens, and places for tokens in the arrays."""
    is_real = batch["segment_ids"] > 0 if "segment_ids" in batch else batch["mask"]
    return {
        "pairs": int(batch["candidate_mask"].sum()),
        "tokens": int(np.count_nonzero(is_real)),
        "places": batch["input_ids"].size,
    }


def summarise(
    kind: tuple[GroupTokens | None, bool],
    rounds: list[dict[str, float]],
    shapes: Counter[int],
) -> dict[str, float | str]:
    """Best and median rate of one kind of input."""
    tokens, packing = kind
    sums = {name: sum(result[name] for result in rounds) for name in ("pairs", "tokens", "places")}
    rates = [result["wall"] for result in rounds]
    listed = ", ".join(f"{n} ({c / shapes.total():.1%})" for n, c in shapes.most_common())
    first = "on the fly" if tokens is None else "pretokenised"
    return {
        "kind": f"{first}, {'packed' if packing else 'padded'}",
        "best_pairs_per_s": max(rates),
        "median_pairs_per_s": statistics.median(rates),
        "pairs_per_cpu_s": statistics.median(result["cpu"] for result in rounds),
        "tokens_per_pair": sums["tokens"] / sums["pairs"],
        "filled": sums["tokens"] / sums["places"],
        "shapes": f"{'rows' if packing else 'lengths'} (share of batches): {listed}",
    }


if __name__ == "__main__":
    run(main)
