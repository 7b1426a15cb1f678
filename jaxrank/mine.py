"""python -m jaxrank.mine: training groups, a positive with hard negatives from a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxrank.command_line import run
from jaxrank.data.document_text import DocumentText
from jaxrank.options import parse
from jaxrank.retrieval.mining_config import MiningConfig


@dataclass(frozen=True, kw_only=True)
class MineOptions(MiningConfig):
    """Draw negatives from a run's ranks and write groups for training."""

    collection: Path
    """Collection folder that the run was made from."""
    split: str
    """Whose judgements give the positives."""
    run: Path
    """TREC run with the first stage's candidates for these queries, plain or gzip."""
    output: Path
    """Groups file to write, one JSON object a line."""
    exclude: Path | None = None
    """TSV of query and document ids that must not become negatives, e.g. likely positives. Held in
    memory, about 200 bytes a pair."""
    document_text: DocumentText | None = None
    """Changes nothing here, where ids are written; there so that one config serves all commands."""


def main(argv: Sequence[str] | None = None) -> None:
    """Go over the run and the judgements, draw, write, and say what was left out."""
    options = parse(MineOptions, "jaxrank.mine", argv)
    from jaxrank.data.collection import Collection, check_outside
    from jaxrank.data.groups import write_groups
    from jaxrank.evaluation.runs import iter_run
    from jaxrank.files import check_apart, check_target
    from jaxrank.progress import track
    from jaxrank.retrieval.mining import Miner, read_exclusions

    check_target(options.output)
    check_apart(options.output, {"--run": [options.run], "--exclude": [options.exclude]})
    check_outside(options.output, options.collection)
    collection = Collection.open(
        options.collection, document_text=options.document_text, progress=True
    )
    documents = collection.documents
    counts_duplicates = options.drop_duplicates or documents.holds_fingerprints
    miner = Miner(
        collection.qrels(options.split),
        options,
        exclude=read_exclusions(options.exclude) if options.exclude else frozenset(),
        documents=documents,
        fingerprint=documents.fingerprint if counts_duplicates else None,
        run_name=str(options.run),
        collection_name=str(options.collection),
    )
    queries = track(iter_run(options.run), description="mining", unit="query", enabled=True)
    write_groups(options.output, miner.mine(queries))
    print("\n".join([*miner.report().lines(), f"wrote {options.output}"]))


if __name__ == "__main__":
    run(main)
