"""What the kernels can run, and so what "auto" stands for in `selective_scan`."""

import jax

# The generations of data centre GPUs, Hopper and Blackwell, by their major version. Older ones lack
# what the kernels are written in, bulk copies and their barriers. Consumer Blackwell (12) has them,
# but nothing shows yet that the kernels compile for it: there they are for whoever names them.
GENERATIONS = ("9", "10")

# A block of threads takes 128 channels and holds all their states in registers.
CHANNELS_MULTIPLE = 128
MOST_STATES = 32


def choose_implementation(channels: int, states: int) -> tuple[str, str | None]:
    """Name the fastest implementation that the default device can run at this size.

    And say why it is not "mosaic", where it might have been.
    """
    backend = jax.default_backend()
    if backend == "cpu":
        return "scan", None
    if backend != "gpu":
        return "associative", None
    capability = str(getattr(jax.devices()[0], "compute_capability", "none"))
    if capability.partition(".")[0] not in GENERATIONS:
        known = " and ".join(f"{generation}.x" for generation in GENERATIONS)
        return (
            "associative",
            f"not 'mosaic': compute capability {capability} came; it is for {known}",
        )
    if refusal := find_refusal(channels, states):
        return "associative", f"not 'mosaic': {refusal}"
    return "mosaic", None


def find_refusal(channels: int, states: int) -> str | None:
    """Why "mosaic" cannot run at this size; None if it can."""
    if channels % CHANNELS_MULTIPLE:
        return f"D = {channels} came; a multiple of {CHANNELS_MULTIPLE} is needed"
    if states > MOST_STATES:
        return f"N = {states} came; at most {MOST_STATES} is needed"
    return None
