"""From files to files: judgements and runs are read, compared, sliced, and written as asked for."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from jaxrank.errors import InputError
from jaxrank.evaluation.csv_rows import csv_text
from jaxrank.evaluation.latex import latex_rows
from jaxrank.evaluation.measures import Evaluation, parse_measures, split_measures
from jaxrank.evaluation.options import AssessmentOptions
from jaxrank.evaluation.qrels import Qrels, read_qrels
from jaxrank.evaluation.query_values import Texts, files_of, values_for
from jaxrank.evaluation.report import Report, compare, evaluate_named, remarks_on
from jaxrank.evaluation.run_names import name_runs
from jaxrank.evaluation.runs import SeparatedQueryError, iter_run, read_run
from jaxrank.evaluation.slices import Slicing, slice_report
from jaxrank.evaluation.text_tables import comparison_table, slice_table
from jaxrank.evaluation.tracks import TRACKS, TrackName, track_notes
from jaxrank.files import atomic_open, check_apart, check_target
from jaxrank.progress import track as progress_over

DEFAULT_MEASURES = "RR@10 nDCG@10 R@50"


@dataclass(frozen=True)
class Assessment:
    """What is known of runs by one set of judgements.

    Attributes:
        qrels: the judgements' file.
        track: by whose conventions, or None.
        report: over all queries.
        slicings: over parts of them.
    """

    qrels: Path
    track: TrackName | None
    report: Report
    slicings: tuple[Slicing, ...]

    def text(self) -> str:
        """Tables and notes for the terminal."""
        head = f"{self.qrels}: {self.report.num_queries} queries; baseline {self.report.baseline}"
        lines = [head, comparison_table(self.report), *self.report.notes()]
        for slicing in self.slicings:
            lines += ["", slice_table(slicing), *slicing.notes()]
        return "\n".join(lines)

    def write(self, options: AssessmentOptions) -> list[Path]:
        """Write the files that the options name, each atomically; returns their paths."""
        texts: dict[Path | None, Callable[[], Iterable[str]]] = {
            options.json: lambda: [json.dumps(self._as_json(), indent=2), "\n"],
            options.csv: lambda: [csv_text(self.report, self.slicings)],
            options.latex: lambda: (f"{line}\n" for line in latex_rows(self.report)),
            options.per_query: lambda: (f"{line}\n" for line in self.report.per_query_lines()),
        }
        paths = [path for path in texts if path is not None]
        for path in paths:
            with atomic_open(path) as file:
                file.writelines(texts[path]())
        return paths

    def _as_json(self) -> dict[str, object]:
        slices = [slicing.as_json() for slicing in self.slicings]
        return {
            "qrels": str(self.qrels),
            "track": self.track,
            **self.report.as_json(),
            "notes": self.report.notes(),
            **({"slicings": slices} if slices else {}),
        }


def assess(
    options: AssessmentOptions, *, texts: Texts | None = None, progress: bool = False
) -> Assessment:
    """Evaluate run files and compare them with the baseline.

    Runs are read one at a time, and query by query where a query's lines stand together.

    Args:
        texts: the collection, for slices by length.

    Raises:
        InputError: files that cannot be read as what they are, or written where they shall; unknown
            measures, both measures and a track, a slicing without its texts.
    """
    _check_outputs(options)
    names = name_runs(options.runs, options.baseline)
    measures = _measures(options)
    parse_measures(measures)  # first, since an unknown one is no fault of a file
    qrels = read_qrels(options.qrels)
    slices = [values_for(what, qrels, texts) for what in options.slice_by]
    track = options.track
    drops = track is not None and TRACKS[track].drops_the_query_itself
    reader = _Reader(qrels, measures, drops, progress)
    evaluations = {name: reader.evaluate(name, path) for name, path in names.items()}
    report = compare(evaluations, correction=options.correction, progress=progress)
    official = [] if track is None else track_notes(track, qrels)
    remarks = (*official, *remarks_on(qrels, measures), *reader.notes())
    return Assessment(
        options.qrels,
        track,
        replace(report, remarks=remarks),
        tuple(slice_report(report, values, edges) for values, edges in slices),
    )


def _check_outputs(options: AssessmentOptions) -> None:
    inputs = {
        "--qrels": [options.qrels],
        "--runs": options.runs,
        "--slice_by": [path for what in options.slice_by for path in files_of(what)],
    }
    paths = list(options.outputs.values())
    for option, path in options.outputs.items():
        check_target(path)
        check_apart(path, inputs, option=option)
        if paths.count(path) > 1:
            raise InputError(f"{path}: two outputs are to be written here; give each its own file")


def _measures(options: AssessmentOptions) -> list[str]:
    if options.track is None:
        return split_measures(DEFAULT_MEASURES if options.measures is None else options.measures)
    if options.measures is not None:
        raise InputError(
            f"measures: the track {options.track} has its own; give --measures or --track"
        )
    return list(TRACKS[options.track].measures)


@dataclass
class _Reader:
    """Evaluates run files and counts the documents that the track has left out."""

    qrels: Qrels
    measures: Sequence[str]
    drops_the_query_itself: bool
    progress: bool
    num_dropped: dict[str, int] = field(default_factory=dict)

    def evaluate(self, name: str, path: Path) -> Evaluation:
        try:
            return self._evaluate(name, iter_run(path))
        except SeparatedQueryError:
            return self._evaluate(name, read_run(path).items())

    def _evaluate(self, name: str, run: Iterable[tuple[str, dict[str, float]]]) -> Evaluation:
        return evaluate_named(name, self.qrels, self._kept(name, run), self.measures)

    def notes(self) -> list[str]:
        return [
            f"{name}: {count} documents with their query's own id are left out"
            for name, count in self.num_dropped.items()
            if count
        ]

    def _kept(
        self, name: str, queries: Iterable[tuple[str, dict[str, float]]]
    ) -> Iterator[tuple[str, dict[str, float]]]:
        self.num_dropped[name] = 0
        for query, scores in progress_over(
            queries, description=f"evaluating {name}", unit="query", enabled=self.progress
        ):
            if self.drops_the_query_itself and scores.pop(query, None) is not None:
                self.num_dropped[name] += 1
            # A query that has nothing left is missing from the run.
            if scores:
                yield query, scores
