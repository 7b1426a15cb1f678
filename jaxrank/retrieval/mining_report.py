"""What mining made of a run, and where everything else went: counts that add up."""

from dataclasses import dataclass


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
        positives_without_negatives: positives left out, since no candidate was left for them.
        positives_not_in_collection: positives left out, since the collection lacks the document.
        queries_not_in_run: queries with a positive that the run lacks; left out.
        positives_of_queries_not_in_run: how many positives these have.
        queries_without_positives: judged queries without a judgement of the wanted grade.
        queries_not_judged: queries of the run that have no judgement.
        positives_in_range: relevant documents found among the ranks and kept out of the negatives.
        excluded: documents kept out by the exclusion list.
        duplicates_of_relevant: candidates with the body of a relevant document, kept out; None:
            not looked for.
        duplicates_of_candidates: candidates with the body of a better ranked one, kept out.
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
    positives_without_negatives: int = 0
    positives_not_in_collection: int = 0
    queries_not_in_run: int = 0
    positives_of_queries_not_in_run: int = 0
    queries_without_positives: int = 0
    queries_not_judged: int = 0
    positives_in_range: int = 0
    excluded: int = 0
    duplicates_of_relevant: int | None = None
    duplicates_of_candidates: int = 0
    above_margin: int | None = None
    positives_without_score: int = 0

    def lines(self) -> list[str]:
        """The counts in words; those that are 0 only where a reader would look for them."""
        lines = [
            f"{self.groups} groups of {self.queries} queries",
            f"{self.positives_used} of {self.positives} positives have their groups",
            f"{self.short_groups} groups are short, of {self.missing_negatives} negatives together",
            f"{self.positives_not_in_collection} positives are not in the collection: left out",
            f"{self.excluded} candidates are on the exclusion list: left out",
            f"{self.positives_in_range} candidates are judged relevant: left out",
            self._duplicates(),
        ]
        if self.above_margin is not None:
            lines.append(
                f"{self.above_margin} candidates score above the margin to a positive: left out; "
                f"{self.positives_without_score} positives are not in the run and have no margin"
            )
        if self.queries_not_in_run:
            lines.append(
                f"{self.queries_not_in_run} queries are not in the run, with "
                f"{self.positives_of_queries_not_in_run} positives: left out"
            )
        if self.queries_without_positives:
            lines.append(f"{self.queries_without_positives} judged queries have no positive")
        if self.queries_not_judged:
            lines.append(
                f"{self.queries_not_judged} queries of the run are not judged: passed over"
            )
        if self.positives_without_negatives:
            lines.append(f"{self.positives_without_negatives} positives have no negative: left out")
        return lines

    def _duplicates(self) -> str:
        if self.duplicates_of_relevant is None:
            return "duplicates among the candidates: not looked for (drop_duplicates does)"
        return (
            f"{self.duplicates_of_relevant} candidates are duplicates of a relevant document, "
            f"{self.duplicates_of_candidates} of another candidate: left out"
        )
