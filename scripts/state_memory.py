"""Memory that a training state takes on each device, for growing `devices.fsdp`.

    .venv/bin/python scripts/state_memory.py [--family bert] [--preset bert-base]

The state (parameters and AdamW's two averages of them, in float32) is only described, never made,
so any size can be asked for on any machine; eight devices of the CPU's own making stand in.
"""

import argparse
import math
import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

import jax

from jaxrank.models.families import get_family
from jaxrank.models.module import RerankerConfig, init_module
from jaxrank.training.devices import make_mesh, state_shardings
from jaxrank.training.optimizer import OptimizerConfig, make_optimizer
from jaxrank.training.step import init_state


def main() -> None:
    """Print a line for each number of devices that share a state."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--family", default="bert")
    parser.add_argument("--preset", default="bert-base")
    options = parser.parse_args()
    config = RerankerConfig(options.family, get_family(options.family).presets[options.preset])
    optimizer, _ = make_optimizer(OptimizerConfig(warmup_fraction=0.1), 100)

    def make() -> object:
        return init_state(init_module(config, seed=0), optimizer, key=jax.random.key(0))[1]

    state = jax.eval_shape(make)
    for fsdp in (1, 2, 4, 8):
        shardings = jax.tree.leaves(state_shardings(state, make_mesh(fsdp)))
        held = sum(
            math.prod(sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
            for leaf, sharding in zip(jax.tree.leaves(state), shardings, strict=True)
        )
        print(f"{options.preset}, fsdp {fsdp}: {held / 2**20:,.0f} MiB on each device")


if __name__ == "__main__":
    main()
