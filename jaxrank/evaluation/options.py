"""What an evaluation needs to know: the options of jaxrank.evaluate that name no collection."""

from dataclasses import dataclass
from pathlib import Path

from jaxrank.evaluation.correction import Correction
from jaxrank.evaluation.tracks import TrackName


@dataclass(frozen=True)
class AssessmentOptions:
    """Runs, the judgements they are compared on, and the files that keep the result."""

    qrels: Path
    """Judgements: TREC (4 columns) or BEIR (3 columns under a header)."""
    runs: tuple[Path, ...]
    """TREC runs, one or more; may be gzip."""
    measures: str | None = None
    """ir-measures' names; null takes the track's, or "RR@10 nDCG@10 R@50". Binary measures take
    grades >= 1 as relevant, "RR(rel=2)@10" those >= 2."""
    track: TrackName | None = None
    """Evaluate as this track does: its measures, relevance levels and number of queries."""
    baseline: Path | None = None
    """The run of --runs that the others are tested against; null takes the first."""
    correction: Correction = "none"
    """Of p values, over all runs that a measure compares with the baseline."""
    json: Path | None = None
    """JSON file to write means, intervals, tests and slices to."""
    csv: Path | None = None
    """CSV file to write the same to: one line a slice, run and measure."""
    latex: Path | None = None
    """File to write LaTeX rows to, one a run; a dagger marks p < .05 against the baseline."""
    per_query: Path | None = None
    """TSV file to write every query's values to: run, measure, query, value."""
    slice_by: tuple[str, ...] = ()
    """Also compare on parts of the queries: by query_length, by document_length (of the relevant
    ones; both in words), or by TSV files "query<tab>number". Quarters; "query_length:5,9" begins
    slices at 5 and 9."""

    @property
    def outputs(self) -> dict[str, Path]:
        """Option -> file to write, of those that are asked for."""
        names = ("json", "csv", "latex", "per_query")
        paths = {f"--{name}": getattr(self, name) for name in names}
        return {option: path for option, path in paths.items() if path is not None}
