"""Runs against the baseline, query by query, where both were measured on the same queries."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jaxrank.comparison.read import TrainedRun
from jaxrank.evaluation.significance import PairedTest, paired_test
from jaxrank.progress import track


@dataclass(frozen=True)
class Pairing:
    """A measure's values of each query, of a run and of what it is compared with.

    Attributes:
        label, base_label: whose values, as table headers.
        values, base: query id -> value, the same queries.
    """

    measure: str
    label: str
    base_label: str
    values: Mapping[str, float]
    base: Mapping[str, float]
    test: PairedTest

    def differences(self) -> dict[str, float]:
        """Query id -> value - base, the largest first, be they wins or losses."""
        differences = {
            query_id: self.values[query_id] - self.base[query_id] for query_id in self.base
        }
        return dict(sorted(differences.items(), key=lambda item: (-abs(item[1]), item[0])))


Pairings = dict[str, dict[str, Pairing | str]]
"""Run -> measure -> its values and the baseline's, or why there is no such comparison."""


def pair_runs(runs: Sequence[TrainedRun], *, progress: bool = False) -> Pairings:
    """Each run but the first against the first; a run alone against its own first stage."""
    baseline, *others = runs
    if not others:
        found = {measure: _with_first_stage(baseline, measure) for measure in baseline.measures}
        return {baseline.name: {m: pairing for m, pairing in found.items() if pairing is not None}}
    return {
        run.name: {measure: _with_baseline(run, baseline, measure) for measure in run.measures}
        for run in track(others, description="testing", unit="run", enabled=progress)
    }


def _with_baseline(run: TrainedRun, baseline: TrainedRun, measure: str) -> Pairing | str:
    if measure not in baseline.measures:
        return f"{baseline.name} was not measured by it"
    for one in (run, baseline):
        if one.last is None or measure not in one.last:
            return f"{one.name} has no values of single queries"
    assert run.last is not None, "seen above"
    assert baseline.last is not None, "seen above"
    if run.last[measure].keys() != baseline.last[measure].keys():
        return f"other queries than {baseline.name}"
    if run.judgements != baseline.judgements:
        return f"other judgements than {baseline.name}"
    return _pair(measure, run.name, run.last, baseline.name, baseline.last)


def _with_first_stage(run: TrainedRun, measure: str) -> Pairing | None:
    first, last = run.first_stage or {}, run.last or {}
    if measure not in last or last[measure].keys() != first.get(measure, {}).keys():
        return None
    return _pair(measure, run.name, last, "first stage", first)


def _pair(
    measure: str,
    label: str,
    values: Mapping[str, Mapping[str, float]],
    base_label: str,
    base: Mapping[str, Mapping[str, float]],
) -> Pairing:
    test = paired_test(values[measure], base[measure])
    return Pairing(measure, label, base_label, values[measure], base[measure], test)
