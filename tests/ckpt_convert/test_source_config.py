import json
from pathlib import Path

import pytest
import transformers

from ckpt_convert.architectures import ARCHITECTURES
from ckpt_convert.source_config import read_source_config, write_source_config
from jaxrank.errors import InputError
from jaxrank.models.bert import BertConfig
from jaxrank.models.families import get_family
from jaxrank.models.mamba import MambaConfig
from jaxrank.models.module import RerankerConfig
from jaxrank.text.templates import TextConfig

BERT = {
    "model_type": "bert",
    "architectures": ["BertForSequenceClassification"],
    "id2label": {"0": "LABEL_0"},
    "vocab_size": 100,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
    "type_vocab_size": 2,
}
MAMBA = {"model_type": "mamba", "vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 2}
STATE_SPACES = {"d_model": 768, "n_layer": 24, "vocab_size": 50277, "ssm_cfg": {}}


def read(folder: Path, attributes: object, head: str | None = None):
    (folder / "config.json").write_text(json.dumps(attributes))
    return read_source_config(folder, head=head)


def test_bert_attributes_fill_our_fields(tmp_path):
    source = read(
        tmp_path, BERT | {"hidden_dropout_prob": 0.2, "layer_norm_eps": 1e-6, "use_cache": True}
    )
    assert source.config == RerankerConfig(
        "bert",
        BertConfig(
            vocab_size=100,
            hidden_size=32,
            num_layers=2,
            num_heads=4,
            intermediate_size=64,
            max_position_embeddings=40,
            hidden_dropout=0.2,
            layer_norm_epsilon=1e-6,
        ),
        "classification",
        head_dropout=0.2,
    )
    assert source.has_head
    assert source.text is None


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("hidden_act", "relu", "hidden_act is 'relu'; only 'gelu' is supported"),
        ("hidden_act", "gelu_new", "hidden_act is 'gelu_new'"),
        ("position_embedding_type", "relative_key", "position_embedding_type is 'relative_key'"),
        ("is_decoder", True, "is_decoder is True"),
        ("is_decoder", 0, "is_decoder is 0"),
        ("add_cross_attention", True, "add_cross_attention is True"),
        ("quantization_config", {"bits": 4}, "quantization_config: quantised weights"),
        ("auto_map", {"AutoModel": "x--y.Z"}, "auto_map: names code of its own"),
        ("pruned_heads", {"1": [0]}, "pruned_heads: "),
        ("id2label", {"0": "no", "1": "yes"}, "the classifier has 2 labels"),
        ("id2label", None, "the classifier has 2 labels"),
        ("_attn_implementation", "a/b", "unknown to this family: _attn_implementation"),
        ("rotary_base", 10000, "unknown to this family: rotary_base"),
        ("hidden_size", "32", "hidden_size is '32'; needed is a whole number"),
        ("hidden_size", True, "hidden_size is True; needed is a whole number"),
        ("hidden_size", 0, "hidden_size is 0; needed is a whole number"),
        ("hidden_size", 33, "hidden_size is 33; it must be a multiple of num_heads"),
        ("hidden_size", 10**12, "needed is a whole number from 1 to"),
        ("num_hidden_layers", 100_000, "needed is a whole number from 1 to 1000"),
        ("hidden_dropout_prob", 1.5, "hidden_dropout is 1.5"),
        ("layer_norm_eps", "tiny", "layer_norm_eps is 'tiny'; needed is a number"),
        ("layer_norm_eps", float("nan"), "layer_norm_epsilon is nan"),
        ("layer_norm_eps", 10**400, "needed is a number"),
        ("classifier_dropout", "much", "classifier_dropout is 'much'; needed is a number"),
        ("classifier_dropout", 10**400, "needed is a number in [0, 1)"),
        ("architectures", "BertModel", "architectures is 'BertModel'; needed is a list"),
        (
            "model_type",
            "brt",
            "(did you mean bert?)",
        ),
        ("model_type", None, "model_type is 'None'"),
        ("model_type", ["bert"], f"supported are {', '.join(ARCHITECTURES)}"),
        ("jaxrank", [], "jaxrank is []; needed is an object"),
        ("jaxrank", {"format_version": 99}, "jaxrank.format_version is 99"),
        (
            "jaxrank",
            {"format_version": 1},
            "jaxrank has missing or unknown keys: family, has_trained_head, head",
        ),
    ],
)
def test_an_attribute_that_matters_is_refused_by_name(tmp_path, name, value, said):
    with pytest.raises(InputError) as raised:
        read(tmp_path, BERT | {name: value})
    assert said in str(raised.value)
    assert str(raised.value).startswith(str(tmp_path / "config.json"))
    assert "\n" not in str(raised.value)


