"""Times training steps on packed rows against padded ones: pairs a second, and their ratio.

    .venv/bin/python scripts/packing_gain.py --collection DIR [--models minilm-l6 mamba-small]

The same groups of the same pairs come out of the training pipeline twice, padded to its length
buckets and packed. Each batch is trained on both ways in turn, after a first step that compiles,
so that a change of the machine's speed touches both. The ratio is that of all steps' times
together, by the clock and by processor time of all threads, which tells slow code from a busy
machine. Real lengths are the collection's: its questions of the train split, each with a document
that answers it and documents at random. Passage-like lengths are drawn: a log-normal number of
tokens a document with a median of 70 and a sigma of 0.35, a mean of 74, as MS MARCO's passages have
it roughly, and 6 to 12 tokens a query.
"""

import argparse
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import jax
import jax.numpy as jnp
import numpy as np

from jaxrank.data.collection import Collection
from jaxrank.data.groups import Group
from jaxrank.data.pipeline import training_batches
from jaxrank.models import bert, mamba
from jaxrank.models.module import RerankerConfig, init_module
from jaxrank.text.templates import TextConfig
from jaxrank.text.tokenize import PairTokenizer, load_tokenizer
from jaxrank.training.optimizer import OptimizerConfig, make_optimizer
from jaxrank.training.step import BATCH_KEYS, init_state, make_train_step

ROOT = Path(__file__).resolve().parents[1]
TOKENIZERS = ROOT / "tests" / "data" / "tokenizers"
NEGATIVES = 7
MEDIAN, SIGMA, QUERY = 70, 0.35, (6, 12)
MODELS = {
    "minilm-l6": (
        RerankerConfig("bert", bert.PRESETS["minilm-l6"], head="classification"),
        "bert-base-uncased",
        "pair",
    ),
    # As configs/medquad-mamba-small.yaml.
    "mamba-small": (
        RerankerConfig(
            "mamba", replace(mamba.PRESETS["mamba-130m"], num_layers=4, hidden_size=256)
        ),
        "gpt-neox-20b",
        "paper-decoder",
    ),
}
LAYOUTS = {"padded": False, "packed": True}


@dataclass(frozen=True)
class Texts:
    """Groups with the texts that they name, and how long a pair of them may be."""

    groups: list[Group]
    queries: Mapping[str, str]
    documents: Mapping[str, str]
    max_length: int


def real_texts(folder: Path, max_length: int) -> Texts:
    """Every answered question of the train split, one document that answers it and seven others."""
    collection = Collection.open(folder)
    documents = np.array(list(collection.documents))
    random = np.random.default_rng(0)
    groups = []
    for query_id, grades in collection.qrels("train").items():
        positive = next((document for document, grade in grades.items() if grade > 0), None)
        if positive is not None:
            others = random.choice(documents, NEGATIVES, replace=False).tolist()
            groups.append(Group(query_id, positive, tuple(others)))
    return Texts(groups, collection.queries, collection.documents, max_length)


def passage_texts(max_length: int, num_groups: int = 1000) -> Texts:
    """Texts of one word, a token each, whose lengths are those of passages."""
    random = np.random.default_rng(0)
    documents, queries, groups = {}, {}, []
    for number in range(num_groups):
        query_id = f"q{number}"
        queries[query_id] = " ".join(["the"] * random.integers(QUERY[0], QUERY[1] + 1))
        names = [f"d{number}-{place}" for place in range(1 + NEGATIVES)]
        for name in names:
            length = max(1, round(random.lognormal(np.log(MEDIAN), SIGMA)))
            documents[name] = " ".join(["the"] * length)
        groups.append(Group(query_id, names[0], tuple(names[1:])))
    return Texts(groups, queries, documents, max_length)


def batches(
    texts: Texts, tokenizer: PairTokenizer, *, packing: bool, groups_per_batch: int
) -> Iterator[dict[str, np.ndarray]]:
    """The pipeline's batches; packed or padded, they hold the same pairs."""
    dataset = training_batches(
        texts.groups,
        texts.queries,
        texts.documents,
        tokenizer,
        groups_per_batch=groups_per_batch,
        negatives=NEGATIVES,
        seed=0,
        packing=packing,
        num_threads=0,
    )
    return iter(dataset)


