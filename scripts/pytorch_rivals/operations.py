"""PyTorch's selective scan, Mamba-2 recurrence and attention, on our inputs in our layout.

The other side's kernels take channels before tokens. Its inputs are laid out so beforehand, outside
of what is timed, as its own layers have them.
"""

from collections.abc import Callable, Mapping
from typing import Any

from jaxrank.benchmarking.cases import AttentionShape, Case, ScanShape, SsdShape
from jaxrank.benchmarking.operations import make_cotangent, make_inputs
from jaxrank.benchmarking.rivals import RivalMissingError
from scripts.pytorch_rivals.torch_side import TorchSide, device, need, need_same_device, tensor

Tensors = Mapping[str, Any]
CHANNELS_FIRST = ("u", "delta", "z", "B", "C")
MAMBA2_CHUNK = 256
"""Of Mamba-2's published models, and transformers' default."""


def mamba_ssm_operation(case: Case) -> TorchSide | None:
    """The kernels of mamba_ssm: selective_scan_fn and mamba_chunk_scan_combined."""
    if not isinstance(case.shape, ScanShape | SsdShape):
        return None
    need("torch", "mamba_ssm")
    need_same_device()
    if device() != "cuda":
        raise RivalMissingError("its kernels are CUDA alone")
    if isinstance(case.shape, ScanShape):
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

        return _side(case, _scan(selective_scan_fn))
    from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined

    return _side(case, _ssd(mamba_chunk_scan_combined))


def transformers_operation(case: Case, *, is_compiled: bool = False) -> TorchSide | None:
    """Transformers' functions in plain PyTorch: a loop over tokens, chunks of matrix products.

    Compiled, the scan is torch's associative one, as transformers chooses under torch.compile.
    """
    if not isinstance(case.shape, ScanShape | SsdShape):
        return None
    need("torch", "transformers")
    need_same_device()
    if isinstance(case.shape, ScanShape):
        if is_compiled:
            # Its loop would be laid out token by token; its associative scan has no gradient on
            # CPU, and on either is only there under torch.compile.
            raise RivalMissingError("its scan is a loop over tokens, which takes hours to compile")
        from transformers.models.mamba.modeling_mamba import mamba_selective_scan

        return _side(case, _scan(mamba_selective_scan))
    import torch
    from transformers.models.mamba2.modeling_mamba2 import mamba2_chunk_scan

    function = torch.compile(mamba2_chunk_scan) if is_compiled else mamba2_chunk_scan
    return _side(case, _ssd(function))


def sdpa(case: Case) -> TorchSide | None:
    """torch.nn.functional.scaled_dot_product_attention, flash where it takes that."""
    shape = case.shape
    if not isinstance(shape, AttentionShape):
        return None
    need("torch")
    need_same_device()
    from torch.nn.functional import scaled_dot_product_attention

    is_causal = shape.is_causal

    def call(inputs: Tensors) -> Any:
        query, key, value = (inputs[name].transpose(1, 2) for name in ("query", "key", "value"))
        mixed = scaled_dot_product_attention(query, key, value, is_causal=is_causal)
        return mixed.transpose(1, 2)

    return _side(case, call)


def _scan(function: Callable[..., Any]) -> Callable[[Tensors], Any]:
    def call(inputs: Tensors) -> Any:
        ordered = [inputs[name] for name in ("u", "delta", "A", "B", "C")]
        options = {name: inputs[name] for name in ("D", "z", "delta_bias")}
        return function(*ordered, **options, delta_softplus=True).transpose(1, 2)

    return call


def _ssd(function: Callable[..., Any]) -> Callable[[Tensors], Any]:
    def call(inputs: Tensors) -> Any:
        ordered = [inputs[name] for name in ("x", "dt", "A", "B", "C")]
        return function(*ordered, chunk_size=MAMBA2_CHUNK, D=inputs["D"])

    return call


def _side(case: Case, call: Callable[[Tensors], Any]) -> TorchSide:
    """The call in the case's direction; gradients come in our layout."""
    import torch

    is_scan = isinstance(case.shape, ScanShape)
    has_gradients = case.direction != "forward"
    sets, results = [], []
    for key in case.random_keys:
        tensors = {name: tensor(array) for name, array in make_inputs(case, key).items()}
        if is_scan:
            for name in CHANNELS_FIRST:
                tensors[name] = tensors[name].transpose(1, 2).contiguous()
        for one in tensors.values():
            one.requires_grad_(has_gradients)
        sets.append(tensors)
    names = sorted(sets[0])

    def forward(inputs: Tensors) -> Any:
        with torch.no_grad():
            return call(inputs)

    def gradients(y: Any, inputs: Tensors, cotangent: Any, *, keep: bool) -> tuple[Any, ...]:
        found = torch.autograd.grad(
            y, [inputs[name] for name in names], cotangent.to(y.dtype), retain_graph=keep
        )
        if not is_scan:
            return found
        turned = [name in CHANNELS_FIRST for name in names]
        return tuple(
            one.transpose(1, 2) if is_turned else one
            for one, is_turned in zip(found, turned, strict=True)
        )

    def both(inputs: Tensors, cotangent: Any) -> tuple[Any, ...]:
        y = call(inputs)
        return y, *gradients(y, inputs, cotangent, keep=False)

    def backward(y: Any, inputs: Tensors, cotangent: Any) -> tuple[Any, ...]:
        return gradients(y, inputs, cotangent, keep=True)

    if case.direction == "forward":
        return TorchSide(forward, [(inputs,) for inputs in sets], names=["y"])
    cotangents = [tensor(make_cotangent(case, key)) for key in case.random_keys]
    called = [f"gradient of {name}" for name in names]
    if case.direction == "both":
        pairs = list(zip(sets, cotangents, strict=True))
        return TorchSide(both, pairs, names=["y", *called])
    results = [call(inputs) for inputs in sets]
    return TorchSide(backward, list(zip(results, sets, cotangents, strict=True)), names=called)
