"""python -m jaxrank.mine: training groups, a positive with hard negatives from a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxrank.command_line import run
from jaxrank.options import parse


@dataclass(frozen=True)
class MineOptions:
    """Draw negatives from a run's ranks and write groups for training."""

    collection: Path
    """Collection folder that the run was made from."""
    split: str
    """Whose judgements give the positives (grade above 0)."""
    run: Path
    """TREC run with the first stage's candidates for these queries."""
    output: Path
    """Groups file to write, one JSON object a line."""
    negatives: int = 7
    """Negatives kept per group; more than training takes make a pool that each epoch draws from."""
    groups_per_positive: int = 1
    """Groups made of each positive, sharing no negative while candidates last; RankMamba has 2."""
    first_rank: int = 1
    """Best rank that may become a negative; a larger one skips likely unjudged positives."""
    last_rank: int = 50
    """Worst rank that may become a negative; RankMamba takes the top 100."""
    seed: int = 0
    """Of the draws; each query has its own stream."""
    exclude: Path | None = None
    """TSV of query and document ids that must not become negatives, e.g. likely positives."""


def main(argv: Sequence[str] | None = None) -> None:
    """Read the run and the judgements, draw, write, and say what was left out."""
    options = parse(MineOptions, "jaxrank.mine", argv)
    from jaxrank.data.collection import Collection
    from jaxrank.data.groups import write_groups
    from jaxrank.evaluation.runs import read_run
    from jaxrank.files import check_target
    from jaxrank.retrieval.mining import mine_negatives, read_exclusions

    check_target(options.output)
    collection = Collection.open(options.collection, progress=True)
    groups, report = mine_negatives(
        read_run(options.run),
        collection.qrels(options.split),
        negatives=options.negatives,
        first_rank=options.first_rank,
        last_rank=options.last_rank,
        groups_per_positive=options.groups_per_positive,
        seed=options.seed,
        exclude=read_exclusions(options.exclude) if options.exclude else frozenset(),
        documents=collection.documents,
    )
    write_groups(options.output, groups)
    print("\n".join([*report.lines(), f"wrote {options.output}"]))


if __name__ == "__main__":
    run(main)
