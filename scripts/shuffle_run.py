"""Writes a run of the same candidates in random order: what a reranker that knows nothing reaches.

Called as `python scripts/shuffle_run.py IN OUT [--seed 0] [--depth 50]`.
"""

import argparse
from pathlib import Path

import numpy as np

from jaxrank.command_line import run
from jaxrank.evaluation.runs import ranking, read_run, write_run


def main() -> None:
    """Read, keep the best `depth` candidates of each query, shuffle them, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--depth", type=int, default=50, help="candidates kept of each query")
    options = parser.parse_args()
    random = np.random.default_rng(options.seed)
    shuffled = {}
    for query, scores in read_run(options.source).items():
        kept = ranking(scores)[: options.depth]
        shuffled[query] = dict(zip(kept, random.random(len(kept)).tolist(), strict=True))
    write_run(options.target, shuffled, tag="random")
    print(f"wrote {options.target}")


if __name__ == "__main__":
    run(main)
