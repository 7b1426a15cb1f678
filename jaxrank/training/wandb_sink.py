"""Metrics to Weights & Biases, where its package is installed; the training never waits for it.

Where the service cannot be reached, or nobody is logged in, wandb writes files in its offline mode,
which `wandb sync` sends later. A run keeps its id in the run folder, so that a training that goes
on after an interruption goes on there too.
"""

import logging
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jaxrank.errors import InputError
from jaxrank.files import atomic_open

WANDB_FOLDER = "wandb"
ID_FILE = "run_id.txt"
_LONGEST_PROJECT = 128

_INIT_TIMEOUT_S = 30
# A job that is to make room is often given half a minute between SIGTERM and SIGKILL.
_FINISH_TIMEOUT_S = 15

_log = logging.getLogger(__name__)


def check_wandb(project: str) -> None:
    """Refuse a project that cannot be, and a machine without wandb, before anything is done.

    Raises:
        InputError: naming the option.
    """
    if not project.strip() or len(project) > _LONGEST_PROJECT or set(project) & set("/\\#?%:"):
        raise InputError(
            f"training.wandb: got {project!r}; the name of a project is needed, without any of "
            "/\\#?%: (WANDB_ENTITY names a team)"
        )
    try:
        import wandb  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"training.wandb: the package wandb cannot be imported ({error}); "
            "pip install 'jaxrank[wandb]' installs it"
        ) from None


class WandbSink:
    """A run on Weights & Biases; a sink of `MetricsLog`.

    Args:
        folder: the run folder, whose name the run gets; wandb's files go to `wandb` in it.
        config: the options of the training.
        say: called with one line for the user: where the run is to be seen, or why it is offline.
    """

    def __init__(
        self, project: str, folder: Path, *, config: Mapping[str, Any], say: Callable[[str], None]
    ) -> None:
        options: dict[str, Any] = {
            "project": project,
            "id": _run_id(folder / WANDB_FOLDER / ID_FILE),
            "name": folder.absolute().name,
            "dir": str(folder),
            "config": {**config, "run_folder": str(folder)},
            "resume": "allow",
        }
        self._run: Any = _start(options, say)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Hand the values to wandb, which sends them from a process of its own."""
        # The step is a value: wandb's own steps only rise, and resumed training does some again.
        self._call(lambda run: run.log({"step": step, **values}))

    def close(self) -> None:
        """Wait for what is not sent yet, but not for long; wandb keeps the rest on disk."""
        self._call(lambda run: run.finish())
        self._run = None

    def _call(self, use: Callable[[Any], None]) -> None:
        if self._run is None:
            return
        try:
            use(self._run)
        except Exception as error:
            # Whatever it is, it is no reason to lose a training.
            _log.warning("wandb gets no more metrics: %s: %s", type(error).__name__, error)
            self._run = None


def _start(options: dict[str, Any], say: Callable[[str], None]) -> Any:
    """The run, online if that can be; None where not even offline files can be written."""
    import wandb

    settings = {
        "init_timeout": _INIT_TIMEOUT_S,
        "finish_timeout": _FINISH_TIMEOUT_S,
        "console": "off",
        "silent": True,
    }
    try:
        # A mode that the user has chosen stands; otherwise nobody is asked to log in, since a
        # training in the background would wait for the answer.
        if "WANDB_MODE" not in os.environ and not wandb.login(prompt=False):
            raise RuntimeError("nobody is logged in; `wandb login` does that")
        run = wandb.init(**options, settings=wandb.Settings(**settings))
        say(f"training.wandb: {'offline' if run.offline else run.url}")
    except Exception as error:
        try:
            wandb.teardown()  # else the id of the failed attempt would still be in use
            run = wandb.init(**options, settings=wandb.Settings(**settings, mode="offline"))
        except Exception as offline_error:
            say(f"training.wandb: not used, since it cannot be started ({_line(offline_error)})")
            return None
        folder = Path(options["dir"]) / WANDB_FOLDER
        say(
            f"training.wandb: offline ({_line(error)}); send the metrics later with "
            f"`wandb sync {folder}/offline-run-*`"
        )
    run.define_metric("step")
    run.define_metric("*", step_metric="step")
    return run


def _run_id(path: Path) -> str:
    """The id that the run had before, or a new one that is kept."""
    if not path.exists():
        with atomic_open(path) as file:
            file.write(secrets.token_hex(4) + "\n")
    return path.read_text(encoding="utf-8").strip()


def _line(error: Exception) -> str:
    """The first line of what an error says."""
    return next(iter(str(error).splitlines()), type(error).__name__)
