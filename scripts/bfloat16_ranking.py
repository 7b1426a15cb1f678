"""Does bfloat16 rank as float32 does? Kendall's tau over each query's candidates.

Called as `python scripts/bfloat16_ranking.py --model MODEL --run RUN [--collection DIR]`.
"""

import argparse
from pathlib import Path

import numpy as np
from scipy.stats import kendalltau

from jaxrank.command_line import run
from jaxrank.data.collection import Collection
from jaxrank.evaluation.runs import ranking, read_run
from jaxrank.reranker import Reranker

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Score each query's candidates in both precisions and compare the order."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--run", type=Path, required=True, help="TREC run with the candidates")
    parser.add_argument("--collection", type=Path, default=ROOT / "examples" / "medquad-mini")
    parser.add_argument("--queries", type=int, default=5, help="the first so many by id")
    parser.add_argument("--depth", type=int, default=100)
    options = parser.parse_args()
    collection = Collection.open(options.collection)
    wide = Reranker.from_pretrained(options.model)
    narrow = Reranker.from_pretrained(options.model, dtype="bfloat16")
    taus, worst, spread = [], 0.0, 0.0
    candidates_of = read_run(options.run)
    for query_id in sorted(candidates_of)[: options.queries]:
        candidates = ranking(candidates_of[query_id])[: options.depth]
        query = collection.queries[query_id]
        pairs = [(query, collection.documents[document]) for document in candidates]
        exact, rounded = wide.predict(pairs), narrow.predict(pairs)
        taus.append(float(kendalltau(exact, rounded).statistic))
        worst = max(worst, float(np.abs(exact - rounded).max()))
        spread = max(spread, float(np.ptp(exact)))
        print(f"{query_id}: {len(pairs)} candidates, Kendall's tau {taus[-1]:.4f}", flush=True)
    print(
        f"mean {np.mean(taus):.4f}, least {min(taus):.4f}; largest difference of a score "
        f"{worst:.3f}, scores span up to {spread:.1f}"
    )


if __name__ == "__main__":
    run(main)
