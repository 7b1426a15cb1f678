"""What published folders of RoBERTa's, ELECTRA's and ModernBERT's kind hold, old and new."""

import json
from dataclasses import replace

import numpy as np
import pytest
import transformers

from ckpt_convert.architectures import ARCHITECTURES
from ckpt_convert.rules import export_weights, import_weights
from ckpt_convert.source_config import read_source_config, write_source_config
from jaxrank.errors import InputError
from jaxrank.models.families import get_family
from jaxrank.models.module import RerankerConfig, parameter_shapes
from jaxrank.text.templates import TextConfig

ONE_LABEL = {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
ROBERTA = {
    "architectures": ["RobertaForMaskedLM"],
    "attention_probs_dropout_prob": 0.1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 514,
    "model_type": "roberta",
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "pad_token_id": 1,
    "type_vocab_size": 1,
    "vocab_size": 50265,
}
BGE = ROBERTA | {
    "_name_or_path": "a/b",
    "architectures": ["XLMRobertaForSequenceClassification"],
    "classifier_dropout": None,
    **ONE_LABEL,
    "model_type": "xlm-roberta",
    "output_past": True,
    "position_embedding_type": "absolute",
    "torch_dtype": "float32",
    "transformers_version": "4.34.0",
    "use_cache": True,
    "vocab_size": 250002,
}
ELECTRA = {
    "architectures": ["ElectraForPreTraining"],
    "attention_probs_dropout_prob": 0.1,
    "embedding_size": 768,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512,
    "model_type": "electra",
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "type_vocab_size": 2,
    "vocab_size": 30522,
}
ELECTRA_SMALL = ELECTRA | {
    "embedding_size": 128,
    "hidden_size": 256,
    "intermediate_size": 1024,
    "num_attention_heads": 4,
    "pad_token_id": 0,
    "position_embedding_type": "absolute",
    "summary_activation": "gelu",
    "summary_last_dropout": 0.1,
    "summary_type": "first",
    "summary_use_proj": True,
}
MODERNBERT = {
    "architectures": ["ModernBertForMaskedLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 50281,
    "classifier_activation": "gelu",
    "classifier_bias": False,
    "classifier_dropout": 0.0,
    "classifier_pooling": "mean",
    "cls_token_id": 50281,
    "decoder_bias": True,
    "deterministic_flash_attn": False,
    "embedding_dropout": 0.0,
    "eos_token_id": 50282,
    "global_attn_every_n_layers": 3,
    "global_rope_theta": 160000.0,
    "gradient_checkpointing": False,
    "hidden_activation": "gelu",
    "hidden_size": 768,
    "initializer_cutoff_factor": 2.0,
    "initializer_range": 0.02,
    "intermediate_size": 1152,
    "layer_norm_eps": 1e-05,
    "local_attention": 128,
    "local_rope_theta": 10000.0,
    "max_position_embeddings": 8192,
    "mlp_bias": False,
    "mlp_dropout": 0.0,
    "model_type": "modernbert",
    "norm_bias": False,
    "norm_eps": 1e-05,
    "num_attention_heads": 12,
    "num_hidden_layers": 22,
    "pad_token_id": 50283,
    "position_embedding_type": "absolute",
    "sep_token_id": 50282,
    "tie_word_embeddings": True,
    "torch_dtype": "float32",
    "transformers_version": "4.47.0.dev0",
    "vocab_size": 50368,
}
GTE = MODERNBERT | {
    "architectures": ["ModernBertForSequenceClassification"],
    **ONE_LABEL,
    "reference_compile": False,
    "repad_logits_with_grad": False,
    "sparse_pred_ignore_index": -100,
    "sparse_prediction": False,
    "torch_dtype": "float16",
}


def read(folder, attributes, head=None):
    (folder / "config.json").write_text(json.dumps(attributes))
    return read_source_config(folder, head=head)


@pytest.mark.parametrize(
    ("attributes", "preset", "has_head"),
    [
        (ROBERTA, "roberta-base", False),
        (BGE, "xlm-roberta-base", True),
        (ELECTRA, "electra-base", False),
        (ELECTRA_SMALL, "electra-small", False),
        (MODERNBERT, "modernbert-base", False),
        (GTE, "modernbert-base", True),
    ],
    ids=["roberta", "bge-reranker", "electra", "electra-small", "modernbert", "gte-reranker"],
)
def test_a_published_configuration_is_the_preset(tmp_path, attributes, preset, has_head):
    source = read(tmp_path, attributes)
    family = get_family(attributes["model_type"])
    assert source.config.backbone == family.presets[preset]
    assert source.config.head == "classification"
    assert source.has_head == has_head


@pytest.mark.parametrize("name", ["roberta", "xlm-roberta", "electra", "modernbert"])
def test_what_transformers_writes_today_is_read_as_it_means_it(tmp_path, name):
    theirs = transformers.AutoConfig.for_model(name, num_labels=1)
    theirs.architectures = [ARCHITECTURES[name].classes["classification"]]
    theirs.save_pretrained(tmp_path)
    config = read_source_config(tmp_path).config
    again = type(theirs).from_dict(json.loads(write_source_config(config, TextConfig())))
    ours, defaults = again.to_dict(), theirs.to_dict()
    for attribute in {*defaults} - {
        "architectures",
        "dtype",
        "classifier_dropout",
        "transformers_version",
    }:
        assert ours[attribute] == defaults[attribute], attribute


def test_modernberts_rotary_bases_may_stand_in_a_section(tmp_path):
    attributes = {
        name: value for name, value in MODERNBERT.items() if not name.endswith("rope_theta")
    }
    attributes["rope_parameters"] = {
        "full_attention": {"rope_theta": 80000.0, "rope_type": "default"},
        "sliding_attention": {"rope_theta": 5000.0, "rope_type": "default"},
    }
    backbone = read(tmp_path, attributes).config.backbone
    assert (backbone.global_rotary_base, backbone.local_rotary_base) == (80000.0, 5000.0)


def test_modernberts_pattern_and_bases_are_written_as_transformers_reads_them():
    preset = get_family("modernbert").presets["modernbert-tiny"]
    backbone = replace(preset, num_layers=5, global_every=2, global_rotary_base=7.0)
    written = json.loads(write_source_config(RerankerConfig("modernbert", backbone), TextConfig()))
    theirs = transformers.ModernBertConfig.from_dict(written)
    assert theirs.layer_types == backbone.layer_types
    assert theirs.layer_types.count("full_attention") == 3
    assert theirs.rope_parameters["full_attention"]["rope_theta"] == 7.0
    del written["layer_types"]
    assert transformers.ModernBertConfig.from_dict(written).layer_types == backbone.layer_types


@pytest.mark.parametrize(
    ("attributes", "change", "said"),
    [
        (ROBERTA, {"pad_token_id": None}, "pad_token_id is None; needed is a whole number from 0"),
        (ROBERTA, {"pad_token_id": 600}, "the first token takes row 601"),
        (ELECTRA, {"embedding_size": None}, "embedding_size is None; needed is a whole number"),
        (MODERNBERT, {"norm_bias": True}, "norm_bias is True; only False is supported"),
        (MODERNBERT, {"classifier_bias": True}, "classifier_bias is True"),
        (MODERNBERT, {"hidden_activation": "silu"}, "hidden_activation is 'silu'"),
        (MODERNBERT, {"classifier_pooling": "max"}, "is 'max'; needed is cls or mean"),
        (MODERNBERT, {"layer_types": ["full_attention"] * 22}, "layer_types is ["),
        (MODERNBERT, {"rope_scaling": {"factor": 2}}, "rope_scaling is {'factor': 2}; only None"),
        (
            MODERNBERT,
            {"rope_parameters": {"full_attention": {"rope_type": "yarn"}}},
            "rope_parameters.full_attention.rope_type is 'yarn'; only 'default' is supported",
        ),
        (MODERNBERT, {"hidden_size": 36}, "it must be a multiple of 2 x num_heads (12)"),
    ],
)
def test_what_would_change_the_numbers_is_refused(tmp_path, attributes, change, said):
    with pytest.raises(InputError) as raised:
        read(tmp_path, attributes | change)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_electra_without_the_width_of_its_embeddings_is_refused(tmp_path):
    attributes = dict(ELECTRA)
    del attributes["embedding_size"]
    with pytest.raises(InputError, match="embedding_size is missing"):
        read(tmp_path, attributes)


OLD_TENSORS = {
    "roberta": {
        "roberta.embeddings.position_ids": (1, 514),
        "roberta.pooler.dense.weight": (64, 64),
        "roberta.pooler.dense.bias": (64,),
        "lm_head.bias": (50265,),
        "lm_head.dense.weight": (64, 64),
        "lm_head.layer_norm.weight": (64,),
        "lm_head.decoder.weight": (50265, 64),
    },
    "electra": {
        "electra.embeddings.position_ids": (1, 512),
        "discriminator_predictions.dense.weight": (64, 64),
        "discriminator_predictions.dense_prediction.bias": (1,),
        "generator_predictions.LayerNorm.weight": (32,),
        "generator_lm_head.weight": (30522, 32),
    },
    "modernbert": {"decoder.weight": (1010, 64), "decoder.bias": (1010,)},
}


@pytest.mark.parametrize("head", ["linear", "classification"])
@pytest.mark.parametrize("name", OLD_TENSORS)
@pytest.mark.parametrize("is_bare", [False, True], ids=["prefix", "bare"])
def test_pretraining_heads_and_constants_are_passed_over(name, head, is_bare):
    config = RerankerConfig(name, get_family(name).presets[f"{name}-tiny"], head)
    wanted = {path: spec.shape for path, spec in parameter_shapes(config).items()}
    zeros = {
        path: np.zeros(shape, np.float32)
        for path, shape in wanted.items()
        if path.startswith("backbone.")
    }
    table = ARCHITECTURES[name].tables[head]
    whole = {path: np.zeros(shape, np.float32) for path, shape in wanted.items()}
    stored = export_weights(table, whole)
    body = {theirs: array for theirs, array in stored.items() if is_backbone(theirs, name)}
    shapes = {theirs: array.shape for theirs, array in body.items()} | OLD_TENSORS[name]
    if is_bare:
        prefix = "model." if name == "modernbert" else f"{name}."
        shapes = {theirs.removeprefix(prefix): shape for theirs, shape in shapes.items()}
    imported = import_weights(
        table, shapes, lambda theirs: np.zeros(shapes[theirs], np.float32), wanted=wanted, where=""
    )
    assert imported.parameters.keys() == zeros.keys()
    assert set(imported.missing) == wanted.keys() - zeros.keys()
    assert imported.ignored


def is_backbone(theirs, family):
    return theirs.startswith("model." if family == "modernbert" else f"{family}.")


def test_a_classifier_starts_from_the_language_models_head_where_transformers_does():
    config = RerankerConfig(
        "modernbert", get_family("modernbert").presets["modernbert-tiny"], "classification"
    )
    wanted = {path: spec.shape for path, spec in parameter_shapes(config).items()}
    table = ARCHITECTURES["modernbert"].tables["classification"]
    stored = export_weights(table, {path: np.zeros(shape) for path, shape in wanted.items()})
    shapes = {
        name: array.shape for name, array in stored.items() if not name.startswith("classifier.")
    }
    imported = import_weights(
        table, shapes, lambda name: np.zeros(shapes[name], np.float32), wanted=wanted, where=""
    )
    assert set(imported.missing) == {"head.score.kernel", "head.score.bias"}