def test_all_unfit_attributes_are_listed_at_once(tmp_path):
    attributes = BERT | {"hidden_act": "relu", "is_decoder": True, "odd": 1, "even": 2}
    del attributes["vocab_size"]
    with pytest.raises(InputError) as raised:
        read(tmp_path, attributes)
    for part in ("vocab_size is missing", "hidden_act", "is_decoder", "even, odd"):
        assert part in str(raised.value)


def test_labels_do_not_matter_to_a_new_head(tmp_path):
    source = read(tmp_path, BERT | {"id2label": {"0": "a", "1": "b", "2": "c"}}, head="linear")
    assert source.config.head == "linear"
    assert not source.has_head


def test_a_bare_bert_gets_the_head_that_pytorch_reads_back(tmp_path):
    source = read(tmp_path, BERT | {"architectures": ["BertModel"], "id2label": None})
    assert source.config.head == "classification"
    assert not source.has_head


def test_the_activation_that_sentence_transformers_adds_is_noted(tmp_path):
    name = "torch.nn.modules.activation.Sigmoid"
    source = read(tmp_path, BERT | {"sbert_ce_default_activation_function": name})
    assert "puts Sigmoid on this model's scores" in source.notes[0]
    name = "torch.nn.modules.linear.Identity"
    assert not read(tmp_path, BERT | {"sentence_transformers": {"activation_fn": name}}).notes


def test_hugging_face_mamba_fills_our_fields(tmp_path):
    source = read(
        tmp_path,
        MAMBA
        | {"state_size": 8, "conv_kernel": 3, "expand": 3, "time_step_rank": "auto"}
        | {"intermediate_size": 96, "d_model": 2560, "ssm_cfg": {}, "fused_add_norm": True},
    )
    expected = MambaConfig(
        vocab_size=96, hidden_size=32, num_layers=2, state_size=8, conv_width=3, expand=3
    )
    assert source.config == RerankerConfig("mamba", expected, "linear")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("hidden_act", "gelu", "hidden_act is 'gelu'; only 'silu'"),
        ("intermediate_size", 65, "intermediate_size is 65; the other sizes make it 64"),
        ("time_step_rank", "some", "time_step_rank is 'some'"),
        ("use_bias", 1, "use_bias is 1; needed is true or false"),
        ("model_type", "mamba3", "(did you mean mamba?)"),
    ],
)
def test_a_mamba_variant_is_refused_by_name(tmp_path, name, value, said):
    with pytest.raises(InputError) as raised:
        read(tmp_path, MAMBA | {name: value})
    assert said in str(raised.value)


def test_mamba_has_no_classification_head(tmp_path):
    with pytest.raises(InputError, match="no head 'classification' for mamba; there is linear"):
        read(tmp_path, MAMBA, head="classification")


def test_state_spaces_pads_the_vocabulary(tmp_path):
    source = read(tmp_path, STATE_SPACES | {"pad_vocab_size_multiple": 16})
    assert source.config.backbone.vocab_size == 50288
    assert read(tmp_path, STATE_SPACES).config.backbone == MambaConfig()
    assert source.layout == "state-spaces"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("ssm_cfg", {"layer": "Mamba3"}, "ssm_cfg.layer is 'Mamba3'; known are Mamba1, Mamba2"),
        ("norm_epsilon", 1e-6, "norm_epsilon is 1e-06; only 1e-05"),
        ("ssm_cfg", {"headdim": 64}, "unknown to this family: ssm_cfg.headdim"),
        ("ssm_cfg", [1], "ssm_cfg is [1]; needed is an object"),
        ("rms_norm", False, "rms_norm is False; only True"),
        ("attn_layer_idx", [3], "attn_layer_idx is [3]; only []"),
        ("d_intermediate", 1024, "d_intermediate is 1024; only 0"),
        ("pad_vocab_size_multiple", 0, "pad_vocab_size_multiple is 0"),
        ("pad_vocab_size_multiple", "8", "pad_vocab_size_multiple is '8'"),
    ],
)
def test_a_state_spaces_variant_is_refused_by_name(tmp_path, name, value, said):
    with pytest.raises(InputError) as raised:
        read(tmp_path, STATE_SPACES | {name: value})
    assert said in str(raised.value)


