import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import transformers
from safetensors.numpy import load_file, save_file

from ckpt_convert.network import load_network
from ckpt_convert.source_config import read_source_config
from ckpt_convert.torch_oracle import quiet_transformers
from jaxrank.errors import InputError
from jaxrank.models.t5 import PRESETS, T5Config
from tests.families.comparison import SMALL_VOCABULARY, Checkpoint
from tests.families.encoder_decoder import EncoderDecoderSuite

SMALL = {
    "vocab_size": SMALL_VOCABULARY,
    "d_model": 24,
    "num_layers": 3,
    "num_decoder_layers": 2,
    "num_heads": 3,
    "d_kv": 10,  # All heads together are wider than the model.
    "d_ff": 40,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 9,
    "pad_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 5,
    "num_labels": 1,
}
V1_1 = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
BASE = {"d_model": 768, "num_layers": 12, "num_heads": 12, "d_ff": 3072}
LARGE = {"d_model": 1024, "num_layers": 24, "num_heads": 16, "d_ff": 4096}
V1_1_BASE = BASE | V1_1 | {"d_ff": 2048}
TOKENS = {"eos_token_id": 2, "decoder_start_token_id": 0, "num_labels": 1}
# One decoder step attends to itself alone, whatever the scores.
ONE_STEP = (r"decoder\.block\.\d+\.layer\.0\.SelfAttention\.(q|k|relative_attention_bias)\.",)


class TestT5(EncoderDecoderSuite):
    family = "t5"
    checkpoints = {  # noqa: RUF012
        "classifier": Checkpoint("T5ForSequenceClassification", SMALL, "classification"),
        "gated language model": Checkpoint(
            "T5ForConditionalGeneration", SMALL | V1_1, "linear", ONE_STEP
        ),
    }
    presets = {  # noqa: RUF012
        "t5-base": ("T5Model", BASE),
        "t5-large": ("T5Model", LARGE),
        "t5-v1.1-base": ("T5Model", V1_1_BASE),
    }
    full_size = {  # noqa: RUF012
        "t5-base": Checkpoint("T5Model", BASE | TOKENS, "linear", ONE_STEP),
        "t5-large": Checkpoint("T5Model", LARGE | TOKENS, "linear", ONE_STEP),
        "t5-v1.1-base": Checkpoint(
            "T5ForSequenceClassification", V1_1_BASE | TOKENS, "classification"
        ),
    }
    slow = ("t5-large", "t5-v1.1-base")
    forward_only = ("t5-large",)
    tokenizer = "t5"


def test_an_encoder_alone_is_refused_by_name(tmp_path: Path):
    with quiet_transformers():
        transformers.T5EncoderModel(transformers.T5Config(**SMALL)).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"T5EncoderModel holds an encoder alone") as caught:
        load_network(tmp_path)
    assert "\n" not in str(caught.value)


def test_an_encoder_that_calls_itself_whole_is_refused_for_what_is_missing(tmp_path: Path):
    """As older releases wrote it, under the name of the model that it came from."""
    with quiet_transformers():
        transformers.T5EncoderModel(transformers.T5Config(**SMALL)).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    attributes = json.loads(path.read_text())
    attributes |= {"architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True}
    path.write_text(json.dumps(attributes))
    with pytest.raises(InputError, match=r"missing: transformer\.decoder\."):
        load_network(tmp_path, head="linear")


# What google-t5/t5-base and google/t5-v1_1-base hold, shortened in the settings for generation.
PUBLISHED = {
    "architectures": ["T5ForConditionalGeneration"],
    "d_kv": 64,
    "d_model": 768,
    "decoder_start_token_id": 0,
    "dropout_rate": 0.1,
    "eos_token_id": 1,
    "initializer_factor": 1.0,
    "is_encoder_decoder": True,
    "layer_norm_epsilon": 1e-06,
    "model_type": "t5",
    "num_heads": 12,
    "num_layers": 12,
    "output_past": True,
    "pad_token_id": 0,
    "relative_attention_num_buckets": 32,
    "vocab_size": 32128,
}
V1_0_FILE = {
    "d_ff": 3072,
    "n_positions": 512,
    "task_specific_params": {"summarization": {"prefix": "summarize: "}},
}
V1_1_FILE = {
    "d_ff": 2048,
    "feed_forward_proj": "gated-gelu",
    "num_decoder_layers": 12,
    "tie_word_embeddings": False,
}


@pytest.mark.parametrize(
    ("preset", "attributes"), [("t5-base", V1_0_FILE), ("t5-v1.1-base", V1_1_FILE)]
)
def test_published_config_files_give_the_presets(preset: str, attributes: dict, tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED | attributes))
    read = read_source_config(tmp_path, head="linear").config.backbone
    assert replace(read, num_decoder_layers=None) == PRESETS[preset]
    assert read.decoder_layers == 12


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"feed_forward_proj": "gated-silu"}, "needed is relu or gated-gelu"),
        ({"is_gated_act": True}, "is_gated_act is True; the other sizes make it False"),
        ({"decoder_start_token_id": None}, "decoder_start_token_id is None; needed is a whole"),
        ({"decoder_start_token_id": 32128}, "decoder_start_token_id is 32128; the vocabulary has"),
        ({"num_decoder_layers": 1001}, "needed is a whole number from 1 to 1000"),
        ({"is_decoder": True}, "is_decoder is True; only False is supported"),
    ],
)
def test_what_would_compute_something_else_is_refused(
    attributes: dict, message: str, tmp_path: Path
):
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED | V1_0_FILE | attributes))
    with pytest.raises(InputError, match=message):
        read_source_config(tmp_path, head="linear")


def test_files_of_the_first_releases_are_read(tmp_path: Path):
    """With the token table under all its names, and a position bias that nothing reads."""
    with quiet_transformers():
        transformers.T5Model(transformers.T5Config(**SMALL)).save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    for alias in ("encoder", "decoder"):
        tensors[f"{alias}.embed_tokens.weight"] = tensors["shared.weight"]
    left = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    tensors[left] = np.ones((8, 3), np.float32)
    save_file(tensors, file, metadata={"format": "pt"})
    network = load_network(tmp_path, head="linear")
    assert any("has no position bias" in note for note in network.notes)
    tensors["decoder.embed_tokens.weight"] = tensors["shared.weight"] + 1
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"embed_tokens.weight and shared.weight differ"):
        load_network(tmp_path, head="linear")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"num_buckets": 2}, "at least 4 buckets"),
        ({"num_buckets": 32, "max_distance": 16}, "max_distance 16; needed are at least 4"),
    ],
)
def test_a_config_that_cannot_be_computed_is_refused(changed: dict, message: str):
    with pytest.raises(InputError, match=message):
        T5Config(**changed)
