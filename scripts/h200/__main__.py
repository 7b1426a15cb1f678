"""Prints what the kernels and a layer take on the H200, from the compiler; no GPU is needed.

.venv-kernels/bin/python -m scripts.h200 scan [--channels 1536 2048 3072]
.venv-kernels/bin/python -m scripts.h200 layer [--models mamba-130m mamba-370m mamba-790m]
.venv-kernels/bin/python -m scripts.h200 ssd [--shapes 64x512 8x4096 4x8192]
(scan and layer: [--batch 64] [--length 512])
"""

import argparse
import sys
from unittest.mock import patch

from scripts.h200 import UnfitEnvironmentError, compile_for_h200, kernel_resources, require_compiler
from scripts.h200.cases import layer_case, scan_case, ssd_case

MIB = 2**20


def main() -> None:
    """Parse the command, compile, print a table."""
    parser = argparse.ArgumentParser(prog="scripts.h200", description=__doc__.splitlines()[0])
    parts = parser.add_subparsers(dest="part", required=True)
    scan = parts.add_parser("scan", help="registers, shared memory, barriers of the scan's kernels")
    scan.add_argument("--channels", type=int, nargs="+", default=[1536, 2048, 3072])
    layer = parts.add_parser("layer", help="memory of one layer, forward and backward")
    layer.add_argument("--models", nargs="+", default=["mamba-130m", "mamba-370m", "mamba-790m"])
    ssd = parts.add_parser("ssd", help="memory of Mamba-2's recurrence in mamba2-370m")
    ssd.add_argument("--shapes", type=_shape, nargs="+", default=[(64, 512), (8, 4096), (4, 8192)])
    for part in (scan, layer):
        part.add_argument("--batch", type=int, default=64)
        part.add_argument("--length", type=int, default=512)
    arguments = parser.parse_args()
    try:
        require_compiler()
        if arguments.part == "scan":
            print_scan(arguments.channels, arguments.batch, arguments.length)
        elif arguments.part == "ssd":
            print_ssd(arguments.shapes)
        else:
            print_layers(arguments.models, arguments.batch, arguments.length)
    except UnfitEnvironmentError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def print_scan(channels: list[int], batch: int, length: int) -> None:
    """A row a kernel."""
    print(f"selective_scan and its gradients, {batch} x {length} tokens, bfloat16, resets")
    print(
        "channels  kernel                   registers  spilled  shared  blocks/SM  stores  barriers"
    )
    for width in channels:
        for kernel in kernel_resources(*scan_case(width, batch=batch, length=length)):
            print(
                f"{width:8}  {kernel.name:24} {kernel.registers:9}  {kernel.spill_bytes:7}"
                f"  {kernel.shared_bytes:6}  {kernel.blocks_per_multiprocessor:9}"
                f"  {kernel.stores:6}  {kernel.barriers:8}"
            )


def print_layers(models: list[str], batch: int, length: int) -> None:
    """A row a model."""
    print(f"one layer, forward and backward, {batch} x {length} tokens, bfloat16")
    print("model         temporaries MiB")
    for model in models:
        compiled = compile_for_h200(*layer_case(model, batch=batch, length=length))
        temporaries = compiled.memory_analysis().temp_size_in_bytes
        print(f"{model:12}  {temporaries / MIB:15.0f}")


def print_ssd(shapes: list[tuple[int, int]]) -> None:
    """A row a shape."""
    print("ssd in mamba2-370m, bfloat16: temporaries MiB")
    print("tokens       forward  with gradients")
    # The operation's default sizes go by the machine that traces it.
    with patch("jax.default_backend", lambda: "gpu"):
        for batch, length in shapes:
            forward, both = (
                compile_for_h200(*ssd_case(batch=batch, length=length, with_gradients=gradients))
                .memory_analysis()
                .temp_size_in_bytes
                / MIB
                for gradients in (False, True)
            )
            print(f"{batch:4} x {length:<5} {forward:8.0f}  {both:14.0f}")


def _shape(text: str) -> tuple[int, int]:
    """`64x512` as sequences and tokens."""
    try:
        batch, length = map(int, text.split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} came; SEQUENCESxTOKENS is needed") from None
    return batch, length


if __name__ == "__main__":
    main()
