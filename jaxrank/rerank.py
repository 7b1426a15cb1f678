"""python -m jaxrank.rerank: order a first stage's run anew with a trained reranker."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Literal

from jaxrank.command_line import run
from jaxrank.options import parse


@dataclass(frozen=True)
class RerankOptions:
    """Score the candidates of a run with a reranker and write the run of these scores."""

    model: str
    """Model folder, or hub id."""
    collection: Path
    """Collection folder with corpus.jsonl and queries.jsonl."""
    run: Path
    """TREC run with the candidates of each query."""
    output: Path
    """TREC run to write."""
    depth: int | None = None
    """Candidates scored per query, the best of the run; the others are left out. null takes all."""
    batch_size: int = 32
    """Pairs computed at once; changes speed and memory, not scores."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What the network computes in; float32 is exact, bfloat16 faster on GPUs."""
    tag: str = "jaxrank"
    """Name of the run, its last column."""


def main(argv: Sequence[str] | None = None) -> None:
    """Read the run and the collection, score, write."""
    options = parse(RerankOptions, "jaxrank.rerank", argv)
    from jaxrank.data.collection import Collection
    from jaxrank.evaluation.runs import check_word, read_run, write_run
    from jaxrank.files import check_target
    from jaxrank.ranking.reranking import rerank_run
    from jaxrank.reranker import Reranker

    check_target(options.output)
    check_word(options.tag, "tag")
    candidates = read_run(options.run)
    collection = Collection.open(options.collection, progress=True)
    model = Reranker.from_pretrained(options.model, dtype=options.dtype)
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
    dropped = sum(map(len, candidates.values())) - pairs
    seconds = perf_counter() - begin
    rate = pairs / seconds
    print(f"{pairs} pairs of {len(reranked)} queries in {seconds:.1f} s, {rate:.1f} pairs/s")
    if dropped:
        print(f"{dropped} candidates below depth {options.depth} left out")
    print(model.truncation.summary())
    print(f"wrote {options.output}")


if __name__ == "__main__":
    run(main)
