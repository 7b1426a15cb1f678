"""The page: one HTML file that needs no network and no other file."""

import datetime
from collections.abc import Mapping, Sequence
from importlib import resources

from jaxrank.comparison.curves import MOST_POINTS, Curve, Style, chart, smooth
from jaxrank.comparison.differences import all_options, differences_table
from jaxrank.comparison.markup import Markup, element, join
from jaxrank.comparison.paired import Pairings, pair_runs
from jaxrank.comparison.queries import queries_section
from jaxrank.comparison.read import Series, TrainedRun
from jaxrank.comparison.summary import (
    all_measures,
    color_of,
    name_of,
    summary_table,
    tests_table,
)
from jaxrank.version import __version__

_FEW_RUNS = 4
_TITLES = {
    "loss": "Training loss",
    "learning_rate": "Learning rate",
    "gradient_norm": "Gradient norm",
    "pairs_per_s": "Throughput in pairs/s",
}


def make_page(runs: Sequence[TrainedRun], *, progress: bool = False) -> str:
    """The page about `runs`, of which the first is the baseline."""
    colors = color_of(runs)
    pairings = pair_runs(runs, progress=progress)
    names = {run.name: name_of(run.name, colors) for run in runs}
    body = join(
        _heading(runs),
        _section(
            "Results", summary_table(runs, pairings, colors), *_remarks(runs, pairings, colors)
        ),
        _section("Curves", _legend(names), *_curves(runs, colors)),
        _section("Query by query", *_queries(runs, pairings)),
        _section("What differs", differences_table(runs, names), all_options(runs))
        if len(runs) > 1
        else _section("Options", all_options(runs)),
    )
    head = element(
        "head",
        Markup('<meta charset="utf-8"><meta name="viewport" content="width=device-width">'),
        element("title", " · ".join(run.name for run in runs)),
        element("style", _file("page.css")),
    )
    whole = element(
        "html", head, element("body", body, element("script", _file("page.js"))), lang="en"
    )
    return f"<!DOCTYPE html>\n{whole}\n"


def _file(name: str) -> Markup:
    return Markup(resources.files(__package__).joinpath(name).read_text(encoding="utf-8"))


def _section(title: str, *parts: Markup) -> Markup:
    return element("section", element("h2", title), *parts)


def _heading(runs: Sequence[TrainedRun]) -> Markup:
    title = f"{len(runs)} training runs" if len(runs) > 1 else f"Training run {runs[0].name}"
    today = datetime.date.today().isoformat()
    words = f"Baseline: {runs[0].name}. " if len(runs) > 1 else ""
    made = f"{words}Made by jaxrank {__version__} on {today}."
    return element("header", element("h1", title), element("p", made))


def _remarks(
    runs: Sequence[TrainedRun], pairings: Pairings, colors: Mapping[str, str]
) -> list[Markup]:
    """What the summary does not say by itself."""
    lines = [
        "pairs/s is the median over the training, time includes the dev measures, "
        "GiB is the most memory in use."
    ]
    if any(run.measures for run in runs):
        lines.append("Measures are those of the last milestone.")
    if any(pairings.values()):
        lines.append("p is that of the paired permutation test; coloured below 0.05.")
    if len(pairings) > 1:
        lines.append("It stands alone: it is not corrected for several comparisons.")
    tests = tests_table(pairings, colors)
    if len(runs) > _FEW_RUNS:
        tests = element("details", element("summary", "Tests in full"), tests)
    return [tests, element("p", " ".join(lines), class_="note")]


def _legend(names: Mapping[str, Markup]) -> Markup:
    return element("p", *(element("span", name) for name in names.values()), class_="legend")


def _curves(runs: Sequence[TrainedRun], colors: Mapping[str, str]) -> list[Markup]:
    """The charts that everyone wants, and folded up those of all other metrics."""
    measured = [f"dev/{measure}" for measure in all_measures(runs)]
    first = ["loss", *measured, "learning_rate", "gradient_norm", "pairs_per_s"]
    names = dict.fromkeys(name for run in runs for name in run.metric_names)
    others = [n for n in names if n not in first and not n.startswith("first_stage/")]
    charts = [_chart(name, runs, colors) for name in first]
    more = [figure for figure in (_chart(name, runs, colors) for name in others) if figure]
    shown = element("div", *charts, class_="charts")
    if not any(charts):
        return [element("p", "Nothing was logged yet.")]
    parts = [shown]
    if more:
        folded = element("div", *more, class_="charts")
        parts.append(element("details", element("summary", "More curves"), folded))
    if any(len(run.series(name)) > MOST_POINTS for run in runs for name in run.metric_names):
        note = f"A curve of more than {MOST_POINTS} points shows the means of neighbours."
        parts.append(element("p", note, class_="note"))
    return parts


def _chart(name: str, runs: Sequence[TrainedRun], colors: Mapping[str, str]) -> Markup:
    """A chart of one metric with a curve for each run that has it; nothing if none has."""
    curves = []
    is_measure = name.startswith("dev/")
    for run in runs:
        values = run.series(name)
        if not any(value is not None for value in values.values()):
            continue
        if name == "loss":
            curves.append(Curve(run.name, colors[run.name], values, "faint"))
            values = smooth(values)
        style: Style = "marked" if is_measure else "plain"
        curves.append(Curve(run.name, colors[run.name], values, style))
    if is_measure:
        curves += _first_stages(name.removeprefix("dev/"), runs, colors)
    if not curves:
        return Markup("")
    title = (
        f"{name.removeprefix('dev/')} on the dev queries" if is_measure else _TITLES.get(name, name)
    )
    note = [element("small", "smoothed; as logged behind")] if name == "loss" else []
    caption = element("figcaption", title, *note)
    return element("figure", caption, chart(title, curves))


def _first_stages(
    measure: str, runs: Sequence[TrainedRun], colors: Mapping[str, str]
) -> list[Curve]:
    """A level for each first stage; one for all runs where it is the same."""
    values: dict[str, Series] = {
        run.name: {0: value}
        for run in runs
        if (value := run.series(f"first_stage/{measure}").get(0)) is not None
    }
    if len({level[0] for level in values.values()}) == 1:
        return [Curve("first stage", "shared", next(iter(values.values())), "level")]
    return [
        Curve(f"first stage of {name}", colors[name], level, "level")
        for name, level in values.items()
    ]


def _queries(runs: Sequence[TrainedRun], pairings: Pairings) -> list[Markup]:
    texts: dict[str, str] = {}
    for run in runs:
        texts = run.query_texts() | texts
    section = queries_section(pairings, texts)
    notes = [_why_not(run) for run in runs if run.last is None]
    for name, of_measures in pairings.items():
        reasons = {reason for reason in of_measures.values() if isinstance(reason, str)}
        notes += [f"{name} is not compared: {reason}." for reason in sorted(reasons)]
    if section and not texts:
        notes.append("Texts of the queries are left out, since the collection is not there.")
    return [section, *(element("p", note, class_="note") for note in notes)]


def _why_not(run: TrainedRun) -> str:
    if not run.measures:
        return f"{run.name} was not measured on dev queries."
    return (
        f"{run.name} has no values of single queries: an older release trained it, "
        "or the file of its last milestone is not there."
    )
