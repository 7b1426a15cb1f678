"""Several runs on one table: means, differences to a baseline, paired tests, per-query values."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

from jaxrank.errors import InputError
from jaxrank.evaluation.measures import Evaluation, evaluate_run, parse_measures
from jaxrank.evaluation.qrels import Qrels
from jaxrank.evaluation.runs import Run
from jaxrank.evaluation.significance import PairedTest, paired_test
from jaxrank.progress import track

_HEADER = (
    "measure", "run", "mean", "difference", "95% interval", "p (t-test)", "p (permutation)",
    "wins/ties/losses",
)  # fmt: skip
_NUM_TEXT_COLUMNS = 2
_NUM_MEAN_COLUMNS = 3


@dataclass(frozen=True)
class Report:
    """Evaluations of several runs over the same queries.

    Attributes:
        num_queries: queries of the qrels; every mean is over all of them.
        baseline: name of the run that the others are compared with.
        evaluations: run -> its evaluation.
        tests: run -> measure -> comparison with the baseline; the baseline has none.
    """

    num_queries: int
    baseline: str
    evaluations: dict[str, Evaluation]
    tests: dict[str, dict[str, PairedTest]]

    def table(self) -> str:
        """The comparison as aligned text; a single run gets no columns for tests."""
        measures = list(self.evaluations[self.baseline].means)
        rows = [self._row(measure, name) for measure in measures for name in self.evaluations]
        width = len(_HEADER) if self.tests else _NUM_MEAN_COLUMNS
        lines = [row[:width] for row in rows]
        return render_table(_HEADER[:width], lines, text_columns=_NUM_TEXT_COLUMNS)

    def notes(self) -> list[str]:
        """What the table does not show: queries that a run lacks, or that were left out."""
        notes = []
        for name, evaluation in self.evaluations.items():
            if count := len(evaluation.missing_queries):
                notes.append(
                    f"{name}: {count} of {self.num_queries} queries are not in the run and count 0"
                )
            if count := len(evaluation.unjudged_queries):
                notes.append(f"{name}: {count} queries have no judgements and are left out")
        if len(self.tests) > 1:
            notes.append("p values stand alone: they are not corrected for several comparisons")
        return notes

    def as_json(self) -> dict[str, Any]:
        """The comparison as plain values, without the per-query ones."""
        return {
            "queries": self.num_queries,
            "baseline": self.baseline,
            "runs": {
                name: {
                    "means": evaluation.means,
                    "missing_queries": len(evaluation.missing_queries),
                    "unjudged_queries": len(evaluation.unjudged_queries),
                    "against_baseline": {
                        measure: asdict(test) for measure, test in self.tests.get(name, {}).items()
                    },
                }
                for name, evaluation in self.evaluations.items()
            },
        }

    def per_query_lines(self) -> Iterator[str]:
        """Tab-separated lines: a header, then one line a run, measure and query."""
        yield "run\tmeasure\tquery_id\tvalue"
        for name, evaluation in self.evaluations.items():
            for measure, values in evaluation.per_query.items():
                for query_id, value in values.items():
                    yield f"{name}\t{measure}\t{query_id}\t{value!r}"

    def _row(self, measure: str, name: str) -> tuple[str, ...]:
        mean = f"{self.evaluations[name].means[measure]:.4f}"
        if name == self.baseline:
            return (measure, name, mean, "", "", "", "", "")
        test = self.tests[name][measure]
        interval = f"{test.interval[0]:+.4f} {test.interval[1]:+.4f}" if test.interval else "-"
        return (
            measure,
            name,
            mean,
            f"{test.difference:+.4f}",
            interval,
            _p_text(test.p_t_test),
            _p_text(test.p_permutation),
            f"{test.wins}/{test.ties}/{test.losses}",
        )


def compare_runs(
    qrels: Qrels, runs: Mapping[str, Run], measures: Sequence[str], *, progress: bool = False
) -> Report:
    """Evaluate named runs and test each against the first, the baseline.

    Raises:
        InputError: an unknown measure, or a run that shares no query with the qrels.
    """
    parse_measures(measures)  # first, since an unknown one is no fault of a run
    evaluations = {name: _evaluate(name, qrels, run, measures) for name, run in runs.items()}
    baseline, *others = evaluations
    base = evaluations[baseline].per_query
    tests: dict[str, dict[str, PairedTest]] = {name: {} for name in others}
    # Two seconds a test at 5,000 queries.
    for name, measure in track(
        list(product(others, base)), description="testing", unit="test", enabled=progress
    ):
        tests[name][measure] = paired_test(evaluations[name].per_query[measure], base[measure])
    return Report(len(qrels), baseline, evaluations, tests)


def name_runs(paths: Sequence[Path], baseline: Path | None = None) -> dict[str, Path]:
    """Short names for run files, the baseline's first: the file's name where that tells them apart.

    Raises:
        InputError: no path, one path twice, or a baseline that is not among them.
    """
    if not paths or len(set(paths)) < len(paths):
        raise InputError(f"runs: {len(paths)} given; at least one is needed, and none twice")
    if baseline is not None and baseline not in paths:
        raise InputError(
            f"baseline: {baseline} is not among the runs; name one of {', '.join(map(str, paths))}"
        )
    ordered = sorted(paths, key=lambda path: path != (baseline or paths[0]))
    short = [path.name.removesuffix(".gz").removesuffix(".run") for path in ordered]
    names = short if len(set(short)) == len(short) else [str(path) for path in ordered]
    return dict(zip(names, ordered, strict=True))


def render_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, text_columns: int = 1
) -> str:
    """Rows as aligned text under a header; the first `text_columns` flush left, the rest right."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    texts = [_aligned(line, widths, text_columns) for line in lines]
    return "\n".join([texts[0], "-" * max(map(len, texts)), *texts[1:]])


def _evaluate(name: str, qrels: Qrels, run: Run, measures: Sequence[str]) -> Evaluation:
    try:
        return evaluate_run(qrels, run, measures)
    except InputError as error:
        raise InputError(f"run {name}: {error}") from None


def _aligned(line: Sequence[str], widths: list[int], text_columns: int) -> str:
    cells = [
        cell.ljust(width) if column < text_columns else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(line, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()


def _p_text(p: float) -> str:
    return "<.0001" if p < 0.0001 else f"{p:.4f}"
