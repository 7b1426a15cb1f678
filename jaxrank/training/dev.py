"""The dev measure: a fixed sample of queries whose candidates are reranked at each milestone.

The pairs are tokenised once, when the sample is drawn; a milestone costs one pass of scoring.
What it gave for each query can be kept, see `per_query`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxrank.errors import InputError
from jaxrank.evaluation.measures import evaluate_run, parse_measures
from jaxrank.evaluation.qrels import Qrels
from jaxrank.evaluation.runs import Run, ranking
from jaxrank.text.tokenize import PairTokenizer, TokenizedPair, TruncationCounts
from jaxrank.training.config import DevConfig
from jaxrank.training.per_query import write_per_query

ScorePairs = Callable[[Sequence[TokenizedPair]], np.ndarray]


@dataclass(frozen=True)
class DevSample:
    """Judged queries with the best candidates of a first stage."""

    qrels: Qrels
    """Judgements of the sampled queries, all of them: a relevant document that is not among the
    candidates counts against the reranker as it does against the first stage."""

    candidates: Run
    """query id -> document id -> score of the first stage."""

    pairs: Sequence[TokenizedPair]
    """The candidates, tokenised, in the order of `candidates`."""

    measures: tuple[str, ...]
    """Names of the measures."""

    truncation: TruncationCounts
    """What tokenising the candidates cut."""

    def evaluate(self, score: ScorePairs, *, path: Path | None = None) -> dict[str, float]:
        """Measures of the candidates in the order of their scores, `score(pairs)`.

        Args:
            path: file for the values of each query.
        """
        scores = iter(score(self.pairs).tolist())
        run = {
            query_id: {document_id: next(scores) for document_id in documents}
            for query_id, documents in self.candidates.items()
        }
        return self._measure(run, prefix="dev", path=path)

    def evaluate_first_stage(self, *, path: Path | None = None) -> dict[str, float]:
        """Measures of the candidates in the order in which they came: what is to be beaten."""
        return self._measure(self.candidates, prefix="first_stage", path=path)

    def _measure(self, run: Run, *, prefix: str, path: Path | None) -> dict[str, float]:
        evaluation = evaluate_run(self.qrels, run, list(self.measures))
        if path is not None:
            write_per_query(path, evaluation.per_query)
        return {f"{prefix}/{name}": value for name, value in evaluation.means.items()}


def draw_sample(
    config: DevConfig,
    *,
    run: Run,
    qrels: Qrels,
    queries: Mapping[str, str],
    documents: Mapping[str, str],
    tokenizer: PairTokenizer,
) -> DevSample:
    """Draw `config.queries` of the judged queries and tokenise their candidates.

    A judged query without candidates can be drawn too; it counts 0, for every model alike.

    Raises:
        InputError: no judged query has candidates, a candidate's text is not there, or an unknown
            measure.
    """
    parse_measures(config.measures)
    if not run.keys() & qrels.keys():
        raise InputError(
            f"dev.run: none of its {len(run)} queries is judged in split {config.split!r}"
        )
    query_ids = sorted(qrels)
    if config.queries is not None and config.queries < len(query_ids):
        chosen = np.random.default_rng(config.seed).choice(
            len(query_ids), size=config.queries, replace=False
        )
        query_ids = [query_ids[index] for index in sorted(chosen)]
    candidates = {
        query_id: {id: run[query_id][id] for id in ranking(run[query_id])[: config.depth]}
        for query_id in query_ids
        if query_id in run
    }
    texts = [
        (queries[query_id], _text(documents, query_id, document_id))
        for query_id, scores in candidates.items()
        for document_id in scores
    ]
    pairs, truncation = tokenizer.encode_and_count(texts)
    return DevSample(
        qrels={query_id: qrels[query_id] for query_id in query_ids},
        candidates=candidates,
        pairs=pairs,
        measures=config.measures,
        truncation=truncation,
    )


def _text(documents: Mapping[str, str], query_id: str, document_id: str) -> str:
    try:
        return documents[document_id]
    except KeyError:
        raise InputError(
            f"dev.run: query {query_id!r} has document {document_id!r}, which data.collection "
            "lacks; give the collection that the run was made from"
        ) from None
