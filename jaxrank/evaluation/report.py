"""Several runs over the same queries: means, differences to a baseline, paired tests."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

from jaxrank.errors import InputError
from jaxrank.evaluation.correction import Correction, correct
from jaxrank.evaluation.measures import (
    Evaluation,
    NoSharedQueryError,
    Results,
    cutoff,
    evaluate_run,
    is_averaged,
    parse_measures,
    relevance_level,
)
from jaxrank.evaluation.qrels import Qrels
from jaxrank.evaluation.significance import Interval, PairedTest, mean_interval, paired_test
from jaxrank.progress import track


@dataclass(frozen=True)
class PValues:
    """What is read as significant: the p values of a paired test, after correction."""

    t_test: float
    permutation: float


@dataclass(frozen=True)
class Report:
    """Evaluations of several runs over the same queries.

    Attributes:
        num_queries: queries of the qrels; every mean is over all of them.
        baseline: name of the run that the others are compared with.
        evaluations: run -> its evaluation, the baseline's first.
        intervals: run -> measure -> 95% interval of its mean; None for a single query and for
            measures that are summed.
        tests: run -> measure -> comparison with the baseline; the baseline has none.
        correction: of the p values in `p_values`.
        p_values: run -> measure -> the tests' p values, corrected.
        remarks: what is to be known about the judgements.
    """

    num_queries: int
    baseline: str
    evaluations: dict[str, Evaluation]
    intervals: dict[str, dict[str, Interval | None]]
    tests: dict[str, dict[str, PairedTest]]
    correction: Correction
    p_values: dict[str, dict[str, PValues]]
    remarks: tuple[str, ...] = ()

    @property
    def measures(self) -> list[str]:
        """Names of the measures, in their order."""
        return list(self.evaluations[self.baseline].means)

    def notes(self) -> list[str]:
        """What a table does not show: queries that a run lacks, or that were left out."""
        notes = [*self.remarks]
        for name, evaluation in self.evaluations.items():
            if count := len(evaluation.missing_queries):
                notes.append(
                    f"{name}: {count} of {self.num_queries} queries are not in the run and count 0"
                )
            if count := len(evaluation.unjudged_queries):
                notes.append(f"{name}: {count} queries have no judgements and are left out")
            deeper = [
                measure
                for measure in self.measures
                if measure.startswith(("R@", "R(")) and evaluation.depth < cutoff(measure)
            ]
            if evaluation.is_cut_off and deeper:
                *others, last = deeper
                seeing = f"{', '.join(others)} and {last} see" if others else f"{last} sees"
                notes.append(f"{name}: {evaluation.depth} documents a query, so {seeing} no more")
        if len(self.tests) > 1:
            family = f"over the {len(self.tests)} comparisons of each measure"
            notes.append(
                "p values stand alone: they are not corrected for several comparisons"
                if self.correction == "none"
                else f"p values are corrected ({self.correction}) {family}"
            )
        return notes

    def as_json(self) -> dict[str, Any]:
        """The comparison as plain values, without the per-query ones."""
        return {
            "queries": self.num_queries,
            "baseline": self.baseline,
            "correction": self.correction,
            "runs": {name: self._run_as_json(name) for name in self.evaluations},
        }

    def _run_as_json(self, name: str) -> dict[str, Any]:
        evaluation = self.evaluations[name]
        against: dict[str, Any] = {}
        for measure, test in self.tests.get(name, {}).items():
            against[measure] = asdict(test)
            if self.correction != "none":
                p = self.p_values[name][measure]
                against[measure] |= {
                    "p_t_test_corrected": p.t_test,
                    "p_permutation_corrected": p.permutation,
                }
        return {
            "means": evaluation.means,
            "intervals": self.intervals[name],
            "missing_queries": len(evaluation.missing_queries),
            "unjudged_queries": len(evaluation.unjudged_queries),
            "against_baseline": against,
        }

    def per_query_lines(self) -> Iterator[str]:
        """Tab-separated lines: a header, then one line a run, measure and query."""
        yield "run\tmeasure\tquery_id\tvalue"
        for name, evaluation in self.evaluations.items():
            for measure, values in evaluation.per_query.items():
                for query_id, value in values.items():
                    yield f"{name}\t{measure}\t{query_id}\t{value!r}"


def compare_runs(
    qrels: Qrels,
    runs: Mapping[str, Results],
    measures: Sequence[str],
    *,
    correction: Correction = "none",
    progress: bool = False,
) -> Report:
    """Evaluate named runs and test each against the first, the baseline.

    Raises:
        InputError: an unknown measure, or a run that shares no query with the qrels.
    """
    parse_measures(measures)  # first, since an unknown one is no fault of a run
    evaluations = {name: evaluate_named(name, qrels, run, measures) for name, run in runs.items()}
    report = compare(evaluations, correction=correction, progress=progress)
    return replace(report, remarks=remarks_on(qrels, measures))


def compare(
    evaluations: dict[str, Evaluation], *, correction: Correction = "none", progress: bool = False
) -> Report:
    """Test evaluations over the same queries against the first of them."""
    baseline, *others = evaluations
    base = evaluations[baseline].per_query
    tests: dict[str, dict[str, PairedTest]] = {name: {} for name in others}
    # Two seconds a test at 5,000 queries.
    for name, measure in track(
        list(product(others, base)), description="testing", unit="test", enabled=progress
    ):
        tests[name][measure] = paired_test(evaluations[name].per_query[measure], base[measure])
    report = Report(
        num_queries=len(next(iter(base.values()))),
        baseline=baseline,
        evaluations=evaluations,
        intervals={name: _intervals(one) for name, one in evaluations.items()},
        tests=tests,
        correction="none",
        p_values={},
    )
    return correct_together([report], correction)[0]


def correct_together(reports: Sequence[Report], correction: Correction) -> list[Report]:
    """Correct the p values of reports that one reader looks at, e.g. of all slices.

    The family is all tests of one measure in all of these reports.
    """
    corrected = [{name: dict[str, PValues]() for name in report.tests} for report in reports]
    for measure in reports[0].measures if reports else ():
        family = [(index, name) for index, one in enumerate(reports) for name in one.tests]
        tests = [reports[index].tests[name][measure] for index, name in family]
        t_tests = correct([test.p_t_test for test in tests], correction)
        permutations = correct([test.p_permutation for test in tests], correction)
        for (index, name), *p in zip(family, t_tests, permutations, strict=True):
            corrected[index][name][measure] = PValues(*p)
    return [
        replace(report, correction=correction, p_values=p_values)
        for report, p_values in zip(reports, corrected, strict=True)
    ]


def evaluate_named(name: str, qrels: Qrels, run: Results, measures: Sequence[str]) -> Evaluation:
    """`evaluate_run` with the run's name where no query is shared.

    Other messages stay: those of reading the run name its file and line.
    """
    try:
        return evaluate_run(qrels, run, measures)
    except NoSharedQueryError as error:
        raise InputError(f"run {name}: {error}") from None


def remarks_on(qrels: Qrels, measures: Sequence[str]) -> tuple[str, ...]:
    """Remarks on queries that no run can do well on, one a relevance level."""
    levels = sorted({relevance_level(measure) for measure in measures})
    counts = {
        level: sum(max(grades.values()) < level for grades in qrels.values()) for level in levels
    }
    return tuple(
        f"{count} of {len(qrels)} queries have no document of grade {level} or more; measures that "
        f"need one count them 0"
        for level, count in counts.items()
        if count
    )


def _intervals(evaluation: Evaluation) -> dict[str, Interval | None]:
    return {
        measure: mean_interval(list(values.values())) if is_averaged(measure) else None
        for measure, values in evaluation.per_query.items()
    }
