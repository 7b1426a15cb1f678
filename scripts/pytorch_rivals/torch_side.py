"""A PyTorch function as a side of a comparison: shared inputs, waiting, memory."""

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import jax
import numpy as np

from jaxrank.benchmarking.rivals import RivalMissingError
from jaxrank.benchmarking.timing import MemorySource


class TorchSide:
    """A function of tensors that is called on sets of inputs in turn.

    Args:
        function: returns a tensor, or several in a tuple.
        inputs: tuples of its arguments.
        names: of the results that `values` yields.
        parameters: numbers in the network, if it is one.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        inputs: Sequence[tuple[Any, ...]],
        *,
        names: Sequence[str] = (),
        parameters: int | None = None,
    ) -> None:
        self._function, self._inputs, self._names = function, inputs, names
        self.parameters = parameters
        self.compile_s: float | None = None
        self.temporary_bytes: int | None = None
        self.peak_bytes: int | None = None
        self.peak_source: MemorySource | None = None

    def queue(self, index: int) -> Any:
        """Begin a call; the first one is waited for and its memory read."""
        import torch

        is_first = self.peak_source is None and torch.cuda.is_available()
        if is_first:
            torch.cuda.reset_peak_memory_stats()
        result = self._function(*self._inputs[index % len(self._inputs)])
        if is_first:
            torch.cuda.synchronize()
            self.peak_bytes, self.peak_source = torch.cuda.max_memory_allocated(), "torch"
        return result

    def wait(self, result: Any) -> None:
        """Wait for all that was queued."""
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()

    def values(self) -> Mapping[str, np.ndarray]:
        """The named results on the first inputs."""
        if not self._names:
            return {}
        results = self._function(*self._inputs[0])
        results = results if isinstance(results, tuple) else (results,)
        return {
            name: result.detach().float().cpu().numpy()
            for name, result in zip(self._names, results, strict=True)
        }


def need(*packages: str) -> None:
    """Raise RivalMissingError unless those packages are installed."""
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise RivalMissingError(f"{' and '.join(missing)} not installed")


def need_same_device() -> None:
    """Raise RivalMissingError if PyTorch lacks the GPU that JAX computes on."""
    import torch

    if jax.default_backend() == "gpu" and not torch.cuda.is_available():
        raise RivalMissingError("PyTorch sees no GPU, and ours runs on one")


def tensor(array: jax.Array) -> Any:
    """The same memory as a tensor, on the same device."""
    import torch

    return torch.from_dlpack(jax.block_until_ready(array))


def device() -> str:
    """Where PyTorch computes: where JAX does."""
    return "cuda" if jax.default_backend() == "gpu" else "cpu"
