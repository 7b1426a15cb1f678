"""Hard negatives: documents that the first stage ranks high and that are not judged relevant.

A document is a candidate for a query's negatives if its rank lies in the wanted range and neither a
grade above 0 nor the exclusion list names it. Documents judged 0 stay: a person has called them not
relevant, which is more than is known of the others.

Every draw has a random stream of its own, named by seed, query and positive. So the negatives of a
query do not change when other queries come or go.
"""

import random
from collections.abc import Container, Set
from dataclasses import dataclass
from pathlib import Path

from jaxrank.data.groups import Group
from jaxrank.errors import InputError
from jaxrank.evaluation.qrels import Qrels
from jaxrank.evaluation.runs import Run, ranking
from jaxrank.files import read_lines

Exclusions = Set[tuple[str, str]]
"""Pairs (query id, document id) that must not become negatives."""


@dataclass(frozen=True)
class MiningReport:
    """What mining made, and what it left out.

    Attributes:
        groups: groups made.
        queries: queries that got at least one group.
        short_groups: groups with fewer negatives than asked for.
        missing_negatives: negatives that these lack, together.
        positives_without_negatives: positives left out, since no candidate was left for them.
        positives_not_in_collection: positives left out, since the collection lacks the document.
        queries_not_in_run: queries with a positive that the run lacks; left out.
        positives_in_range: relevant documents found among the ranks and kept out of the negatives.
        excluded: documents kept out by the exclusion list.
    """

    groups: int = 0
    queries: int = 0
    short_groups: int = 0
    missing_negatives: int = 0
    positives_without_negatives: int = 0
    positives_not_in_collection: int = 0
    queries_not_in_run: int = 0
    positives_in_range: int = 0
    excluded: int = 0

    def lines(self) -> list[str]:
        """The counts in words; those that are 0 only where a reader would look for them."""
        lines = [
            f"{self.groups} groups of {self.queries} queries",
            f"{self.short_groups} groups are short, of {self.missing_negatives} negatives together",
            f"{self.positives_not_in_collection} positives are not in the collection: left out",
            f"{self.excluded} candidates are on the exclusion list: left out",
            f"{self.positives_in_range} candidates are judged relevant: left out",
        ]
        if self.queries_not_in_run:
            lines.append(f"{self.queries_not_in_run} queries are not in the run: left out")
        if self.positives_without_negatives:
            lines.append(f"{self.positives_without_negatives} positives have no negative: left out")
        return lines


def read_exclusions(path: str | Path) -> set[tuple[str, str]]:
    """Read `query_id <tab> document_id` lines; blank lines are passed over.

    Raises:
        InputError: naming file and line: other than two columns.
    """
    pairs = set()
    for number, line in read_lines(path):
        columns = line.split()
        if columns and len(columns) != 2:
            raise InputError(
                f"{path}:{number}: {len(columns)} columns; an exclusion list has 2 (query document)"
            )
        if columns:
            pairs.add((columns[0], columns[1]))
    return pairs


def mine_negatives(
    run: Run,
    qrels: Qrels,
    *,
    negatives: int,
    first_rank: int = 1,
    last_rank: int = 50,
    groups_per_positive: int = 1,
    seed: int = 0,
    exclude: Exclusions = frozenset(),
    documents: Container[str] | None = None,
) -> tuple[list[Group], MiningReport]:
    """Make groups of one positive and negatives drawn evenly from a range of ranks.

    The groups of one positive share no negative as long as its candidates last.

    Args:
        run: the first stage's candidates.
        qrels: judgements; every document with a grade above 0 is a positive.
        negatives: negatives in a group. More than training takes at a time make a pool, from which
            it draws anew in every epoch.
        first_rank: best rank that may become a negative, from 1, counted in the run as it is.
        last_rank: worst rank that may become one.
        groups_per_positive: groups made of each positive.
        seed: of the draws.
        exclude: pairs that must not become negatives.
        documents: ids of the collection, to leave out positives that it lacks; None checks nothing.

    Raises:
        InputError: numbers out of range, a run whose documents the collection lacks, or no group.
    """
    _check_ranges(negatives, first_rank, last_rank, groups_per_positive)
    groups: list[Group] = []
    counts: dict[str, int] = dict.fromkeys(MiningReport.__dataclass_fields__, 0)
    for query_id, judged in qrels.items():
        positives = [document_id for document_id, grade in judged.items() if grade > 0]
        known = [p for p in positives if documents is None or p in documents]
        counts["positives_not_in_collection"] += len(positives) - len(known)
        if not known:
            continue
        if query_id not in run:
            counts["queries_not_in_run"] += 1
            continue
        in_range = ranking(run[query_id])[first_rank - 1 : last_rank]
        _check_known(query_id, in_range, documents)
        unjudged = [d for d in in_range if judged.get(d, 0) <= 0]
        candidates = [d for d in unjudged if (query_id, d) not in exclude]
        counts["positives_in_range"] += len(in_range) - len(unjudged)
        counts["excluded"] += len(unjudged) - len(candidates)
        if not candidates:
            counts["positives_without_negatives"] += len(known)
            continue
        counts["queries"] += 1
        for positive_id in known:
            stream = random.Random(f"{seed}\t{query_id}\t{positive_id}")
            shuffled = stream.sample(candidates, len(candidates))
            for number in range(groups_per_positive):
                drawn = _window(shuffled, number * negatives, negatives)
                counts["short_groups"] += len(drawn) < negatives
                counts["missing_negatives"] += negatives - len(drawn)
                groups.append(Group(query_id, positive_id, drawn))
    counts["groups"] = len(groups)
    report = MiningReport(**counts)
    if not groups:
        raise InputError(f"no group could be made: {'; '.join(report.lines()[1:])}")
    return groups, report


def _window(shuffled: list[str], start: int, size: int) -> tuple[str, ...]:
    """`size` entries from `start` on, going round at the end, none of them twice."""
    count = min(size, len(shuffled))
    return tuple(shuffled[(start + offset) % len(shuffled)] for offset in range(count))


def _check_ranges(negatives: int, first: int, last: int, groups_per_positive: int) -> None:
    if negatives < 1:
        raise InputError(f"negatives: {negatives}; at least 1 is needed")
    if not 1 <= first <= last:
        raise InputError(f"first_rank, last_rank: {first}, {last}; 1 <= first <= last is needed")
    if last - first + 1 < negatives:
        raise InputError(
            f"negatives: {negatives}; ranks {first} to {last} are only {last - first + 1}"
        )
    if groups_per_positive < 1:
        raise InputError(f"groups_per_positive: {groups_per_positive}; at least 1 is needed")


def _check_known(query_id: str, ids: list[str], documents: Container[str] | None) -> None:
    if documents is None:
        return
    for document_id in ids:
        if document_id not in documents:
            raise InputError(
                f"run: query {query_id!r} has document {document_id!r}, which is not in the "
                "collection; was the run made from another one?"
            )
