"""The same reranker in PyTorch: transformers' own class, and the score that we take from it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ckpt_convert.architectures import ARCHITECTURES
from ckpt_convert.config_format import write_config
from ckpt_convert.rules import canonical_name, export_weights
from ckpt_convert.source_config import read_source_config
from ckpt_convert.weight_files import open_weights
from jaxrank.errors import InputError
from jaxrank.models.families import get_family
from jaxrank.models.module import RerankerConfig


class TorchReranker:
    """Transformers' model with the head that a RerankerConfig names.

    The class is named by us, never by the folder, whose config.json has passed our allow-list.

    Args:
        model: an instance of the class in `Architecture.classes`.
        config: what it is to us.
        score: weight (D, 1) and bias (1,) of the linear head; not used for `classification`.
    """

    def __init__(
        self, model: Any, config: RerankerConfig, score: tuple[np.ndarray, np.ndarray] | None = None
    ) -> None:
        import torch

        self.model = model.eval()
        self.config = config
        self.score = None
        if score is not None:
            weight, bias = (torch.tensor(np.asarray(array)) for array in score)
            self.score = torch.nn.Linear(len(weight), 1)
            with torch.no_grad():
                self.score.weight.copy_(weight.T)
                self.score.bias.copy_(bias)

    @classmethod
    def from_folder(
        cls, folder: Path, config: RerankerConfig, parameters: Mapping[str, np.ndarray]
    ) -> "TorchReranker":
        """Read the folder as PyTorch users do; take from `parameters` only a head that it lacks."""
        has_head = read_source_config(folder, head=config.head).has_head
        with quiet_transformers():
            model = _read_model(folder, config, parameters, has_head=has_head)
        if config.head == "classification":
            return cls(model, config)
        if not has_head:
            return cls(
                model, config, (parameters["head.score.kernel"], parameters["head.score.bias"])
            )
        weights = open_weights(folder)
        return cls(model, config, (weights.read("score.weight").T, weights.read("score.bias")))

    def __call__(self, batch: Mapping[str, np.ndarray]) -> tuple[tuple[Any, ...], Any]:
        """Hidden states, each (B, L, D), and scores (B,) of a batch as `pad_pairs` makes it."""
        import torch

        family = get_family(self.config.family)
        mask = torch.from_numpy(np.asarray(batch["mask"]))
        inputs = {
            "input_ids": torch.from_numpy(np.asarray(batch["input_ids"])).long(),
            "attention_mask": mask.long(),
        }
        if getattr(self.config.backbone, "type_vocab_size", None) and "token_type_ids" in batch:
            types = torch.from_numpy(np.asarray(batch["token_type_ids"])).long()
            inputs["token_type_ids"] = types
        if self.config.backbone.decoder_layers is not None and self.score is not None:
            start = self.config.backbone.decoder_start_token_id
            inputs["decoder_input_ids"] = torch.full((len(mask), 1), start)
        if self.score is None:
            # Transformers' classifiers find the end of a text by the token: on decoders it is the
            # last that is no pad, on encoder-decoders the last end. So pad with an id that no text
            # of the batch holds, whatever config.json names.
            ids = inputs["input_ids"]
            pad = min(set(range(ids.numel() + 1)) - set(ids[mask].tolist()))
            inputs["input_ids"] = torch.where(mask, ids, pad)
            self.model.config.pad_token_id = pad
        with quiet_transformers():
            output = self.model(**inputs, output_hidden_states=True, return_dict=True)
        if "encoder_hidden_states" in output:
            states = (*output.encoder_hidden_states, *output.decoder_hidden_states)
        else:
            states = output.hidden_states
        if self.score is None:
            return states, output.logits[:, 0]
        hidden = output.last_hidden_state
        rows = torch.arange(len(mask))
        place = mask.sum(1) - 1 if family.pooling == "last" else torch.zeros_like(rows)
        return states, self.score(hidden[rows, place].float())[:, 0]


def _read_model(
    folder: Path, config: RerankerConfig, parameters: Mapping[str, np.ndarray], *, has_head: bool
) -> Any:
    try:
        import torch
    except ImportError:
        raise InputError(
            "check: PyTorch is not installed; pip install 'jaxrank[convert]'"
        ) from None
    import transformers

    architecture = ARCHITECTURES[config.family]
    table = architecture.tables[config.head]
    weights = open_weights(folder)
    names = {canonical_name(table, name): name for name in weights.shapes}
    model_class = getattr(transformers, architecture.classes[config.head])
    if read_source_config(folder, head=config.head).layout == "state-spaces":
        written = write_config(architecture.config, config.backbone)
        model = model_class(model_class.config_class(**written))
        used = {name: names[name] for name in model.state_dict()}
        read = {name: torch.from_numpy(weights.read(source)) for name, source in used.items()}
        model.load_state_dict(read, strict=True)
        return model
    model = model_class.from_pretrained(
        folder, num_labels=1, dtype=torch.float32, use_safetensors=True, local_files_only=True
    )
    # A head that the folder lacks started at random, differently on each side: take ours. (On
    # decoders a folder's `score` may be a head of the other kind, which we do not take either.)
    exported = export_weights(table, parameters)
    taken = {name for name in names if has_head or not name.startswith("score.")}
    fresh = {name: torch.tensor(a) for name, a in exported.items() if name not in taken}
    model.load_state_dict(fresh, strict=False)
    return model


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No load reports, bars and hints at faster kernels; `load` has said what matters."""
    from transformers.utils import logging

    level, had_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if had_bars:
            logging.enable_progress_bar()
