"""The first tables of the page: each run with its results, and the tests behind them."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from jaxrank.comparison.markup import Markup, element, join
from jaxrank.comparison.paired import Pairing, Pairings
from jaxrank.comparison.read import TrainedRun
from jaxrank.comparison.tables import NOTHING, Cell, columns, number, table
from jaxrank.evaluation.significance import PairedTest

_COLORS = 8
_COMMIT_LETTERS = 10


def color_of(runs: Sequence[TrainedRun]) -> dict[str, str]:
    """Run -> CSS classes of its colour; from the ninth on, colours come again, dashed."""
    return {
        run.name: f"c{index % _COLORS}" + (" again" if index >= _COLORS else "")
        for index, run in enumerate(runs)
    }


def all_measures(runs: Sequence[TrainedRun]) -> list[str]:
    """The dev measures of all runs, each once."""
    return list(dict.fromkeys(measure for run in runs for measure in run.measures))


def name_of(name: str, colors: Mapping[str, str]) -> Markup:
    """A run's name beside a dot in its colour."""
    return join(element("span", class_=f"dot {colors[name]}"), name)


def summary_table(
    runs: Sequence[TrainedRun], pairings: Pairings, colors: Mapping[str, str]
) -> Markup:
    """One row a run."""
    measures = all_measures(runs)
    numbers = columns("steps", *measures, "pairs/s", "time", "GiB", kind="number")
    header = [*columns("run", "model"), *numbers, *columns("commit")]
    rows = [
        [
            Cell(join(element("b", name_of(run.name, colors)), _small(str(run.folder)))),
            Cell(_model(run), "model"),
            _steps(run),
            *(_result(run, measure, pairings) for measure in measures),
            number(_median(run, "pairs_per_s"), 1),
            _time(run),
            _memory(run),
            Cell(_commit(run)),
        ]
        for run in runs
    ]
    return table(header, rows, kind="summary")


def tests_table(pairings: Pairings, colors: Mapping[str, str]) -> Markup:
    """The paired tests in full, as `jaxrank.evaluate` shows them; nothing without tests."""
    rows = []
    base_label = ""
    for name, of_measures in pairings.items():
        for measure, pairing in of_measures.items():
            if isinstance(pairing, Pairing):
                rows.append(
                    [Cell(name_of(name, colors)), Cell(measure), *_test_cells(pairing.test)]
                )
                base_label = pairing.base_label
    if not rows:
        return Markup()
    names = ("difference", "95% from", "to", "p (t-test)", "p (permutation)", "wins/ties/losses")
    numbers = columns(*names, kind="number")
    return table([*columns(f"against {base_label}", "measure"), *numbers], rows)


def _test_cells(test: PairedTest) -> list[Cell]:
    low, high = test.interval or (None, None)
    return [
        number(test.difference, signed=True),
        number(low, signed=True),
        number(high, signed=True),
        Cell(p_text(test.p_t_test), "number", test.p_t_test),
        Cell(p_text(test.p_permutation), "number", test.p_permutation),
        Cell(f"{test.wins}/{test.ties}/{test.losses}", "number"),
    ]


def p_text(p: float) -> str:
    """A p value as in the tables of `jaxrank.evaluate`."""
    return "<.0001" if p < 0.0001 else f"{p:.4f}"


def _small(*texts: str) -> Markup:
    return element("small", *texts)


def _model(run: TrainedRun) -> Markup:
    start = run.options.get("model.init_from")
    if start is None:
        name = run.options.get("model.preset") or run.options.get("model.family") or NOTHING
        note = "from a random start"
    else:
        name, note = start, ""
    if rank := run.options.get("lora.rank"):
        note = f"LoRA of rank {rank}"
    return join(str(name), _small(note) if note else "")


def _steps(run: TrainedRun) -> Cell:
    state = "" if run.is_finished else _small("not finished")
    return Cell(join(f"{run.step:,}", state), "number", float(run.step))


def _result(run: TrainedRun, measure: str, pairings: Pairings) -> Cell:
    """The last value, how it differs from the baseline's, and the best value."""
    values = {step: v for step, v in run.series(f"dev/{measure}").items() if v is not None}
    if not values:
        return number(None)
    last_step, best_step = max(values), max(values, key=lambda step: (values[step], -step))
    lines = [element("b", f"{values[last_step]:.4f}")]
    pairing = pairings.get(run.name, {}).get(measure)
    if isinstance(pairing, Pairing):
        test = pairing.test
        kind = "up" if test.difference > 0 else "down"
        text = f"{number(test.difference, signed=True).content}, p {p_text(test.p_permutation)}"
        lines.append(element("small", text, class_=kind if test.p_permutation < 0.05 else None))
    elif pairing is not None:
        lines.append(_small(f"not tested: {pairing}"))
    if best_step != last_step:
        lines.append(_small(f"best {values[best_step]:.4f} at step {best_step:,}"))
    first = run.series(f"first_stage/{measure}").get(0)
    if first is not None:
        lines.append(_small(f"first stage {first:.4f}"))
    return Cell(join(*lines), "number", values[last_step])


def _median(run: TrainedRun, name: str) -> float | None:
    values = [value for value in run.series(name).values() if value is not None]
    return statistics.median(values) if values else None


def _time(run: TrainedRun) -> Cell:
    seconds = max((line.get("time_s") or 0.0 for line in run.metrics), default=0.0)
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    text = f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
    return Cell(join(text, _small(_device(run))), "number", float(seconds))


def _device(run: TrainedRun) -> str:
    device = run.about.get("device") or {}
    return f"{device.get('count', '?')} \N{MULTIPLICATION SIGN} {device.get('kind', '?')}"


def _memory(run: TrainedRun) -> Cell:
    values = [value for value in run.series("memory_gib").values() if value is not None]
    return number(max(values, default=None), 2)


def _commit(run: TrainedRun) -> Markup:
    git: Mapping[str, Any] = run.about.get("git") or {}
    commit = str(git.get("commit") or "")[:_COMMIT_LETTERS]
    changed = _small("and changes") if git.get("is_changed") else ""
    return join(element("code", commit) if commit else NOTHING, changed)