def filled(texts: Texts, tokenizer: PairTokenizer, *, groups_per_batch: int, count: int) -> str:
    """Real tokens of a pair, and which share of each layout's rows they fill."""
    shares = []
    real = pairs = 0
    for packing in LAYOUTS.values():
        room = real = pairs = 0
        made = batches(texts, tokenizer, packing=packing, groups_per_batch=groups_per_batch)
        for batch in islice(made, count):
            is_real = batch["segment_ids"] > 0 if packing else batch["mask"]
            room, real = room + is_real.size, real + int(is_real.sum())
            pairs += int(batch["candidate_mask"].sum())
        shares.append(f"{real / room:.0%}")
    return f"{real / pairs:.0f} | {' | '.join(shares)}"


class Trainer:
    """A model that is trained on one layout, and the time that its steps took."""

    def __init__(self, config: RerankerConfig) -> None:
        optimizer, schedule = make_optimizer(OptimizerConfig(learning_rate=1e-5), 10_000)
        graph, self.state = init_state(
            init_module(config, seed=0), optimizer, key=jax.random.key(0)
        )
        self.step = make_train_step(graph, optimizer, schedule)
        self.pairs, self.clock_s, self.processor_s = 0, 0.0, 0.0

    def train(self, batch: dict[str, np.ndarray], *, counts: bool) -> None:
        """One step; `counts` says whether its time does."""
        arrays = {name: jnp.asarray(batch[name]) for name in BATCH_KEYS if name in batch}
        clock, processor = time.perf_counter(), time.process_time()
        self.state, metrics = self.step(self.state, arrays)
        loss = float(metrics["loss"])
        if counts:
            self.clock_s += time.perf_counter() - clock
            self.processor_s += time.process_time() - processor
            self.pairs += int(metrics["pairs"])
        assert np.isfinite(loss)


def measure(texts: Texts, model: str, options: argparse.Namespace) -> str:
    """A row of the table, from the model's name on."""
    config, tokenizer_name, template = MODELS[model]
    tokenizer = PairTokenizer(
        load_tokenizer(TOKENIZERS / tokenizer_name), TextConfig(template, texts.max_length)
    )
    shares = filled(texts, tokenizer, groups_per_batch=options.groups_per_batch, count=50)
    trainers = {layout: Trainer(config) for layout in LAYOUTS}
    sequences = [
        batches(texts, tokenizer, packing=packing, groups_per_batch=options.groups_per_batch)
        for packing in LAYOUTS.values()
    ]
    for batch in islice(zip(*sequences, strict=True), options.batches):
        for number in range(1 + options.rounds):
            for trainer, arrays in zip(trainers.values(), batch, strict=True):
                trainer.train(arrays, counts=number > 0)
    padded, packed = trainers.values()
    assert padded.pairs == packed.pairs
    rates = " | ".join(f"{trainer.pairs / trainer.clock_s:.2f}" for trainer in (padded, packed))
    return (
        f"{model} | {shares} | {rates} | {padded.clock_s / packed.clock_s:.2f} | "
        f"{padded.processor_s / packed.processor_s:.2f} |"
    )


def main() -> None:
    """Print the table, row by row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--collection", type=Path, required=True, help="with a train split")
    kinds = ["collection", "passages"]
    parser.add_argument("--lengths", nargs="+", choices=kinds, default=kinds)
    parser.add_argument("--models", nargs="+", choices=[*MODELS], default=[*MODELS])
    parser.add_argument("--max-length", type=int, default=512, help="of the collection's pairs")
    parser.add_argument("--passage-length", type=int, default=256, help="of passage-like pairs")
    parser.add_argument("--groups-per-batch", type=int, default=4, help="of 8 pairs each")
    parser.add_argument("--batches", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3, help="timed steps a batch and layout")
    options: Any = parser.parse_args()
    print(
        "| lengths | max_length | model | tokens a pair | filled, padded | filled, packed "
        "| pairs/s, padded | pairs/s, packed | ratio | ratio of processor time |"
    )
    print("|" + "---|" * 10)
    for kind in options.lengths:
        if kind == "collection":
            name = options.collection.name
            texts = real_texts(options.collection, options.max_length)
        else:
            name, texts = "passage-like", passage_texts(options.passage_length)
        for model in options.models:
            print(f"| {name} | {texts.max_length} | {measure(texts, model, options)}", flush=True)


if __name__ == "__main__":
    main()
