"""What the kernels can run, and so what "auto" stands for in `selective_scan`."""

import jax

# The first generation with what the kernels are written in: bulk copies and their barriers.
HOPPER = (9, 0)

# A block of threads takes 128 channels and holds all their states in registers.
CHANNELS_MULTIPLE = 128
MOST_STATES = 32


def choose_implementation(channels: int, states: int) -> str:
    """Name the fastest implementation that the default device can run at this size."""
    backend = jax.default_backend()
    if backend == "cpu":
        return "scan"
    if backend == "gpu" and not find_refusal(channels, states) and compute_capability() >= HOPPER:
        return "mosaic"
    return "associative"


def find_refusal(channels: int, states: int) -> str | None:
    """Why "mosaic" cannot run at this size; None if it can."""
    if channels % CHANNELS_MULTIPLE:
        return f"D = {channels} came; a multiple of {CHANNELS_MULTIPLE} is needed"
    if states > MOST_STATES:
        return f"N = {states} came; at most {MOST_STATES} is needed"
    return None


def compute_capability() -> tuple[int, ...]:
    """Of the default NVIDIA GPU, as (major, minor); (0,) for the GPUs of others."""
    numbers = str(getattr(jax.devices()[0], "compute_capability", "")).split(".")
    return tuple(map(int, numbers)) if all(part.isdigit() for part in numbers) else (0,)
