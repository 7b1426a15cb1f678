"""The run folder: what was trained, from what, with what, so that it can be told and repeated.

config.yaml     the resolved options, readable by `--config`
run.json        status, seed, command line, package versions, git commit, digests of the data
metrics.jsonl   losses and dev measures over steps, also under tensorboard/ and perhaps wandb/
dev/            the dev measures query by query: first_stage.jsonl, step-000075.jsonl, ...
milestones/     model folders along the way: step-000075, ...
checkpoints/    training states to go on from: step-000500, ...
profile/        a trace of a few steps, if asked for
model/          the final model
"""

import json
import math
import shutil
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import jax

from jaxrank.errors import InputError
from jaxrank.files import Inputs, atomic_open, check_apart, check_target, read_json
from jaxrank.training.checkpoint import CHECKPOINTS_FOLDER
from jaxrank.training.metrics import METRICS_FILE, TENSORBOARD_FOLDER
from jaxrank.training.per_query import DEV_FOLDER
from jaxrank.training.wandb_sink import WANDB_FOLDER
from jaxrank.version import __version__, source_state

MODEL_FOLDER = "model"
MILESTONES_FOLDER = "milestones"
PROFILE_FOLDER = "profile"
CONFIG_FILE = "config.yaml"
RUN_FILE = "run.json"

# What a run writes along the way, and a new one deletes.
_FOLDERS_OF_A_RUN = (
    TENSORBOARD_FOLDER, WANDB_FOLDER, DEV_FOLDER, MILESTONES_FOLDER, CHECKPOINTS_FOLDER,
    PROFILE_FOLDER,
)  # fmt: skip

# Options that may change between the parts of an interrupted run. They decide how fast the work is
# done, what is shown of it and what is kept; no weight and no measure depends on them.
HARMLESS_OPTIONS = frozenset({
    "model.allow_pickle", "data.num_threads", "data.pretokenize", "data.token_store",
    "checkpoint.every", "checkpoint.keep", "checkpoint.keep_milestones", "training.log_every",
    "training.max_skipped_steps", "training.profile", "training.wandb", "training.tensorboard",
    "training.output", "training.overwrite",
})  # fmt: skip
# These change the order of sums, and with it the last bits: the user is told.
DEVICE_OPTIONS = frozenset({
    "devices.fsdp", "training.implementations.attention", "training.implementations.selective_scan",
    "training.implementations.ssd",
})  # fmt: skip

PACKAGES = (
    "jaxrank", "jax", "jaxlib", "flax", "optax", "grain", "numpy", "tokenizers", "transformers",
    "safetensors",
)  # fmt: skip

_GO_ON = "give what it began with to go on, "
_REMEDY = "choose another training.output or pass --training.overwrite true"

Status = Literal["new", "unfinished", "finished"]


def describe_run(
    *, config: Mapping[str, Any], seed: int, digests: Mapping[str, str], command: list[str]
) -> dict[str, Any]:
    """What run.json holds, apart from its status and results.

    Args:
        config: the resolved options as plain values.
        digests: path -> SHA-256 of the files that the result depends on.
        command: the command line.
    """
    device = jax.devices()[0]
    return {
        "command": command,
        "seed": seed,
        "config": dict(config),
        "sha256": dict(digests),
        "git": source_state(),
        "python": sys.version.split()[0],
        "packages": _versions(),
        "device": {
            "kind": device.device_kind,
            "count": jax.device_count(),
            "processes": jax.process_count(),
        },
    }


def check_folder(folder: Path, inputs: Inputs) -> None:
    """Refuse an output folder that cannot be written, or holds what `start_run` would delete.

    Args:
        inputs: what the run begins with, which it must not write over either.

    Raises:
        InputError: naming it.
    """
    check_target(folder, is_folder=True)
    for name in (RUN_FILE, CONFIG_FILE, METRICS_FILE, *_FOLDERS_OF_A_RUN, MODEL_FOLDER):
        check_apart(folder / name, inputs, option="--training.output", is_folder=True)
    if (folder / RUN_FILE).exists():
        return
    for name in (METRICS_FILE, *_FOLDERS_OF_A_RUN, MODEL_FOLDER):
        if (folder / name).exists():
            raise InputError(
                f"{folder / name}: is not of a run of ours, since {RUN_FILE} is not beside it; "
                "choose another training.output"
            )


def find_status(folder: Path, description: Mapping[str, Any]) -> Status:
    """Whether `folder` already holds this very run.

    Raises:
        InputError: it holds a run with other options, other than harmless ones, or other data.
    """
    if not (folder / RUN_FILE).exists():
        return "new"
    earlier = read_json(folder / RUN_FILE)
    is_finished = earlier.get("status") == "finished" and (folder / MODEL_FOLDER).exists()
    status: Status = "finished" if is_finished else "unfinished"
    differences = _differences(earlier, description)
    if differences:
        article = "a" if is_finished else "an"
        raise InputError(
            f"{folder}: holds {article} {status} run with other inputs ({'; '.join(differences)}); "
            f"{_GO_ON if status == 'unfinished' else ''}{_REMEDY}"
        )
    return status


