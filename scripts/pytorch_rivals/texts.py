"""sentence-transformers' CrossEncoder on the pairs that our Reranker scores."""

from pathlib import Path

from jaxrank.benchmarking.cases import Case, TextsShape
from jaxrank.benchmarking.rivals import RivalMissingError
from jaxrank.benchmarking.texts import PredictSide
from scripts.pytorch_rivals.torch_side import device, need, need_same_device


def cross_encoder(case: Case) -> PredictSide | None:
    """CrossEncoder.predict of the same folder, in the same precision."""
    if not isinstance(case.shape, TextsShape):
        return None
    need("torch", "sentence_transformers")
    need_same_device()
    import torch
    from sentence_transformers import CrossEncoder

    if not (Path(case.shape.model) / "config.json").is_file():
        raise RivalMissingError(f"{case.shape.model} is no folder that it reads")
    model = CrossEncoder(
        case.shape.model,
        device=device(),
        model_kwargs={"torch_dtype": getattr(torch, case.dtype)},
    )
    return PredictSide(
        lambda pairs: model.predict(list(pairs), show_progress_bar=False), case.shape.pairs
    )
