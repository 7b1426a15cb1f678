"""Hard negatives: documents that the first stage ranks high and that are not judged relevant.

A document is a candidate for a query's negatives if its rank lies in the wanted range and neither a
grade above 0 nor the exclusion list names it. Documents judged 0 stay: a person has called them not
relevant, which is more than is known of the others. Guards leave out more of what may be relevant
without being judged so.

Every draw has a random stream of its own, named by seed, query and positive. So the negatives of a
query do not change when other queries come or go.
"""

import random
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Set
from functools import lru_cache
from pathlib import Path
from typing import Any

from jaxrank.data.groups import Group
from jaxrank.errors import InputError
from jaxrank.evaluation.qrels import Qrels
from jaxrank.evaluation.runs import Run, ranking
from jaxrank.files import read_lines
from jaxrank.retrieval.mining_config import MiningConfig
from jaxrank.retrieval.mining_report import MiningReport

_DOCUMENTS_KEPT = 1 << 20  # whose look-ups are remembered: some 200 MB of ids

Exclusions = Set[tuple[str, str]]
"""Pairs (query id, document id) that must not become negatives."""


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
    exclude: Exclusions = frozenset(),
    documents: Container[str] | None = None,
    fingerprint: Callable[[str], int] | None = None,
    **settings: Any,
) -> tuple[list[Group], MiningReport]:
    """All groups of a run in memory, and the report: `Miner` for a run that fits.

    Args:
        settings: fields of `MiningConfig`.

    Raises:
        InputError: as `MiningConfig` and `Miner.mine`.
    """
    miner = Miner(
        qrels,
        MiningConfig(**settings),
        exclude=exclude,
        documents=documents,
        fingerprint=fingerprint,
    )
    return list(miner.mine(run.items())), miner.report()


