"""What the runs were given: the options, data, packages and machines in which they differ."""

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from jaxrank.comparison.markup import Markup, element, join
from jaxrank.comparison.read import TrainedRun
from jaxrank.comparison.tables import NOTHING, Cell, columns, table

_DIGEST_LETTERS = 12
# Where a run lies makes it no other run.
_PLACES = ("training.output", "training.overwrite")
_ABSENT = object()


def differences_table(runs: Sequence[TrainedRun], names: Mapping[str, Markup]) -> Markup:
    """One row for each thing that is not the same in all runs; what differs from the first, bold.

    Args:
        names: run -> its name as markup.
    """
    rows = []
    given = [_given(run) for run in runs]
    for key in _in_sections(key for values in given for key in values):
        values = [found.get(key, _ABSENT) for found in given]
        if any(value != values[0] for value in values[1:]):
            kinds = ["value" if value == values[0] else "value other" for value in values]
            cells = [Cell(_text(v), kind) for v, kind in zip(values, kinds, strict=True)]
            rows.append([Cell(element("code", key)), *cells])
    if not rows:
        return element("p", "Options, data, packages and machines are the same in all runs.")
    return table(columns("", *(names[run.name] for run in runs)), rows, kind="differences")


def all_options(runs: Sequence[TrainedRun]) -> Markup:
    """Every run's command line and resolved options, folded up."""
    return join(
        *(
            element(
                "details",
                element("summary", f"All options of {run.name}"),
                element("pre", shlex.join(map(str, run.about.get("command") or []))),
                element("pre", yaml.safe_dump(run.about["config"], sort_keys=False)),
            )
            for run in runs
        )
    )


def _given(run: TrainedRun) -> dict[str, Any]:
    given = {key: value for key, value in run.options.items() if key not in _PLACES}
    for path, digest in (run.about.get("sha256") or {}).items():
        given[f"content of {path}"] = str(digest)[:_DIGEST_LETTERS]
    for package, version in (run.about.get("packages") or {}).items():
        given[f"package {package}"] = version
    given["Python"] = run.about.get("python")
    for key in ("device", "git"):
        for name, value in (run.about.get(key) or {}).items():
            given[f"{key} {name}"] = str(value)[:40]
    return given


def _in_sections(keys: Iterable[str]) -> list[str]:
    """Each key once; what only a later run has stands with the others of its section."""
    once = list(dict.fromkeys(keys))
    sections = list(dict.fromkeys(key.split(".")[0] for key in once))
    return sorted(once, key=lambda key: sections.index(key.split(".")[0]))


def _text(value: Any) -> str:
    if value is _ABSENT:
        return NOTHING
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
