"""python -m jaxrank.rerank: order a run anew with a trained reranker, or score training groups."""

from collections.abc import Sequence

from jaxrank.command_line import run
from jaxrank.options import parse
from jaxrank.reranking_run.options import RerankOptions


def main(argv: Sequence[str] | None = None) -> None:
    """Read the run or the groups, score, write."""
    options = parse(RerankOptions, "jaxrank.rerank", argv)
    from jaxrank.reranking_run.run import rerank  # late, so that --help is quick

    rerank(options, say=lambda line: print(line, flush=True))


if __name__ == "__main__":
    run(main)
