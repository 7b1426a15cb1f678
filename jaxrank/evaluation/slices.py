"""Runs compared on parts of the queries: short and long ones, short and long documents, ...

A slicing sorts queries by a number that each has, and cuts where quantiles or given edges say. What
it shows is exploratory: with many slices, some differ by chance, so `correction` takes all slices
of a slicing as one family.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from jaxrank.errors import InputError
from jaxrank.evaluation.query_values import QueryValues
from jaxrank.evaluation.report import Report, compare, correct_together

NUM_SLICES = 4


@dataclass(frozen=True)
class Slice:
    """Queries whose values lie close together.

    Attributes:
        low, high: the smallest and the largest value among them.
        report: the runs on these queries.
    """

    low: float
    high: float
    report: Report

    @property
    def label(self) -> str:
        """The values, e.g. "5 to 7"."""
        return f"{self.low:g}" if self.low == self.high else f"{self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class Slicing:
    """The slices by one value.

    Attributes:
        name: of the value.
        without_value: queries that have none and are in no slice.
        remarks: what is to be known about the values.
    """

    name: str
    slices: tuple[Slice, ...]
    without_value: int
    remarks: tuple[str, ...]

    def notes(self) -> list[str]:
        """Queries that no slice holds, and what else the table does not show."""
        notes = [*self.remarks]
        if self.without_value:
            notes.append(f"{self.name}: {self.without_value} queries have no value, so no slice")
        num_tests = sum(len(one.report.tests) for one in self.slices)
        correction = self.slices[0].report.correction
        if num_tests > 1 and correction == "none":
            notes.append(f"{self.name}: p values are not corrected for the {num_tests} comparisons")
        elif num_tests > 1:
            notes.append(
                f"{self.name}: p values are corrected ({correction}) over the {num_tests} "
                "comparisons of each measure in all slices"
            )
        return notes

    def as_json(self) -> dict[str, Any]:
        """The slicing as plain values."""
        slices = [{"from": one.low, "to": one.high, **one.report.as_json()} for one in self.slices]
        return {"by": self.name, "without_value": self.without_value, "slices": slices}


def slice_report(report: Report, values: QueryValues, edges: Sequence[float] = ()) -> Slicing:
    """Compare a report's runs slice by slice.

    Args:
        edges: values at which a new slice begins; none cuts into quarters of equally many queries.

    Raises:
        InputError: no query of the report has a value.
    """
    queries = next(iter(report.evaluations[report.baseline].per_query.values()))
    known = {query: values.values[query] for query in queries if query in values.values}
    if not known:
        raise InputError(
            f"slice_by: {values.name} has a value for none of the {len(queries)} queries; "
            "are they of the same split?"
        )
    parts = split_at(known, edges) if edges else split_evenly(known, NUM_SLICES)
    reports = [
        compare({name: one.restricted_to(part) for name, one in report.evaluations.items()})
        for part in parts
    ]
    slices = [
        Slice(min(known[query] for query in part), max(known[query] for query in part), one)
        for part, one in zip(parts, correct_together(reports, report.correction), strict=True)
    ]
    return Slicing(values.name, tuple(slices), len(queries) - len(known), values.remarks)


def split_evenly(values: Mapping[str, float], parts: int) -> list[list[str]]:
    """Queries by rising value in at most `parts` parts of nearly equal size.

    Queries with equal values stay together: they all go where the middle one of them belongs.
    """
    slots: dict[int, list[str]] = {}
    before = 0
    for _, group in groupby(sorted(values, key=lambda query: (values[query], query)), values.get):
        queries = list(group)
        middle = before + len(queries) / 2
        slots.setdefault(int(parts * middle / len(values)), []).extend(queries)
        before += len(queries)
    return list(slots.values())


def split_at(values: Mapping[str, float], edges: Sequence[float]) -> list[list[str]]:
    """Queries by rising value; a part begins at each edge, empty parts are left out."""
    parts: list[list[str]] = [[] for _ in range(len(edges) + 1)]
    for query in sorted(values, key=lambda query: (values[query], query)):
        parts[bisect_right(sorted(edges), values[query])].append(query)
    return [part for part in parts if part]