def start_run(folder: Path, description: Mapping[str, Any], *, config_yaml: str) -> None:
    """Make `folder` ready for a run from step 0: an earlier run's metrics and milestones go.

    An earlier final model stays until a new one replaces it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # First, and at once: after a kill, no checkpoint of another run stands beside a new run.json.
    old = folder / f".{CHECKPOINTS_FOLDER}.old"
    shutil.rmtree(old, ignore_errors=True)
    if (folder / CHECKPOINTS_FOLDER).exists():
        (folder / CHECKPOINTS_FOLDER).rename(old)
    write_run(folder, description, status="running")
    shutil.rmtree(old, ignore_errors=True)
    (folder / METRICS_FILE).unlink(missing_ok=True)
    for name in _FOLDERS_OF_A_RUN:
        shutil.rmtree(folder / name, ignore_errors=True)
    with atomic_open(folder / CONFIG_FILE) as file:
        file.write(config_yaml)


def resume_run(folder: Path, description: Mapping[str, Any], *, step: int) -> None:
    """Make `folder` ready to go on from `step`; run.json gets a line about each such time."""
    earlier = read_json(folder / RUN_FILE)
    about = {name: description[name] for name in ("command", "git", "packages", "device")}
    resumed = [*earlier.get("resumed", []), {"step": step, **about}]
    first = {name: earlier[name] for name in earlier if name not in ("status", "resumed")}
    write_run(folder, {**first, "resumed": resumed}, status="running")
    # What a kill left of files and folders that were being written.
    for place in (folder, *(folder / name for name in _FOLDERS_OF_A_RUN)):
        for pattern in (".*.part", ".*.old"):
            for leftover in place.glob(pattern):
                if leftover.is_dir():
                    shutil.rmtree(leftover)
                else:
                    leftover.unlink()


def finish_run(folder: Path, *, results: Mapping[str, Any]) -> None:
    """Write into run.json that the run is finished, and what came of it; null is no number."""
    about = read_json(folder / RUN_FILE)
    plain = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in results.items()
    }
    write_run(folder, about, status="finished", results=plain)


def check_resolved(folder: Path, resolved: Mapping[str, Any]) -> None:
    """Refuse to go on with a run whose options came to something else, or its tokenizer.

    Args:
        resolved: option -> what is in use; the same as the description's `resolved`.

    Raises:
        InputError: naming the option and both values.
    """
    earlier = read_json(folder / RUN_FILE).get("resolved", {})
    differences = _list_differences(earlier, resolved)
    if differences:
        raise InputError(
            f"{folder}: holds an unfinished run with other values in use "
            f"({'; '.join(differences)}); {_GO_ON}{_REMEDY}"
        )


def read_resolved(folder: Path) -> dict[str, Any]:
    """Option -> what it came to in the run that `folder` holds."""
    resolved: dict[str, Any] = read_json(folder / RUN_FILE).get("resolved", {})
    return resolved


def environment_notes(folder: Path, description: Mapping[str, Any]) -> list[str]:
    """What is different about this machine, as far as the last bits of a result depend on it."""
    earlier = read_json(folder / RUN_FILE)
    parts = (earlier, *earlier.get("resumed", []))
    there, here = (_flatten(_environment(about)) for about in (parts[-1], description))
    options = (_flatten(about.get("config", {})) for about in (earlier, description))
    for values, chosen in zip((there, here), options, strict=True):
        values.update({name: chosen.get(name) for name in DEVICE_OPTIONS})
    differences = _list_differences(there, here)
    if not differences:
        return []
    return [
        f"{folder}: goes on with {'; '.join(differences)}: the last bits of the result may differ "
        "from those of an uninterrupted run"
    ]


def write_run(folder: Path, description: Mapping[str, Any], **values: Any) -> None:
    """Write run.json with `values` (status, results) in front."""
    rest = {name: value for name, value in description.items() if name not in values}
    with atomic_open(folder / RUN_FILE) as file:
        json.dump({**values, **rest}, file, indent=2)
        file.write("\n")


def _differences(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """`key: value there, value now` for options and digests that differ."""
    return _list_differences(_comparable(earlier), _comparable(now))


def _list_differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    return [
        f"{key}: {_spell(there.get(key))} there, {_spell(here.get(key))} now"
        for key in sorted(there.keys() | here.keys())
        if there.get(key) != here.get(key)
    ]


def _comparable(description: Mapping[str, Any]) -> dict[str, Any]:
    options = _flatten(description.get("config", {}))
    passed_over = HARMLESS_OPTIONS | DEVICE_OPTIONS
    flat = {name: value for name, value in options.items() if name not in passed_over}
    for path, digest in description.get("sha256", {}).items():
        flat[f"content of {path}"] = digest[:12]
    return flat


def _spell(value: Any) -> str:
    """A value as one would write it in a config."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _environment(about: Mapping[str, Any]) -> dict[str, Any]:
    return {"package": about.get("packages", {}), "device": about.get("device", {})}


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = __version__ if name == "jaxrank" else None
    return versions
