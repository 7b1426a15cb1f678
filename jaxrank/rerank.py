"""python -m jaxrank.rerank: order a run anew with a trained reranker, or score training groups."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Literal

from jaxrank.command_line import run
from jaxrank.errors import InputError
from jaxrank.options import parse

if TYPE_CHECKING:
    from jaxrank.reranker import Reranker


@dataclass(frozen=True)
class RerankOptions:
    """Score the candidates of a run with a reranker and write the run of these scores.

    With `groups` in place of `run`: score the documents of training groups and write these groups
    with the scores, for a model that is to learn from this one.
    """

    model: str
    """Model folder, or hub id."""
    output: Path
    """File to write: a TREC run, or training groups."""
    collection: Path | None = None
    """Collection folder with corpus.jsonl and queries.jsonl. Null: the groups hold the texts."""
    run: Path | None = None
    """TREC run with the candidates of each query."""
    groups: Path | None = None
    """Training groups to score, by ids or in FlagEmbedding's layout; instead of `run`. The scores
    are the model's own, not cut to a range."""
    depth: int | None = None
    """Candidates scored per query, the best of the run; the others are left out. null takes all."""
    batch_size: int = 32
    """Pairs computed at once; changes speed and memory, not scores."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What the network computes in; float32 is exact, bfloat16 faster on GPUs."""
    tag: str = "jaxrank"
    """Name of the run, its last column."""


def main(argv: Sequence[str] | None = None) -> None:
    """Read the run or the groups, score, write."""
    options = parse(RerankOptions, "jaxrank.rerank", argv)
    from jaxrank.evaluation.runs import check_word
    from jaxrank.files import check_target

    check_target(options.output)
    check_word(options.tag, "tag")
    if options.run is not None and options.groups is None:
        _rerank(options, options.run)
    elif options.groups is not None and options.run is None:
        _score_groups(options, options.groups)
    else:
        raise InputError(
            f"run, groups: got {options.run}, {options.groups}; exactly one of them is needed"
        )


def _rerank(options: RerankOptions, path: Path) -> None:
    from jaxrank.data.collection import Collection
    from jaxrank.evaluation.runs import read_run, write_run
    from jaxrank.ranking.reranking import rerank_run

    if options.collection is None:
        raise InputError("collection: got null; a run needs the collection that has its texts")
    candidates = read_run(path)
    collection = Collection.open(options.collection, progress=True)
    model = _load(options)
    begin = perf_counter()
    reranked = rerank_run(
        candidates,
        collection.queries,
        collection.documents,
        lambda pairs: model.predict(pairs, options.batch_size),
        depth=options.depth,
        progress=True,
    )
    write_run(options.output, reranked, tag=options.tag)
    pairs = sum(map(len, reranked.values()))
    _report(f"{pairs} pairs of {len(reranked)} queries", pairs, perf_counter() - begin)
    if dropped := sum(map(len, candidates.values())) - pairs:
        print(f"{dropped} candidates below depth {options.depth} left out")
    print(model.truncation.summary())
    print(f"wrote {options.output}")


def _score_groups(options: RerankOptions, path: Path) -> None:
    from jaxrank.data.collection import Collection
    from jaxrank.data.groups import copy_with_scores, read_training_data
    from jaxrank.ranking.teacher_scores import score_groups

    if options.depth is not None:
        raise InputError(f"depth: got {options.depth}; groups are scored whole, so null is needed")
    folder = options.collection
    collection = None if folder is None else Collection.open(folder, progress=True)
    data = read_training_data(
        path,
        queries=None if collection is None else collection.queries,
        documents=None if collection is None else collection.documents,
    )
    model = _load(options)
    begin = perf_counter()
    scored = score_groups(
        data, lambda pairs: model.predict(pairs, options.batch_size), progress=True
    )
    copy_with_scores(path, options.output, scored)
    pairs = sum(1 + len(group.negative_ids) for group in data.groups)
    _report(f"{pairs} pairs of {len(data.groups)} groups", pairs, perf_counter() - begin)
    print(model.truncation.summary())
    print(f"wrote {options.output}")


def _load(options: RerankOptions) -> "Reranker":
    from jaxrank.reranker import Reranker

    return Reranker.from_pretrained(options.model, dtype=options.dtype)


def _report(work: str, pairs: int, seconds: float) -> None:
    print(f"{work} in {seconds:.1f} s, {pairs / seconds:.1f} pairs/s")


if __name__ == "__main__":
    run(main)
