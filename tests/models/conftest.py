"""PyTorch models as oracles, and their tensors under our parameters' paths."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

LINEAR = {"kernel": "weight", "bias": "bias"}
BERT = {
    **{
        f"backbone.embeddings.{ours}.embedding": f"bert.embeddings.{theirs}_embeddings.weight"
        for ours, theirs in [
            ("token", "word"),
            ("position", "position"),
            ("token_type", "token_type"),
        ]
    },
    "backbone.embeddings.norm": "bert.embeddings.LayerNorm",
    "backbone.layers.stacked.attention.query": "bert.encoder.layer.{}.attention.self.query",
    "backbone.layers.stacked.attention.key": "bert.encoder.layer.{}.attention.self.key",
    "backbone.layers.stacked.attention.value": "bert.encoder.layer.{}.attention.self.value",
    "backbone.layers.stacked.attention.output": "bert.encoder.layer.{}.attention.output.dense",
    "backbone.layers.stacked.attention_norm": "bert.encoder.layer.{}.attention.output.LayerNorm",
    "backbone.layers.stacked.feed_forward.up": "bert.encoder.layer.{}.intermediate.dense",
    "backbone.layers.stacked.feed_forward.down": "bert.encoder.layer.{}.output.dense",
    "backbone.layers.stacked.feed_forward_norm": "bert.encoder.layer.{}.output.LayerNorm",
    "head.pooler": "bert.pooler.dense",
    "head.score": "classifier",
}
MAMBA = {
    "backbone.embedding.embedding": "backbone.embeddings.weight",
    "backbone.layers.stacked.norm": "backbone.layers.{}.norm",
    "backbone.layers.stacked.mixer": "backbone.layers.{}.mixer",
    "backbone.layers.stacked.mixer.conv_weight": "backbone.layers.{}.mixer.conv1d.weight",
    "backbone.layers.stacked.mixer.conv_bias": "backbone.layers.{}.mixer.conv1d.bias",
    "backbone.final_norm": "backbone.norm_f",
    "head.score": "score",
}


def from_torch(
    table: Mapping[str, str], paths: list[str], tensors: Mapping[str, Any], num_layers: int
) -> dict[str, np.ndarray]:
    """The tensors (weights or gradients) of a PyTorch model under our paths, stacked by layer."""

    def find(path: str, layer: int) -> np.ndarray:
        ours = max((key for key in table if path.startswith(key)), key=len)
        rest = path[len(ours) :].replace("kernel", "weight")
        array = tensors[(table[ours] + rest).format(layer)].detach().float().numpy()
        if path.endswith("conv_weight"):
            return array[:, 0]
        return array.T if path.endswith("kernel") else array

    return {
        path: np.stack([find(path, layer) for layer in range(num_layers)])
        if ".stacked." in path
        else find(path, 0)
        for path in paths
    }


@pytest.fixture(scope="session")
def torch_parameters() -> Callable[..., dict[str, np.ndarray]]:
    """(family, our paths, named tensors, num_layers) -> arrays by our paths."""
    return lambda family, *rest: from_torch({"bert": BERT, "mamba": MAMBA}[family], *rest)


@pytest.fixture(scope="session")
def gradient_error() -> Callable[[np.ndarray, np.ndarray, float], float]:
    """Largest |difference| / max(|g|, 1e-3 x global norm), the measure of gradient parity."""

    def error(ours: np.ndarray, theirs: np.ndarray, global_norm: float) -> float:
        scale = np.maximum(np.abs(theirs), 1e-3 * global_norm)
        return float(np.max(np.abs(np.asarray(ours) - theirs) / scale))

    return error
