"""Memory and memory traffic of training steps and of single layers, compiled for the H200.

    .venv-kernels/bin/python -m scripts.h200_steps steps [--models M ...] [--remat R ...]
    .venv-kernels/bin/python -m scripts.h200_steps layer mamba-370m [--forward]

Nothing is run and no GPU is needed (`bash scripts/setup.sh kernels` makes the environment). Steps
are of 8 groups of 8 candidates of 512 tokens, in bfloat16; layers see 64 x 512 tokens. cuDNN's
attention cannot be compiled without a GPU: `blocks` stands in for it, which keeps as little.
"""

import argparse
import re
import sys
import time
from collections.abc import Callable
from typing import Any, get_args

from scripts.h200 import UnfitEnvironmentError, compile_for_h200, require_compiler

# The line above chooses JAX's platform, so it comes first.
# ruff: isort: split
import jax
import jax.numpy as jnp
from flax import nnx

from jaxrank.models.families import get_family
from jaxrank.models.implementations import Implementations, choose_implementations
from jaxrank.models.module import RerankerConfig, RerankerModule
from jaxrank.models.stack import Remat
from jaxrank.models.state_space import StateSpaceLayer
from jaxrank.training.optimizer import OptimizerConfig, make_optimizer
from jaxrank.training.step import init_state, make_train_step
from scripts.memory_table import CANDIDATES, GROUPS, find_config
from scripts.memory_traffic import Kernel, list_kernels

GIB, MIB = 2**30, 2**20
LENGTH = 512
MODELS = [
    "mamba-370m", "mamba2-370m", "pythia-410m", "mamba-130m", "mamba2-130m", "pythia-160m",
    "bert-base", "modernbert-base", "opt-125m", "t5-base", "bart-base", "llama-3.2-1b",
]  # fmt: skip


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, dest="command")
    steps = commands.add_parser("steps", help="whole training steps")
    steps.add_argument("--models", nargs="+", default=MODELS)
    steps.add_argument("--remat", nargs="+", choices=get_args(Remat), default=get_args(Remat))
    steps.add_argument("--unroll", type=int, default=1)
    steps.add_argument("--attention", choices=["xla", "blocks"], default="blocks")
    layer = commands.add_parser("layer", help="the kernels of one layer of a Mamba")
    layer.add_argument("model")
    layer.add_argument("--forward", action="store_true", help="without the backward pass")
    arguments = parser.parse_args()
    # `ssd` chooses its sizes by the machine that traces; this one has no GPU.
    jax.default_backend = lambda: "gpu"
    try:
        require_compiler()
        if arguments.command == "layer":
            print_layer(find_config(arguments.model), is_forward=arguments.forward)
        else:
            print_steps(arguments)
    except UnfitEnvironmentError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def print_steps(arguments: argparse.Namespace) -> None:
    """A row for each model and way to keep less."""
    print(
        "| model | remat | unroll | arguments GiB | temporaries GiB | traffic GiB | kernels | s |"
    )
    print("|---|---|--:|--:|--:|--:|--:|--:|", flush=True)
    for model in arguments.models:
        for remat in arguments.remat:
            begin = time.perf_counter()
            compiled = compile_step(find_config(model), remat, arguments)
            seconds = time.perf_counter() - begin
            memory, kernels = compiled.memory_analysis(), list_kernels(compiled.as_text())
            assert memory.alias_size_in_bytes > 0.99 * memory.output_size_in_bytes, "not donated"
            cells = [
                f"{memory.argument_size_in_bytes / GIB:.2f}",
                f"{memory.temp_size_in_bytes / GIB:.2f}",
                f"{sum(kernel.traffic for kernel in kernels) / GIB:.0f}",
                f"{sum(kernel.times for kernel in kernels)}",
                f"{seconds:.0f}",
            ]
            print(f"| {model} | {remat} | {arguments.unroll} | {' | '.join(cells)} |", flush=True)


