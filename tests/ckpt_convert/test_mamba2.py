import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from ckpt_convert.load import load
from ckpt_convert.parity import certify, read_pairs
from ckpt_convert.source_config import read_source_config, write_source_config
from jaxrank.errors import InputError
from jaxrank.models.mamba2 import PRESETS, Mamba2Config
from jaxrank.models.module import RerankerConfig
from jaxrank.text.templates import TextConfig

# As state-spaces/mamba2-130m and AntonV/mamba2-130m-hf have it.
STATE_SPACES = {
    "d_model": 768,
    "d_intermediate": 0,
    "n_layer": 24,
    "vocab_size": 50277,
    "ssm_cfg": {"layer": "Mamba2"},
    "attn_layer_idx": [],
    "attn_cfg": {},
    "rms_norm": True,
    "residual_in_fp32": True,
    "fused_add_norm": True,
    "pad_vocab_size_multiple": 16,
    "tie_embeddings": True,
}
OLD_FOLDER = {
    "architectures": ["Mamba2ForCausalLM"],
    "chunk_size": 256,
    "conv_kernel": 4,
    "expand": 2,
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 768,
    "initializer_range": 0.1,
    "intermediate_size": 1536,
    "layer_norm_epsilon": 1e-05,
    "model_type": "mamba2",
    "n_groups": 1,
    "norm_before_gate": True,
    "num_heads": 24,
    "num_hidden_layers": 24,
    "residual_in_fp32": True,
    "rms_norm": True,
    "state_size": 128,
    "time_step_limit": [0.0, math.inf],
    "time_step_rank": 48,
    "use_bias": False,
    "use_conv_bias": True,
    "vocab_size": 50288,
}


def read(folder: Path, attributes: dict, head: str | None = None) -> Any:
    (folder / "config.json").write_text(json.dumps(attributes))
    return read_source_config(folder, head=head)


def test_the_published_configurations_are_the_smallest_preset(tmp_path: Path):
    source = read(tmp_path, STATE_SPACES)
    assert source.config == RerankerConfig("mamba2", PRESETS["mamba2-130m"], "linear")
    assert source.layout == "state-spaces"
    old = read(tmp_path, OLD_FOLDER | {"initializer_range": 0.02})
    assert old.config == source.config


def test_state_spaces_mixer_options_fill_our_fields(tmp_path: Path):
    mixer = {
        "layer": "Mamba2",
        "d_state": 64,
        "headdim": 32,
        "ngroups": 4,
        "dt_limit": [0.0, 0.5],
        "conv_bias": False,
        "chunk_size": 64,
    }
    backbone = read(tmp_path, STATE_SPACES | {"ssm_cfg": mixer}).config.backbone
    assert backbone == Mamba2Config(
        state_size=64,
        head_size=32,
        num_groups=4,
        time_step_limit=(0.0, 0.5),
        use_conv_bias=False,
    )


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("D_has_hdim", True, "ssm_cfg.D_has_hdim is True; only False"),
        ("norm_before_gate", True, "ssm_cfg.norm_before_gate is True; only False"),
        ("rmsnorm", False, "ssm_cfg.rmsnorm is False; only True"),
        ("d_ssm", 512, "ssm_cfg.d_ssm is 512; only None"),
        ("dt_limit", [0.1], "ssm_cfg.dt_limit is (0.1,); needed is a list of 2 numbers"),
        ("dt_limit", [0.0, "1"], "ssm_cfg.dt_limit is (0.0, '1'); needed is a list of 2 numbers"),
        ("dt_limit", 0.1, "ssm_cfg.dt_limit is 0.1; needed is a list of 2 numbers"),
        ("dt_limit", [0.2, 0.1], "time_step_limit is (0.2, 0.1)"),
        ("headdim", 100, "head_size 100"),
        ("dt_rank", 48, "unknown to this family: ssm_cfg.dt_rank"),
    ],
)
def test_a_state_spaces_variant_is_refused_by_name(tmp_path: Path, name, value, said):
    with pytest.raises(InputError) as raised:
        read(tmp_path, STATE_SPACES | {"ssm_cfg": {"layer": "Mamba2", name: value}})
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("num_heads", 12, "num_heads is 12; the other sizes make it 24"),
        ("intermediate_size", 768, "intermediate_size is 768; the other sizes make it 1536"),
        ("hidden_act", "gelu", "hidden_act is 'gelu'; only 'silu'"),
        ("n_groups", 7, "num_groups 7"),
        ("time_step_limit", None, "time_step_limit is None; needed is a list of 2 numbers"),
    ],
)
def test_a_hugging_face_variant_is_refused_by_name(tmp_path: Path, name, value, said):
    with pytest.raises(InputError) as raised:
        read(tmp_path, OLD_FOLDER | {name: value})
    assert said in str(raised.value)


