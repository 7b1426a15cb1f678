"""python -m jaxrank.fuse: several runs made one, by reciprocal ranks or interpolated scores."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxrank.command_line import run
from jaxrank.options import parse
from jaxrank.ranking.fusion import Method, fuse_runs


@dataclass(frozen=True)
class FuseOptions:
    """Fuse runs, e.g. a reranker's with its first stage's."""

    runs: tuple[Path, ...]
    """TREC runs, two or more; may be gzip. All are held in memory."""
    output: Path
    """TREC run to write."""
    method: Method = "rrf"
    """rrf sums 1 / (60 + rank); interpolation sums scores brought to 0..1 query by query."""
    weights: tuple[float, ...] = ()
    """Of the runs, in their order; none gives all the same. Choose them on a dev split."""
    depth: int | None = None
    """Documents kept per query; null keeps all."""
    tag: str | None = None
    """Last column of the run; null takes the method."""


def main(argv: Sequence[str] | None = None) -> None:
    """Read the runs, fuse them, write the result."""
    options = parse(FuseOptions, "jaxrank.fuse", argv)
    from jaxrank.evaluation.runs import check_word, read_run, write_run
    from jaxrank.files import check_apart, check_target

    tag = options.method if options.tag is None else options.tag
    check_word(tag, "tag")
    check_target(options.output)
    check_apart(options.output, {"--runs": options.runs})
    fusion = fuse_runs(
        [read_run(path) for path in options.runs],
        method=options.method,
        weights=options.weights,
        depth=options.depth,
    )
    write_run(options.output, fusion.run, tag=tag)
    print("\n".join([*fusion.lines(), f"wrote {options.output}"]))


if __name__ == "__main__":
    run(main)
