"""The run folder: what was trained, from what, with what, so that it can be told and repeated.

config.yaml     the resolved options, readable by `--config`
run.json        status, seed, command line, package versions, git commit, digests of the data
metrics.jsonl   losses and dev measures over steps, also under tensorboard/
milestones/     model folders along the way: step-000075, ...
model/          the final model
"""

import json
import shutil
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import jax

from jaxrank.errors import InputError
from jaxrank.files import atomic_open, check_target, read_json
from jaxrank.training.metrics import METRICS_FILE, TENSORBOARD_FOLDER
from jaxrank.version import __version__, source_state

MODEL_FOLDER = "model"
MILESTONES_FOLDER = "milestones"
CONFIG_FILE = "config.yaml"
RUN_FILE = "run.json"

PACKAGES = (
    "jaxrank", "jax", "jaxlib", "flax", "optax", "grain", "numpy", "tokenizers", "transformers",
    "safetensors",
)  # fmt: skip

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
        "device": {"kind": device.device_kind, "count": jax.device_count()},
    }


def check_folder(folder: Path) -> None:
    """Refuse an output folder that cannot be written, or holds what `start_run` would delete.

    Raises:
        InputError: naming it.
    """
    check_target(folder, is_folder=True)
    if (folder / RUN_FILE).exists():
        return
    for name in (METRICS_FILE, TENSORBOARD_FOLDER, MILESTONES_FOLDER, MODEL_FOLDER):
        if (folder / name).exists():
            raise InputError(
                f"{folder / name}: is not of a run of ours, since {RUN_FILE} is not beside it; "
                "choose another training.output"
            )


def find_status(folder: Path, description: Mapping[str, Any]) -> Status:
    """Whether `folder` already holds this very run.

    Raises:
        InputError: it holds a finished run with other options or other data.
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
            "choose another training.output or pass --training.overwrite true"
        )
    return status


def start_run(folder: Path, description: Mapping[str, Any], *, config_yaml: str) -> None:
    """Make `folder` ready for a run from step 0: an earlier run's metrics and milestones go.

    An earlier final model stays until a new one replaces it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_run(folder, description, status="running")
    (folder / METRICS_FILE).unlink(missing_ok=True)
    for name in (TENSORBOARD_FOLDER, MILESTONES_FOLDER):
        shutil.rmtree(folder / name, ignore_errors=True)
    with atomic_open(folder / CONFIG_FILE) as file:
        file.write(config_yaml)


def write_run(folder: Path, description: Mapping[str, Any], **values: Any) -> None:
    """Write run.json with `values` (status, results) in front."""
    with atomic_open(folder / RUN_FILE) as file:
        json.dump({**values, **description}, file, indent=2)
        file.write("\n")


def _differences(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """`key: value there, value now` for options and digests that differ."""
    there, here = _comparable(earlier), _comparable(now)
    return [
        f"{key}: {there.get(key)} there, {here.get(key)} now"
        for key in sorted(there.keys() | here.keys())
        if there.get(key) != here.get(key)
    ]


def _comparable(description: Mapping[str, Any]) -> dict[str, Any]:
    flat = _flatten(description.get("config", {}))
    flat.pop("training.overwrite", None)
    for path, digest in description.get("sha256", {}).items():
        flat[f"content of {path}"] = digest[:12]
    return flat


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
