"""What mining made of a run, and where everything else went: counts that add up."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class MiningReport:
    """What mining made, and what it left out.

    Every positive is in one of four places:

        positives = positives_used + positives_not_in_collection
                    + positives_of_queries_not_in_run + positives_without_negatives
        groups    = positives_used x groups_per_positive

    Attributes:
        groups: groups made.
        queries: queries that got at least one group.
        positives: judgements of the wanted grade.
        positives_used: those that got their groups.
        short_groups: groups with fewer negatives than asked for.
        missing_negatives: negatives that these lack, together.
        repeated_negatives: negatives that an earlier group of the same positive has already, since
            there were too few candidates.
        positives_without_negatives: positives left out, since no candidate was left for them.
        positives_not_in_collection: positives left out, since the collection lacks the document.
        first_not_in_collection: the first such document.
        queries_not_in_run: queries with a positive that the run lacks; left out.
        positives_of_queries_not_in_run: how many positives these have.
        queries_without_positives: judged queries without a judgement of the wanted grade.
        queries_not_judged: queries of the run that have no judgement.
        positives_in_range: relevant documents found among the ranks and kept out of the negatives.
        excluded: documents kept out by the exclusion list; None: there was none.
        duplicates_of_relevant: candidates with the body of a relevant document; None: not looked
            for.
        duplicates_of_candidates: candidates with the body of a better ranked one.
        has_dropped_duplicates: whether these are left out, or only counted.
        above_margin: candidates kept out by the score margin, counted once for each positive that
            they were kept from; None: there was no margin.
        positives_without_score: positives that the run does not have, so that the margin says
            nothing of their candidates.
    """

    groups: int = 0
    queries: int = 0
    positives: int = 0
    positives_used: int = 0
    short_groups: int = 0
    missing_negatives: int = 0
    repeated_negatives: int = 0
    positives_without_negatives: int = 0
    positives_not_in_collection: int = 0
    first_not_in_collection: str | None = None
    queries_not_in_run: int = 0
    positives_of_queries_not_in_run: int = 0
    queries_without_positives: int = 0
    queries_not_judged: int = 0
    positives_in_range: int = 0
    excluded: int | None = None
    duplicates_of_relevant: int | None = None
    duplicates_of_candidates: int = 0
    has_dropped_duplicates: bool = False
    above_margin: int | None = None
    positives_without_score: int = 0

    def lines(self) -> list[str]:
        """The counts in words: those of the core, of guards that were on and of duplicates if they
        were looked for; others if not 0.
        """
        made = [
            f"{self.groups} groups of {self.queries} queries",
            f"{self.positives_used} of {self.positives} positives have their groups",
            f"{self.short_groups} groups are short, of {self.missing_negatives} negatives together",
        ]
        return [*made, *(line.text for line in self._left_out() if line.is_core or line.number)]

    def causes(self) -> list[str]:
        """Where positives and candidates went, without what took none."""
        return [line.text for line in self._left_out() if line.number]

    def _left_out(self) -> list["_Line"]:
        return [
            _Line(self.positives_not_in_collection, self._not_in_collection()),
            _Line(
                self.queries_not_in_run,
                f"{self.queries_not_in_run} queries are not in the run, with "
                f"{self.positives_of_queries_not_in_run} positives: left out",
            ),
            _Line(
                self.positives_without_negatives,
                f"{self.positives_without_negatives} positives have no negative: left out",
            ),
            _Line(
                self.positives_in_range,
                f"{self.positives_in_range} candidates are judged relevant: left out",
            ),
            *self._guards(),
            _Line(
                self.repeated_negatives,
                f"{self.repeated_negatives} negatives are in another group of their positive too, "
                "for want of candidates",
                is_core=False,
            ),
            _Line(
                self.queries_without_positives,
                f"{self.queries_without_positives} judged queries have no positive",
                is_core=False,
            ),
            _Line(
                self.queries_not_judged,
                f"{self.queries_not_judged} queries of the run are not judged: passed over",
                is_core=False,
            ),
        ]

    def _not_in_collection(self) -> str:
        first = self.first_not_in_collection
        named = "" if first is None else f", first {first}"
        count = self.positives_not_in_collection
        return f"{count} positives are not in the collection{named}: left out"

    def _guards(self) -> Iterator["_Line"]:
        if self.excluded is not None:
            yield _Line(
                self.excluded,
                f"{self.excluded} candidates are on the exclusion list: left out",
            )
        if self.duplicates_of_relevant is not None:
            dropped = self.has_dropped_duplicates
            yield _Line(
                self.duplicates_of_relevant + self.duplicates_of_candidates,
                f"{self.duplicates_of_relevant} candidates are duplicates of a relevant document, "
                f"{self.duplicates_of_candidates} of another candidate: "
                + ("left out" if dropped else "kept (drop_duplicates leaves them out)"),
            )
        if self.above_margin is not None:
            yield _Line(
                self.above_margin + self.positives_without_score,
                f"{self.above_margin} candidates score above the margin to a positive: left out; "
                f"{self.positives_without_score} positives are not in the run and have no margin",
            )


class _Line(NamedTuple):
    number: int
    text: str
    is_core: bool = True
