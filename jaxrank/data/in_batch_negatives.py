"""Which documents of a batch's other groups are negatives of a query; ids alone are looked at.

Not those that are known to be relevant to it (judged so, or the positive of another of its groups):
they would be false negatives. What is relevant to a query is so to all of the same text, whatever
their ids: files of groups with texts have an id a line. And not those that it meets already: a
document counts once, or what many groups were given as a negative would weigh more than the rest.
A query's own group is as the groups file has it. Documents are told apart by their ids: of two with
the same text one may be a negative where the other is relevant.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from jaxrank.data.groups import Group
from jaxrank.data.samples import Sample, candidate_ids

RelevantDocuments = Mapping[str, Collection[str]]
"""Query id -> documents that are known to be relevant to it; of a query it lacks, nothing is."""


class PairCounts(NamedTuple):
    """Pairs of queries with the documents of other groups: all of them, and those left out."""

    pairs: int = 0
    relevant: int = 0
    repeated: int = 0


def known_relevant(
    groups: Iterable[Group],
    qrels: Mapping[str, Mapping[str, int]],
    queries: Mapping[str, str],
) -> RelevantDocuments:
    """What judgements above grade 0 and the groups' positives say, of the groups' queries.

    Args:
        queries: query id -> text; queries of one text share what is relevant to any of them.
    """
    by_text: dict[str, set[str]] = defaultdict(set)
    relevant: dict[str, set[str]] = {}
    for group in groups:
        query_id = group.query_id
        if query_id not in relevant:
            relevant[query_id] = by_text[queries[query_id]]
            grades = qrels.get(query_id, {})
            relevant[query_id].update(name for name, grade in grades.items() if grade > 0)
        relevant[query_id].add(group.positive_id)
    return relevant


def count_repeated_queries(groups: Iterable[Group], queries: Mapping[str, str]) -> int:
    """How many of the groups' queries have the text of another one before them."""
    query_ids = {group.query_id for group in groups}
    return len(query_ids) - len({queries[query_id] for query_id in query_ids})


def mask_pairs(
    query_ids: Sequence[str],
    document_ids: Sequence[Sequence[str]],
    relevant: RelevantDocuments,
    *,
    candidates: int,
) -> tuple[Bool[np.ndarray, "Q QC"], PairCounts]:
    """Which documents count for each query, the positive of its own group among them.

    Args:
        query_ids: of the Q groups that meet one another.
        document_ids: of each group, its positive first; at most `candidates`.
        relevant: to queries.
        candidates: C, places of a group; those beyond its documents do not count.

    Returns:
        The mask, a query's own group first and behind it the groups that follow, cyclically; and
        what was left out.
    """
    num_groups = len(query_ids)
    mask = np.zeros((num_groups, num_groups, candidates), np.bool_)
    pairs = found_relevant = repeated = 0
    for number, query_id in enumerate(query_ids):
        met = set(document_ids[number])
        mask[number, 0, : len(document_ids[number])] = True
        known = relevant.get(query_id, ())
        for step in range(1, num_groups):
            for place, name in enumerate(document_ids[(number + step) % num_groups]):
                pairs += 1
                if name in known:
                    found_relevant += 1
                elif name in met:
                    repeated += 1
                else:
                    mask[number, step, place] = True
                    met.add(name)
    return mask.reshape(num_groups, -1), PairCounts(pairs, found_relevant, repeated)


def count_pairs(
    groups: Sequence[Group],
    samples: Sequence[Sample],
    relevant: RelevantDocuments,
    *,
    groups_together: int,
    candidates: int,
) -> PairCounts:
    """What is left out of the first samples, of which so many at a time meet one another."""
    total = PairCounts()
    for start in range(0, len(samples), groups_together):
        part = samples[start : start + groups_together]
        drawn = [groups[sample.group] for sample in part]
        _, counts = mask_pairs(
            [group.query_id for group in drawn],
            [candidate_ids(*pair) for pair in zip(drawn, part, strict=True)],
            relevant,
            candidates=candidates,
        )
        total = PairCounts(*map(sum, zip(total, counts, strict=True)))
    return total