class Miner:
    """Makes groups of one positive and negatives drawn evenly from a range of ranks.

    It goes over a run query by query, so memory holds the judgements and one query's results.

    Args:
        qrels: judgements; every document with a grade of at least `config.min_grade` is a positive.
        exclude: pairs that must not become negatives.
        documents: ids of the collection, to leave out positives that it lacks; None checks nothing.
        fingerprint: of a document's body by its id, to count duplicates or, with
            `config.drop_duplicates`, to leave them out; None looks for none.
        run_name, collection_name: what messages call them, e.g. their paths.
    """

    def __init__(
        self,
        qrels: Qrels,
        config: MiningConfig,
        *,
        exclude: Exclusions = frozenset(),
        documents: Container[str] | None = None,
        fingerprint: Callable[[str], int] | None = None,
        run_name: str = "run",
        collection_name: str = "the collection",
    ) -> None:
        if config.drop_duplicates and fingerprint is None:
            raise ValueError("drop_duplicates needs fingerprints of the documents")
        self._qrels = qrels
        self._config = config
        self._exclude = exclude
        self._documents = documents
        self._fingerprint = fingerprint
        self._run_name = run_name
        self._collection_name = collection_name
        self._counts: Counter[str] = Counter()
        self._first_missing: str | None = None
        # Half of the time would go into looking up the same documents for query after query.
        self._look_up = lru_cache(_DOCUMENTS_KEPT)(self._look_up_in_collection)

    def report(self) -> MiningReport:
        """What came of the queries so far; whole once `mine` has ended."""
        counts: dict[str, int] = dict(self._counts)
        if self._exclude:
            counts.setdefault("excluded", 0)
        if self._fingerprint is not None:
            counts.setdefault("duplicates_of_relevant", 0)
        if self._config.score_margin is not None:
            counts.setdefault("above_margin", 0)
        return MiningReport(
            **counts,
            first_not_in_collection=self._first_missing,
            has_dropped_duplicates=self._config.drop_duplicates,
        )

    def mine(self, run: Iterable[tuple[str, dict[str, float]]]) -> Iterator[Group]:
        """Yield the groups of each query of the run, in its order.

        The groups of one positive share no negative as long as its candidates last.

        Args:
            run: query id and scores of documents, each query once, as `iter_run` gives them.

        Raises:
            InputError: a run whose documents the collection lacks, or at the end one without a
                judged query, or no group at all.
        """
        in_run: set[str] = set()
        first = None
        for query_id, scores in run:
            first = first or query_id
            if query_id not in self._qrels:
                self._counts["queries_not_judged"] += 1
                continue
            in_run.add(query_id)
            if positives := self._find_positives(query_id):
                yield from self._mine_query(query_id, positives, scores)
        if not in_run:
            raise InputError(
                f"{self._run_name}: none of its {self._counts['queries_not_judged']} queries is "
                f"judged (first {first!r}, judged is {next(iter(self._qrels), None)!r}); give the "
                "split that the run was made for"
            )
        for query_id in self._qrels:
            if query_id not in in_run and (positives := self._find_positives(query_id)):
                self._counts["queries_not_in_run"] += 1
                self._counts["positives_of_queries_not_in_run"] += len(positives)
        if not self._counts["groups"]:
            raise InputError(f"no group could be made: {'; '.join(self.report().causes())}")

    def _find_positives(self, query_id: str) -> list[str]:
        """The positives of a query that the collection has."""
        judged = self._qrels[query_id]
        positives = [name for name, grade in judged.items() if grade >= self._config.min_grade]
        known = [name for name in positives if self._is_known(name)]
        if self._first_missing is None and len(known) < len(positives):
            self._first_missing = next(name for name in positives if not self._is_known(name))
        self._counts["queries_without_positives"] += not positives
        self._counts["positives"] += len(positives)
        self._counts["positives_not_in_collection"] += len(positives) - len(known)
        return known

    def _mine_query(
        self, query_id: str, positives: list[str], scores: dict[str, float]
    ) -> Iterator[Group]:
        config, counts = self._config, self._counts
        candidates = self._find_candidates(query_id, scores)
        has_groups = False
        for positive_id in positives:
            left = self._below_margin(candidates, positive_id, scores)
            if not left:
                counts["positives_without_negatives"] += 1
                continue
            has_groups = True
            counts["positives_used"] += 1
            stream = random.Random(f"{config.seed}\t{query_id}\t{positive_id}")
            shuffled = stream.sample(left, len(left))
            drawn_before: set[str] = set()
            for number in range(config.groups_per_positive):
                drawn = _window(shuffled, number * config.negatives, config.negatives)
                counts["groups"] += 1
                counts["short_groups"] += len(drawn) < config.negatives
                counts["missing_negatives"] += config.negatives - len(drawn)
                counts["repeated_negatives"] += len(drawn_before.intersection(drawn))
                drawn_before.update(drawn)
                yield Group(query_id, positive_id, drawn)
        counts["queries"] += has_groups

    def _find_candidates(self, query_id: str, scores: dict[str, float]) -> list[str]:
        """What may be a negative for each positive of the query, best rank first."""
        judged = self._qrels[query_id]
        in_range = ranking(scores)[self._config.first_rank - 1 : self._config.last_rank]
        unknown = next((name for name in in_range if not self._is_known(name)), None)
        if unknown is not None:
            raise InputError(
                f"{self._run_name}: query {query_id!r} has document {unknown!r}, which "
                f"{self._collection_name} lacks; give the collection that the run was made from"
            )
        unjudged = [name for name in in_range if judged.get(name, 0) <= 0]
        candidates = [name for name in unjudged if (query_id, name) not in self._exclude]
        self._counts["positives_in_range"] += len(in_range) - len(unjudged)
        if self._exclude:
            self._counts["excluded"] += len(unjudged) - len(candidates)
        if self._fingerprint is None:
            return candidates
        distinct = self._find_distinct(query_id, candidates)
        return distinct if self._config.drop_duplicates else candidates

    def _find_distinct(self, query_id: str, candidates: list[str]) -> list[str]:
        """The candidates whose body neither a relevant document nor a better ranked one has."""
        relevant = [
            name
            for name, grade in self._qrels[query_id].items()
            if grade > 0 and self._is_known(name)
        ]
        of_relevant = set(map(self._look_up, relevant))
        firsts: dict[int | None, str] = {}
        for name in candidates:
            body = self._look_up(name)
            if body in of_relevant:
                self._counts["duplicates_of_relevant"] += 1
            elif body in firsts:
                self._counts["duplicates_of_candidates"] += 1
            else:
                firsts[body] = name
        return list(firsts.values())

    def _below_margin(
        self, candidates: list[str], positive_id: str, scores: dict[str, float]
    ) -> list[str]:
        """The candidates that score clearly below the positive."""
        if self._config.score_margin is None:
            return candidates
        if positive_id not in scores:
            self._counts["positives_without_score"] += 1
            return candidates
        highest = scores[positive_id] - self._config.score_margin
        left = [name for name in candidates if scores[name] <= highest]
        self._counts["above_margin"] += len(candidates) - len(left)
        return left

    def _is_known(self, document_id: str) -> bool:
        return self._look_up(document_id) is not None

    def _look_up_in_collection(self, document_id: str) -> int | None:
        """The fingerprint, or 0 where there are none; None for a document that is not there."""
        if self._documents is not None and document_id not in self._documents:
            return None
        return 0 if self._fingerprint is None else self._fingerprint(document_id)


def _window(shuffled: list[str], start: int, size: int) -> tuple[str, ...]:
    """`size` entries from `start` on, going round at the end, none of them twice."""
    count = min(size, len(shuffled))
    return tuple(shuffled[(start + offset) % len(shuffled)] for offset in range(count))
