r"""FirstP, MaxP, SumP and LongP on real articles, by where in them the relevant passage begins.

    python scripts/medquad_articles.py data/medquad data/medquad-articles
    python -m jaxrank.search --collection data/medquad-articles --split dev --depth 20 \
      --output runs/medquad-articles/bm25.dev.run
    python scripts/long_documents.py --run runs/medquad-articles/bm25.dev.run \
      --models minilm=MODEL mamba=MODEL

The candidates of the run are reranked by each model with each policy: FirstP as the model was
saved, MaxP and SumP over the same windows, LongP over --longp tokens or as many as the model has
positions for. Questions are a sample with about equally many from each range of positions, so means
over all of them are not those of the split. Each policy, and the run itself, is tested against the
model's FirstP; p values are corrected (Holm) over the ranges together.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from jaxrank.command_line import run
from jaxrank.data.collection import Collection
from jaxrank.errors import InputError
from jaxrank.evaluation.query_values import QueryValues, read_values
from jaxrank.evaluation.report import compare_runs
from jaxrank.evaluation.runs import Run, ranking, read_run, write_run
from jaxrank.evaluation.slices import slice_report, split_at
from jaxrank.evaluation.text_tables import comparison_table, render_table, slice_table
from jaxrank.files import atomic_open, check_target
from jaxrank.progress import track
from jaxrank.ranking.long_documents import COMBINATIONS, best_score
from jaxrank.ranking.policies import LongDocuments
from jaxrank.reranker import Reranker
from jaxrank.version import source_state

MEASURE = "nDCG@10"
POSITION = "words before the relevant passage"


def main() -> None:
    """Score by every model and policy; print the tables, write runs and JSON."""
    options = _parse()
    check_target(options.json)
    models = dict(_name_and_folder(text) for text in options.models)
    collection = Collection.open(options.collection, progress=True)
    places = read_values(options.collection / f"positions.{options.split}.tsv")
    sample = draw_queries(places, options.edges, options.queries, options.seed)
    first_stage = read_run(options.run)
    candidates = {
        query: {name: scores[name] for name in ranking(scores)[: options.depth]}
        for query in sample
        if (scores := first_stage.get(query))
    }
    qrels = collection.qrels(options.split)
    judged = {query: qrels[query] for query in sample}
    result: dict[str, Any] = {
        "settings": {
            "models": {name: str(folder) for name, folder in models.items()},
            "queries": len(sample),
            "found_by_first_stage": sum(
                any(qrels[query].get(name, 0) > 0 for name in candidates.get(query, ()))
                for query in sample
            ),
            **{name: getattr(options, name) for name in ("depth", "seed", "window", "stride")},
        },
        "source": source_state(),
        "models": {},
    }
    for name, folder in models.items():
        runs, passes = score_policies(name, folder, candidates, collection, options)
        for policy, reranked in runs.items():
            write_run(options.output / f"{name}.{policy}.run", reranked, tag=f"{name}-{policy}")
        compared = {"firstp": runs["firstp"], "first stage": candidates, **runs}
        report = compare_runs(judged, compared, [MEASURE], correction="holm")
        values = QueryValues(POSITION, {query: places.values[query] for query in sample})
        slices = slice_report(report, values, options.edges)
        print(f"\n{name}: {folder}", _pass_table(passes), sep="\n", flush=True)
        print("", comparison_table(report), "", slice_table(slices), sep="\n", flush=True)
        result["models"][name] = {
            "passes": passes, "all": report.as_json(), "slices": slices.as_json(),
        }  # fmt: skip
        with atomic_open(options.json) as file:
            file.write(json.dumps(result, indent=1) + "\n")
    settings = result["settings"]
    print(
        f"\nof {len(sample)} questions {settings['found_by_first_stage']} have a relevant article "
        f"among their {options.depth} candidates\nwrote {options.json}"
    )


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", required=True, metavar="NAME=FOLDER")
    parser.add_argument("--run", type=Path, required=True, help="TREC run of the first stage")
    parser.add_argument("--collection", type=Path, default=Path("data/medquad-articles"))
    parser.add_argument("--split", default="dev")
    parser.add_argument("--queries", type=int, default=90, help="in all, from all ranges")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--depth", type=int, default=20, help="candidates of a question")
    parser.add_argument("--window", type=int, help="tokens; default: the template's")
    parser.add_argument("--stride", type=int, help="tokens; default: half a window")
    parser.add_argument("--longp", type=int, default=1536, help="tokens of LongP, P2's")
    parser.add_argument(
        "--edges", type=float, nargs="+", default=[128, 512], help="words where a range begins"
    )
    parser.add_argument("--output", type=Path, default=Path("runs/long-documents"))
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/long_documents.json"))
    return parser.parse_args()


def _name_and_folder(text: str) -> tuple[str, Path]:
    name, separator, folder = text.partition("=")
    if not separator or not Path(folder).is_dir():
        raise InputError(f"models: got {text!r}; NAME=FOLDER is needed, with a model's folder")
    return name, Path(folder)


def draw_queries(places: QueryValues, edges: Sequence[float], queries: int, seed: int) -> list[str]:
    """Queries by chance, equally many from each range of positions while they last."""
    random = np.random.default_rng(seed)
    ranges = sorted(split_at(places.values, edges), key=len)
    drawn: list[str] = []
    for number, members in enumerate(ranges):
        share = (queries - len(drawn)) // (len(ranges) - number)
        order = random.permutation(len(members))[:share]
        drawn += [sorted(members)[place] for place in order]
    return sorted(drawn)


def score_policies(
    name: str, folder: Path, candidates: Run, collection: Collection, options: argparse.Namespace
) -> tuple[dict[str, Run], list[dict[str, Any]]]:
    """The runs of all policies, and what each pass over the candidates took."""
    model = Reranker.from_pretrained(folder)
    positions = model.config.backbone.max_length
    longp = options.longp if positions is None else min(options.longp, positions)
    windows = LongDocuments("maxp", window=options.window, stride=options.stride)
    plans = {
        "firstp": (model, LongDocuments("firstp")),
        "windows": (Reranker.from_pretrained(folder), windows),
        "longp": (Reranker.from_pretrained(folder, max_length=longp), LongDocuments("longp")),
    }
    runs: dict[str, Run] = {}
    passes = []
    for plan, (reranker, settings) in plans.items():
        policies = dict(COMBINATIONS) if settings.has_windows else {plan: best_score}
        for policy in policies:
            runs[policy] = {query: {} for query in candidates}
        pairs = [(query, document) for query in candidates for document in candidates[query]]
        texts = ((collection.queries[q], collection.documents[d]) for q, d in pairs)
        begin = perf_counter()
        scores = track(
            reranker.document_scorer(settings).window_scores(texts),
            description=f"{name} {plan}", unit="pair", enabled=True, total=len(pairs),
        )  # fmt: skip
        for (query, document), of_windows in zip(pairs, scores, strict=True):
            for policy, combine in policies.items():
                runs[policy][query][document] = combine(of_windows)
        counts = reranker.truncation
        passes.append(
            {
                "policies": "+".join(policies),
                "max_length": reranker.text.max_length,
                "pairs": len(pairs),
                "texts": counts.pairs,
                "documents_cut": counts.truncated_documents,
                "tokens_lost": counts.lost_document_tokens,
                "seconds": perf_counter() - begin,
            }
        )
    return runs, passes


def _pass_table(passes: Sequence[dict[str, Any]]) -> str:
    rows = [
        [f"{value:,.0f}" if isinstance(value, (int, float)) else value for value in one.values()]
        for one in passes
    ]
    return render_table([name.replace("_", " ") for name in passes[0]], rows)


if __name__ == "__main__":
    run(main)