def compile_step(
    config: RerankerConfig, remat: Remat, arguments: argparse.Namespace
) -> jax.stages.Compiled:
    """A whole step: forward, backward, clipping, AdamW."""
    optimizer, schedule = make_optimizer(OptimizerConfig(warmup_steps=0), 10)

    def make() -> Any:
        module = RerankerModule(
            config,
            dtype=jnp.bfloat16,
            rngs=nnx.Rngs(params=0),
            remat=remat,
            unroll=arguments.unroll,
        )
        choose_implementations(module, _implementations(config.family, arguments.attention))
        return init_state(module, optimizer, key=jax.random.key(0))

    graphdef, state = jax.eval_shape(make)
    pairs = GROUPS, CANDIDATES
    ids = jax.ShapeDtypeStruct((*pairs, LENGTH), jnp.int32)
    mask = jax.ShapeDtypeStruct(ids.shape, jnp.bool_)
    batch = {"input_ids": ids, "mask": mask, "token_type_ids": ids}
    batch["candidate_mask"] = jax.ShapeDtypeStruct(pairs, jnp.bool_)
    return compile_for_h200(make_train_step(graphdef, optimizer, schedule), (state, batch))


def _implementations(family: str, attention: Any) -> Implementations:
    if family == "mamba":
        return Implementations(selective_scan="mosaic")
    return Implementations() if family == "mamba2" else Implementations(attention=attention)


def print_layer(config: RerankerConfig, *, is_forward: bool) -> None:
    """Every kernel that moves more than a MiB, and the sum over all."""
    compiled = compile_for_h200(*make_layer(config, is_forward=is_forward))
    kernels = list_kernels(compiled.as_text())
    print("| kernel | runs | read MiB | written MiB | of |\n|---|--:|--:|--:|---|")
    for kernel in kernels:
        if kernel.traffic > MIB:
            print(_row(kernel))
    read, written = (
        sum(size * kernel.times for kernel, size in zip(kernels, sizes, strict=True)) / MIB
        for sizes in ([k.read for k in kernels], [k.written for k in kernels])
    )
    temporaries = compiled.memory_analysis().temp_size_in_bytes / MIB
    print(f"\n{read:.0f} MiB read, {written:.0f} written; {temporaries:.0f} MiB of temporaries")


def make_layer(
    config: RerankerConfig, *, is_forward: bool
) -> tuple[Callable[..., Any], dict[str, Any]]:
    """One layer of a state-space model as a function, and the shapes of its arguments."""
    make_mixer = get_family(config.family).backbone.make_mixer

    def make() -> Any:
        layer = StateSpaceLayer(
            config.backbone, make_mixer, dtype=jnp.bfloat16, rngs=nnx.Rngs(params=0)
        )
        choose_implementations(layer, _implementations(config.family, "auto"))
        return nnx.split(layer)

    graphdef, state = jax.eval_shape(make)
    shape = GROUPS * CANDIDATES, LENGTH, config.backbone.hidden_size
    hidden = jax.ShapeDtypeStruct(shape, jnp.float32)

    def forward(state: Any, hidden: jax.Array) -> jax.Array:
        return nnx.merge(graphdef, state)(hidden)

    def both(state: Any, hidden: jax.Array, cotangent: jax.Array) -> Any:
        result, pull = jax.vjp(forward, state, hidden)
        return result, pull(cotangent)

    arguments = {"state": state, "hidden": hidden}
    return (forward, arguments) if is_forward else (both, arguments | {"cotangent": hidden})


def _row(kernel: Kernel) -> str:
    source = re.sub(r"jit\(\w+\)/", "", kernel.source)[-50:]
    read, written = kernel.read / MIB, kernel.written / MIB
    return (
        f"| {kernel.kind} {kernel.name} | {kernel.times} | {read:.0f} | {written:.0f} | {source} |"
    )


if __name__ == "__main__":
    main()
