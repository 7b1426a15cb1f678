"""Training groups with the scores of a teacher, from which a smaller model can learn."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from jaxrank.data.groups import Group, TrainingData
from jaxrank.errors import InputError
from jaxrank.progress import progress_bar
from jaxrank.ranking.scoring import ScorePairs

# As in reranking: few enough that the bar moves, many enough that sorting by length pays.
_CHUNK_PAIRS = 512


def score_groups(
    data: TrainingData, score_pairs: ScorePairs, *, progress: bool = False
) -> Iterator[Group]:
    """Yield the groups with `teacher_scores`, in their order.

    Texts are read and scored some hundred pairs at a time. Where neighbouring groups share a query
    and a document, as those of a query with several positives do, the pair is scored once.

    Args:
        score_pairs: (query, document) texts -> scores, float32 (n,).

    Raises:
        InputError: a score is not finite.
    """
    total = sum(1 + len(group.negative_ids) for group in data.groups)
    with progress_bar(description="scoring", unit="pair", enabled=progress, total=total) as bar:
        for groups in _chunks(data.groups):
            pairs = list(dict.fromkeys(pair for group in groups for pair in _pairs(group)))
            texts = [(data.queries[query], data.documents[document]) for query, document in pairs]
            scores = dict(zip(pairs, map(float, score_pairs(texts)), strict=True))
            for group in groups:
                of_group = tuple(scores[pair] for pair in _pairs(group))
                if not all(map(math.isfinite, of_group)):
                    raise InputError(
                        f"query {group.query_id!r}: the model's scores are not finite; "
                        "no model can learn from them"
                    )
                yield replace(group, teacher_scores=of_group)
                bar.update(len(of_group))


def _pairs(group: Group) -> list[tuple[str, str]]:
    return [(group.query_id, document) for document in (group.positive_id, *group.negative_ids)]


def _chunks(groups: Sequence[Group]) -> Iterator[list[Group]]:
    """Consecutive groups of at least `_CHUNK_PAIRS` pairs together."""
    chunk: list[Group] = []
    size = 0
    for group in groups:
        chunk.append(group)
        size += 1 + len(group.negative_ids)
        if size >= _CHUNK_PAIRS:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
