"""Compiled functions kept on disk, so that a second process starts at once."""

import os
import sys
from pathlib import Path

_FOLDER, _LEAST_SECONDS = (
    "JAX_COMPILATION_CACHE_DIR",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS",
)


def keep_compilations() -> None:
    """Have JAX keep what takes over half a second to compile, in `~/.cache/jaxrank/xla`.

    A folder that is set already, by `JAX_COMPILATION_CACHE_DIR` or in jax.config, stays; an empty
    variable switches the cache off.
    """
    if _FOLDER in os.environ:
        return
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = str(root / "jaxrank" / "xla")
    if "jax" not in sys.modules:
        # Read by jax when it is first imported: commands that never use it do not pay for it.
        os.environ[_FOLDER] = folder
        os.environ.setdefault(_LEAST_SECONDS, "0.5")
        return
    import jax

    if jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
