"""Run folders, read for comparison: finished or not, of this release or an older one."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from jaxrank.data.collection import queries_path, read_queries
from jaxrank.errors import InputError
from jaxrank.evaluation.run_names import name_runs
from jaxrank.files import read_json
from jaxrank.training.metrics import METRICS_FILE, read_metrics
from jaxrank.training.per_query import (
    DEV_FOLDER,
    PerQuery,
    first_stage_file,
    milestone_file,
    read_per_query,
)

# Not imported from training.run_folder, which brings JAX: a page about runs needs none.
RUN_FILE = "run.json"

Series = dict[int, float | None]
"""Step -> value; None where it was not finite."""


@dataclass(frozen=True)
class TrainedRun:
    """What a run folder tells.

    Attributes:
        name: short, and different from those of the other runs.
        about: what run.json holds.
        metrics: the lines of metrics.jsonl.
        first_stage: what the first stage reaches query by query; None where it was not kept.
        last: what the model of the last measured milestone reaches query by query, or None.
    """

    name: str
    folder: Path
    about: Mapping[str, Any]
    metrics: Sequence[Mapping[str, Any]]
    first_stage: PerQuery | None
    last: PerQuery | None

    def series(self, name: str) -> Series:
        """Values of a metric over steps; where a step was logged twice, the later counts."""
        values = {line["step"]: line[name] for line in self.metrics if name in line}
        return {step: None if value is None else float(value) for step, value in values.items()}

    @cached_property
    def metric_names(self) -> tuple[str, ...]:
        """Names of all metrics, in the order of their first lines."""
        names = dict.fromkeys(name for line in self.metrics for name in line)
        return tuple(name for name in names if name not in ("step", "time_s"))

    @property
    def measures(self) -> tuple[str, ...]:
        """Names of the dev measures, e.g. RR@10."""
        prefix = "dev/"
        return tuple(n.removeprefix(prefix) for n in self.metric_names if n.startswith(prefix))

    @property
    def step(self) -> int:
        """The last step that metrics.jsonl tells of."""
        return max((line["step"] for line in self.metrics), default=0)

    @property
    def is_finished(self) -> bool:
        """Whether the training came to its end."""
        return self.about.get("status") == "finished"

    @cached_property
    def options(self) -> dict[str, Any]:
        """The resolved options by their dotted names, those that the run's release had."""
        return dict(_flatten(self.about["config"]))

    @cached_property
    def judgements(self) -> str | None:
        """Digest of the judgements that the dev measure goes by."""
        folder, split = self.options.get("data.collection"), self.options.get("dev.split")
        names = (f"{folder}/qrels.{split}.txt", f"{folder}/qrels/{split}.tsv")
        digests = self.about.get("sha256") or {}
        return next((digests[name] for name in names if name in digests), None)

    def query_texts(self) -> dict[str, str]:
        """Query id -> text, if the collection is where it was; else nothing."""
        folder = self.options.get("data.collection")
        try:
            return read_queries(queries_path(Path(folder))) if folder else {}
        except (InputError, OSError):
            return {}


def files_of(folders: Sequence[Path]) -> list[Path]:
    """What is read of run folders."""
    return [folder / name for folder in folders for name in (RUN_FILE, METRICS_FILE, DEV_FOLDER)]


def read_runs(folders: Sequence[Path], baseline: Path | None = None) -> list[TrainedRun]:
    """Read run folders, the baseline's first.

    Raises:
        InputError: a folder that is not a run's or holds what cannot be read, one that is given
            twice, or a baseline that is not among them.
    """
    for folder in folders:
        if not (folder / RUN_FILE).is_file():
            raise InputError(
                f"{folder}: not a run folder; {RUN_FILE} is not there, which jaxrank.train writes"
            )
    return [_read(name, folder) for name, folder in name_runs(folders, baseline).items()]


def _read(name: str, folder: Path) -> TrainedRun:
    about = read_json(folder / RUN_FILE)
    if not isinstance(about.get("config"), dict):
        raise InputError(
            f"{folder / RUN_FILE}: 'config': got {about.get('config')!r}; jaxrank.train did not "
            "write it"
        )
    metrics = read_metrics(folder) if (folder / METRICS_FILE).exists() else []
    for number, line in enumerate(metrics, start=1):
        _check_line(line, where=f"{folder / METRICS_FILE}:{number}")
    measured = [line["step"] for line in metrics if any(n.startswith("dev/") for n in line)]
    last = milestone_file(folder, max(measured, default=0))
    return TrainedRun(
        name=name or folder.absolute().name,
        folder=folder,
        about=about,
        metrics=metrics,
        first_stage=_read_if_there(first_stage_file(folder)),
        last=_read_if_there(last) if measured else None,
    )


def _check_line(line: Mapping[str, Any], *, where: str) -> None:
    """A line needs its step, and numbers, or null for what was not finite."""
    if not isinstance(line.get("step"), int):
        raise InputError(f"{where}: 'step': got {line.get('step')!r}; a whole number is needed")
    for name, value in line.items():
        if not isinstance(value, int | float | None):
            raise InputError(f"{where}: {name!r}: got {value!r}; a number is needed")


def _read_if_there(path: Path) -> PerQuery | None:
    return read_per_query(path) if path.exists() else None


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
