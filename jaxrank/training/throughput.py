"""How fast a run trains: pairs and tokens a second, padding, model FLOPs, memory; and a trace.

Model FLOPs are the multiplications and additions that the model as such asks for, whatever the
program does besides: padding and what is computed twice for the sake of memory do not count. They
are counted as is usual since PaLM (Chowdhery et al. 2022, arXiv 2204.02311, appendix B):

    6 for each token and parameter   (2 forward, 2 for gradients of activations, 2 for those of the
                                     parameter; the last are not there for a frozen one)
    12 x width x L for each token of an attention layer that sees L tokens, causal or not
    15 x channels x N for each token of a state-space layer: a state's decay, input and sum, and two
                                     for reading it, forward; twice that backward

Tables that are looked up cost nothing, and what is computed once for a pair (the head; a decoder
that reads one token) counts once for a pair. L is the mean length of the pairs, so attention is
counted a little low where lengths differ.
"""

import re
import resource
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from flax import nnx

from jaxrank.models.module import RerankerConfig
from jaxrank.shapes import Array
from jaxrank.training.memory import GIB
from jaxrank.training.step import Metrics, TrainState, TrainStep

PEAK_TFLOPS = {
    "B200": 2250.0,
    "H200": 989.0,
    "GH200": 989.0,
    "H100 PCIe": 756.0,
    "H100 NVL": 835.0,
    "H100": 989.0,
    "A100": 312.0,
    "RTX A6000": 154.8,
    "A40": 149.7,
    "A30": 165.0,
    "A10": 125.0,
    "L40S": 362.0,
    "L4": 121.0,
    "RTX 4090": 165.2,
    "RTX 3090": 71.0,
    "TPU v4": 275.0,
    "TPU v5 lite": 197.0,
    "TPU v5": 459.0,
    "TPU v6 lite": 918.0,
}
"""Name in JAX's `device_kind` -> dense bfloat16 operations a second with sums in float32, in 10^12.
From NVIDIA's data sheets (half of what they print for sparse matrices) and Google Cloud's pages on
TPUs. The first name that occurs counts."""

TRAINED, FROZEN = 6, 4
TRACE_AFTER, TRACED_STEPS = 5, 3


@dataclass(frozen=True)
class ModelFlops:
    """What a model's forward and backward pass asks for, recomputation left out."""

    per_pair: float
    per_token: float
    per_seen_token: float
    """For each token of a text, and each token that one layer lets it see."""
    full_layers: int
    """Attention layers that see all of a text."""
    local_layers: int = 0
    """Those that see a window alone."""
    window: int = 0

    def of(self, *, pairs: float, tokens: float) -> float:
        """Operations for so many pairs with so many real tokens in all."""
        length = tokens / max(pairs, 1)
        seen = self.full_layers * length + self.local_layers * min(length, self.window)
        return self.per_pair * pairs + (self.per_token + self.per_seen_token * seen) * tokens


def count_flops(config: RerankerConfig, state: TrainState) -> ModelFlops:
    """The model FLOPs of a reranker, whose parameters are in `state`."""
    backbone = config.backbone
    reads_text = config.head == "classification" or backbone.decoder_layers is None
    per_pair = per_token = 0.0
    sizes = {path: (size, TRAINED) for path, size in _sizes(state.parameters).items()}
    sizes |= {path: (size, FROZEN) for path, size in _sizes(state.frozen).items()}
    tables = {path[:-1] for path in sizes if path[-1] == "embedding"}
    for path, (size, cost) in sizes.items():
        if path[:-1] in tables and path[-1] in ("embedding", "lora_a"):
            continue
        is_of_text = {"cross_attention", "key"} <= {*path} or {"cross_attention", "value"} <= {
            *path
        }
        if "head" in path or ("decoder" in path and not reads_text and not is_of_text):
            per_pair += cost * size
        else:
            per_token += cost * size
    if not hasattr(backbone, "num_heads") or hasattr(backbone, "state_size"):
        channels = backbone.expand * backbone.hidden_size
        per_token += 15 * channels * backbone.state_size * backbone.num_layers
        return ModelFlops(per_pair, per_token, per_seen_token=0.0, full_layers=0)
    head_size = getattr(backbone, "head_size", None) or backbone.hidden_size // backbone.num_heads
    per_seen_token = 12.0 * backbone.num_heads * head_size
    layers, decoder_layers = backbone.num_layers, backbone.decoder_layers or 0
    if not reads_text:  # One token of the decoder sees all of the text, and nothing else.
        per_token += per_seen_token * decoder_layers
        return ModelFlops(per_pair, per_token, per_seen_token, layers)
    local_layers = getattr(backbone, "layer_types", []).count("sliding_attention")
    return ModelFlops(
        per_pair,
        per_token,
        per_seen_token,
        full_layers=layers - local_layers + 2 * decoder_layers,
        local_layers=local_layers,
        window=getattr(backbone, "local_attention", 0),
    )


