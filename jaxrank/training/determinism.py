"""The same bits in every run on the same kind of GPU, as far as XLA can give them.

On a GPU two things make bits differ from run to run: operations that add in the order in which
threads happen to finish, and XLA's choice of kernels, which it makes by timing them anew in every
process. Flags of XLA forbid the first and keep the second in a file. They are read once, when the
first computation starts, so they must be in the environment before.
"""

import os
from collections.abc import MutableMapping
from pathlib import Path

import jax

from jaxrank.errors import InputError
from jaxrank.files import atomic_open

AUTOTUNING_FOLDER = "autotuning"


def make_deterministic(
    folder: Path, process: int = 0, *, environment: MutableMapping[str, str] | None = None
) -> str | None:
    """Set XLA's flags for a run in `folder`; before any use of a device.

    Args:
        process: which process of the run this is; each keeps its own choices of kernels.
        environment: where XLA_FLAGS is; that of this process.

    Returns:
        A note for the user: that nothing had to be done on a CPU, or that the choices of an earlier
        start are lost.

    Raises:
        InputError: a device is in use already, or XLA_FLAGS say otherwise.
    """
    environment = os.environ if environment is None else environment
    if _is_on_cpu():
        return "training.deterministic: changes nothing on a CPU, which is deterministic anyway"
    if _is_device_in_use():
        raise InputError(
            "training.deterministic: a device is in use already in this process; it must be set "
            "before"
        )
    flags = environment.get("XLA_FLAGS", "").split()
    if "--xla_gpu_deterministic_ops=false" in flags:
        raise InputError("training.deterministic: XLA_FLAGS has --xla_gpu_deterministic_ops=false")
    kept = folder / AUTOTUNING_FOLDER / f"process-{process:05d}.txt"
    loaded = kept.with_name(f"at-start-{process:05d}.txt")
    kept.parent.mkdir(parents=True, exist_ok=True)
    note = None
    flags += ["--xla_gpu_deterministic_ops=true", f"--xla_gpu_dump_autotune_results_to={kept}"]
    if kept.exists():
        text = kept.read_text(encoding="utf-8", errors="replace")
        if _is_complete(text):
            # A copy, since XLA writes to the other file after every compilation.
            with atomic_open(loaded) as file:
                file.write(text)
        elif loaded.exists():
            note = f"{kept}: was cut by a kill; the choices of kernels of the start before are used"
        else:
            note = f"{kept}: was cut by a kill; kernels are chosen anew, so bits may differ"
    if loaded.exists():
        flags.append(f"--xla_gpu_load_autotune_results_from={loaded}")
    environment["XLA_FLAGS"] = " ".join(flags)
    return note


def _is_on_cpu() -> bool:
    """Whether JAX uses the CPU, as far as can be told without starting it."""
    if _is_device_in_use():
        return jax.default_backend() == "cpu"
    platforms: str | None = jax.config.values["jax_platforms"]
    return (platforms or "").split(",")[0] == "cpu"


def _is_device_in_use() -> bool:
    from jax._src import xla_bridge  # there is no public way to ask

    return bool(xla_bridge.backends_are_initialized())


def _is_complete(text: str) -> bool:
    """Whether a file in protobuf's text format ends where it should."""
    return bool(text) and text.count("{") == text.count("}") and text.endswith("\n")
