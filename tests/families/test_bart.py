import json
from pathlib import Path

import numpy as np
import pytest
import transformers
from safetensors.numpy import load_file, save_file

from ckpt_convert.network import load_network
from ckpt_convert.source_config import read_source_config
from ckpt_convert.torch_oracle import quiet_transformers
from jaxrank.errors import InputError
from jaxrank.models.bart import PRESETS
from tests.families.comparison import SMALL_VOCABULARY, Checkpoint
from tests.families.encoder_decoder import EncoderDecoderSuite

SMALL = {
    "vocab_size": SMALL_VOCABULARY,
    "d_model": 24,
    "encoder_layers": 3,
    "decoder_layers": 2,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 3,
    "encoder_ffn_dim": 40,
    "decoder_ffn_dim": 40,
    "max_position_embeddings": 16,
    "attention_dropout": 0.1,
    "num_labels": 1,
}
BASE = {
    "d_model": 768,
    "encoder_layers": 6,
    "decoder_layers": 6,
    "encoder_attention_heads": 12,
    "decoder_attention_heads": 12,
    "encoder_ffn_dim": 3072,
    "decoder_ffn_dim": 3072,
    "num_labels": 1,
}
# Key biases shift all scores of a query alike: their gradient is zero but for rounding.
KEY_BIAS = (r"_attn\.k_proj\.bias",)
# One decoder step attends to itself alone, whatever the scores.
ONE_STEP = (*KEY_BIAS, r"decoder\.layers\.\d+\.self_attn\.[qk]_proj\.")


class TestBart(EncoderDecoderSuite):
    family = "bart"
    checkpoints = {  # noqa: RUF012
        "classifier": Checkpoint(
            "BartForSequenceClassification", SMALL, "classification", KEY_BIAS
        ),
        "language model": Checkpoint(
            "BartForConditionalGeneration",
            SMALL | {"decoder_start_token_id": 5},
            "linear",
            ONE_STEP,
        ),
    }
    presets = {  # noqa: RUF012
        "bart-base": ("BartModel", BASE),
        "bart-large": ("BartModel", {}),
    }
    full_size = {  # noqa: RUF012
        "bart-base": Checkpoint("BartForSequenceClassification", BASE, "classification", KEY_BIAS),
        "bart-large": Checkpoint("BartModel", {}, "linear", ONE_STEP),
    }
    slow = ("bart-large",)
    tokenizer = "roberta-base"


# What facebook/bart-base holds.
PUBLISHED = {
    "activation_dropout": 0.1,
    "activation_function": "gelu",
    "add_bias_logits": False,
    "add_final_layer_norm": False,
    "architectures": ["BartModel"],
    "attention_dropout": 0.1,
    "bos_token_id": 0,
    "classif_dropout": 0.1,
    "classifier_dropout": 0.0,
    "d_model": 768,
    "decoder_attention_heads": 12,
    "decoder_ffn_dim": 3072,
    "decoder_layerdrop": 0.0,
    "decoder_layers": 6,
    "decoder_start_token_id": 2,
    "dropout": 0.1,
    "early_stopping": True,
    "encoder_attention_heads": 12,
    "encoder_ffn_dim": 3072,
    "encoder_layerdrop": 0.0,
    "encoder_layers": 6,
    "eos_token_id": 2,
    "forced_bos_token_id": 0,
    "forced_eos_token_id": 2,
    "gradient_checkpointing": False,
    "id2label": {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"},
    "init_std": 0.02,
    "is_encoder_decoder": True,
    "label2id": {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2},
    "max_position_embeddings": 1024,
    "model_type": "bart",
    "no_repeat_ngram_size": 3,
    "normalize_before": False,
    "normalize_embedding": True,
    "num_beams": 4,
    "num_hidden_layers": 6,
    "pad_token_id": 1,
    "scale_embedding": False,
    "task_specific_params": {"summarization": {"length_penalty": 1.0, "max_length": 128}},
    "torch_dtype": "float32",
    "use_cache": True,
    "vocab_size": 50265,
}


def test_the_published_config_file_gives_the_preset(tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED))
    read = read_source_config(tmp_path, head="linear").config.backbone
    assert read == PRESETS["bart-base"]


def test_a_rate_that_is_left_out_is_transformers_default(tmp_path: Path):
    rates = ("dropout", "attention_dropout", "activation_dropout")
    left = {name: value for name, value in PUBLISHED.items() if name not in rates}
    (tmp_path / "config.json").write_text(json.dumps(left))
    read = read_source_config(tmp_path, head="linear").config.backbone
    theirs = transformers.BartConfig.from_pretrained(tmp_path)
    for name in rates:
        assert getattr(read, name) == getattr(theirs, name), name


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"scale_embedding": True}, "scale_embedding is True; only False is supported"),
        ({"normalize_before": True}, "normalize_before is True; only False is supported"),
        ({"decoder_ffn_dim": 10}, "decoder_ffn_dim is 10; the other sizes make it 3072"),
        ({"encoder_layerdrop": 0.1}, "encoder_layerdrop is 0.1; only 0.0 is supported"),
        ({"is_encoder_decoder": False}, "is_encoder_decoder is False; only True is supported"),
        ({"encoder_attention_heads": 5}, "must be a multiple of num_heads"),
    ],
)
def test_what_would_compute_something_else_is_refused(
    attributes: dict, message: str, tmp_path: Path
):
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED | attributes))
    with pytest.raises(InputError, match=message):
        read_source_config(tmp_path, head="linear")


def test_a_bare_model_of_an_older_release_reads_the_same(tmp_path: Path):
    """Without prefix, with the token table under all its names."""
    with quiet_transformers():
        model = transformers.BartForConditionalGeneration(transformers.BartConfig(**SMALL))
        model.save_pretrained(tmp_path / "whole")
        model.model.save_pretrained(tmp_path / "bare")
    file = tmp_path / "bare" / "model.safetensors"
    tensors = load_file(file)
    assert "encoder.layers.0.fc1.weight" in tensors
    for alias in ("encoder", "decoder"):
        tensors[f"{alias}.embed_tokens.weight"] = tensors["shared.weight"]
    tensors["encoder.version"] = np.array([3.0], np.float32)
    save_file(tensors, file, metadata={"format": "pt"})
    bare, whole = (load_network(tmp_path / name, head="linear") for name in ("bare", "whole"))
    for path, value in whole.parameters.items():
        if not path.startswith("head."):
            np.testing.assert_array_equal(bare.parameters[path], value, err_msg=path)