class Throughput:
    """Makes rates of what a run has done in some seconds.

    Args:
        flops: what the model asks for.
        devices: how many devices of the run share the work.
        peak_tflops: of one of them; None: not known.
    """

    def __init__(
        self, flops: ModelFlops, *, devices: int = 1, peak_tflops: float | None = None
    ) -> None:
        self._flops = flops
        self._peak = None if peak_tflops is None else devices * peak_tflops

    def rates(self, sums: Mapping[str, float], duration_s: float) -> dict[str, float]:
        """Values to log of `pairs`, `tokens` and `padded_tokens` that took `duration_s`.

        `padding_share` is the part of computed tokens that are padding, `model_flops_utilisation`
        the part of the devices' peak that went into model FLOPs, `memory_gib` the most memory so
        far: of the fullest device, or on a CPU of the process.
        """
        pairs, tokens = sums["pairs"], sums["tokens"]
        tflops = self._flops.of(pairs=pairs, tokens=tokens) / duration_s / 1e12
        values = {
            "pairs_per_s": pairs / duration_s,
            "tokens_per_s": tokens / duration_s,
            "padding_share": 1 - tokens / max(sums["padded_tokens"], 1),
            "model_tflops_per_s": tflops,
            "memory_gib": peak_memory() / GIB,
        }
        if self._peak is not None:
            values["model_flops_utilisation"] = tflops / self._peak
        return values


def find_peak_tflops(device_kind: str) -> float | None:
    """What a device of that kind can do in bfloat16, if it is known.

    >>> find_peak_tflops("NVIDIA A100-SXM4-80GB"), find_peak_tflops("cpu")
    (312.0, None)
    """
    for name, peak in PEAK_TFLOPS.items():
        if re.search(rf"\b{name}\b", device_kind):
            return peak
    return None


def peak_memory() -> int:
    """The most bytes in use so far: of the fullest device, or on a CPU of this process."""
    statistics = [device.memory_stats() or {} for device in jax.local_devices()]
    most = max(values.get("peak_bytes_in_use", 0) for values in statistics)
    if most:
        return most
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return resident if sys.platform == "darwin" else 1024 * resident


@contextmanager
def traced(
    train_step: TrainStep,
    folder: Path | None,
    *,
    after: int = TRACE_AFTER,
    steps: int = TRACED_STEPS,
    say: Callable[[str], None] = lambda line: None,
) -> Iterator[TrainStep]:
    """The step, which writes a trace of some of its calls into `folder`, as jax.profiler does.

    Args:
        folder: None: no trace.
        after: calls that are left out first, as they compile.
        steps: calls that are traced.
        say: called with one line where there were too few calls for a trace, or for all of it.
    """
    if folder is None:
        yield train_step
        return
    calls = 0
    is_tracing = False

    def stop() -> None:
        nonlocal is_tracing
        if is_tracing:
            is_tracing = False
            jax.profiler.stop_trace()

    def step(state: TrainState, batch: Mapping[str, Array]) -> tuple[TrainState, Metrics]:
        nonlocal calls, is_tracing
        calls += 1
        if calls == after + 1:
            jax.block_until_ready(state.parameters)
            jax.profiler.start_trace(folder)
            is_tracing = True
        with jax.profiler.StepTraceAnnotation("train", step_num=calls):
            result = train_step(state, batch)
        if calls == after + steps:
            jax.block_until_ready(result)
            stop()
        return result

    try:
        yield step
    finally:
        stop()
        if calls < after + steps:
            found = f"a trace of {calls - after}" if calls > after else "no trace"
            say(
                f"training.profile: {found}, since it ended after {calls} steps; the first {after} "
                f"are left out and {steps} traced"
            )


def _sizes(parameters: Any) -> dict[tuple[Any, ...], int]:
    """Path -> numbers in a parameter."""
    if not parameters:
        return {}
    return {path: variable.get_value().size for path, variable in nnx.to_flat_state(parameters)}