# Beside BERT's own: a bare model, a classifier, and what each says of the dropout in its head.
@pytest.mark.parametrize(
    ("architecture", "said", "head", "expected"),
    [
        ("BertModel", {}, "classification", 0.1),
        ("BertModel", {"hidden_dropout_prob": 0.2}, "classification", 0.2),
        ("BertModel", {"hidden_dropout_prob": 0.2}, "linear", 0.2),
        ("BertModel", {"hidden_dropout_prob": 0.2, "classifier_dropout": 0.3}, "linear", 0.3),
        ("BartModel", {}, "classification", 0.0),
        ("BartModel", {}, "linear", 0.1),
        ("BartModel", {"classifier_dropout": 0.3}, "classification", 0.3),
        ("T5Model", {}, "classification", 0.0),
        ("T5Model", {}, "linear", 0.1),
        ("ModernBertModel", {}, "classification", 0.0),
        ("ModernBertModel", {}, "linear", 0.1),
        ("GPTNeoXModel", {"classifier_dropout": 0.1}, "classification", 0.0),
        ("GPTNeoXModel", {}, "linear", 0.1),
        ("OPTModel", {}, "classification", 0.0),
        ("LlamaModel", {}, "classification", 0.0),
        ("MambaModel", {}, "linear", 0.1),
    ],
)
def test_the_heads_dropout_is_transformers_own_where_none_is_named(
    tmp_path, architecture, said, head, expected
):
    attributes = getattr(transformers, architecture).config_class().to_dict()
    attributes.pop("classifier_dropout", None)
    source = read(tmp_path, attributes | {"architectures": [architecture]} | said, head)
    assert source.config.head_dropout == expected


def test_a_class_without_dropout_in_its_head_is_told_of_none(tmp_path):
    for name, is_told in [("gpt_neox", False), ("opt", False), ("llama", False), ("t5", True)]:
        backbone = get_family(name).presets[f"{name.replace('_', '-')}-tiny"]
        config = RerankerConfig(name, backbone, "classification", 0.25)
        written = write_source_config(config, TextConfig())
        assert ("classifier_dropout" in json.loads(written)) == is_told
        (tmp_path / "config.json").write_text(written)
        assert read_source_config(tmp_path).config == config


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b'{"a": 1', b"[" * 100_000])
def test_a_broken_config_is_one_line(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(InputError, match=r"config\.json"):
        read_source_config(tmp_path)


@pytest.mark.parametrize(
    "config",
    [
        RerankerConfig("bert", BertConfig(hidden_dropout=0.3), "classification", 0.25),
        RerankerConfig("bert", BertConfig(num_layers=3), "linear", 0.0),
        RerankerConfig("mamba", MambaConfig(time_step_rank=5, expand=3, use_bias=True), "linear"),
        RerankerConfig("mamba", MambaConfig(time_step_rank=None, residual_in_float32=False)),
    ],
)
def test_a_written_config_reads_back_the_same(tmp_path, config):
    text = TextConfig(template="paper", max_length=300, query_length=40)
    (tmp_path / "config.json").write_text(write_source_config(config, text))
    source = read_source_config(tmp_path)
    assert source.config == config
    assert source.text == text
    assert source.has_head


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_length", "many"), ("max_length", True), ("template", 3), ("query_length", 1.5)],
)
def test_a_tampered_text_section_is_refused(tmp_path, name, value):
    config = RerankerConfig("bert", BertConfig())
    attributes = json.loads(write_source_config(config, TextConfig()))
    attributes["jaxrank"][name] = value
    with pytest.raises(InputError, match=r"jaxrank\.template, max_length, query_length are"):
        read(tmp_path, attributes)