@pytest.mark.parametrize("name", ["n_groups", "head_dim", "state_size"])
def test_what_transformers_would_take_from_a_larger_model_must_be_there(tmp_path: Path, name: str):
    attributes = {key: value for key, value in OLD_FOLDER.items() if key != name}
    with pytest.raises(InputError, match=f"{name} is missing"):
        read(tmp_path, attributes)


def test_there_is_no_classification_head(tmp_path: Path):
    for attributes in (STATE_SPACES, OLD_FOLDER):
        with pytest.raises(
            InputError, match="no head 'classification' for mamba2; there is linear"
        ):
            read(tmp_path, attributes, head="classification")


@pytest.mark.parametrize("limit", [(0.0, math.inf), (0.0, 0.5), (0.01, 0.1)])
def test_a_written_config_reads_back_the_same_here_and_in_transformers(tmp_path: Path, limit):
    backbone = Mamba2Config(num_groups=2, head_size=32, time_step_limit=limit, conv_width=3)
    config = RerankerConfig("mamba2", backbone)
    written = write_source_config(config, TextConfig("pair", 48))
    json.loads(written, parse_constant=pytest.fail)  # Infinity and NaN are not JSON
    (tmp_path / "config.json").write_text(written)
    assert read_source_config(tmp_path).config == config
    theirs = transformers.Mamba2Config.from_pretrained(tmp_path)
    assert tuple(theirs.time_step_limit) == limit
    assert (theirs.n_groups, theirs.num_heads, theirs.conv_kernel) == (2, 48, 3)
    theirs.save_pretrained(tmp_path)
    assert read_source_config(tmp_path).config.backbone == backbone


def test_a_state_spaces_folder_computes_what_transformers_computes(
    tmp_path: Path, medquad_mini: Path, neox_tokenizer_folder: Path
):
    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "num_heads": 6, "head_dim": 8, "n_groups": 2, "state_size": 4}
    model = transformers.Mamba2ForCausalLM(
        transformers.Mamba2Config(vocab_size=50288, num_hidden_layers=2, **sizes)
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape)
    hugging_face, state_spaces = tmp_path / "hugging-face", tmp_path / "state-spaces"
    model.save_pretrained(hugging_face)
    state_spaces.mkdir()
    tensors = load_file(hugging_face / "model.safetensors")
    renamed = {name.replace(".embeddings.", ".embedding."): t for name, t in tensors.items()}
    assert renamed.keys() != tensors.keys()
    save_file(renamed, state_spaces / "model.safetensors")
    mixer = {"layer": "Mamba2", "headdim": 8, "ngroups": 2, "d_state": 4}
    config = STATE_SPACES | {"d_model": 24, "n_layer": 2, "ssm_cfg": mixer}
    (state_spaces / "config.json").write_text(json.dumps(config))

    text = TextConfig("pair", 32)
    loaded = load(state_spaces, tokenizer=neox_tokenizer_folder, text=text)
    for path, value in load(hugging_face, tokenizer=neox_tokenizer_folder).parameters.items():
        np.testing.assert_array_equal(loaded.parameters[path], value, err_msg=path)
    certificate = certify(state_spaces, loaded, read_pairs(medquad_mini, limit=4))
    assert certificate.has_passed
    assert certificate.worst < 1e-5, certificate.table()
    assert [row.where for row in certificate.layers] == ["layer 1", "layer 2", "final norm"]
