"""A GPU of the Hopper generation that is not there, as far as jax's checks of cuDNN's calls go.

cuDNN's attention can neither run nor be compiled without a GPU, but jax checks a call's arguments
while it traces it: shapes, dtypes, lengths, windows, gradients.
"""

from types import SimpleNamespace

import jax
import pytest
from jax._src.cudnn import fused_attention_stablehlo as checks


def pretend_hopper(monkeypatch: pytest.MonkeyPatch, capability: str = "9.0") -> None:
    """Let dispatch and jax's checks see a GPU of that compute capability, with cuDNN 9.15."""

    def reaches(wanted: str) -> bool:
        return float(capability) >= float(wanted)

    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "devices", lambda: [SimpleNamespace(compute_capability=capability)])
    monkeypatch.setattr(checks, "check_cudnn_version", lambda: 91500)
    monkeypatch.setattr(checks, "check_compute_capability", reaches)
    monkeypatch.setattr(checks, "is_cuda_compute_capability_equal", capability.__eq__)
