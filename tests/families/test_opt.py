from tests.families.comparison import SMALL_VOCABULARY, Checkpoint
from tests.families.suite import FamilySuite

SMALL = {
    "vocab_size": SMALL_VOCABULARY,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "ffn_dim": 40,
    "max_position_embeddings": 32,
    "num_labels": 1,
}
# As in 350m: narrow token vectors, normalisation after each residual sum and none at the end.
NARROW = {"word_embed_proj_dim": 16, "do_layer_norm_before": False}
SMALLEST = {"num_labels": 1}
MEDIUM = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "ffn_dim": 4096,
    "word_embed_proj_dim": 512,
    "do_layer_norm_before": False,
    "num_labels": 1,
}
LARGE = {
    "hidden_size": 2048,
    "num_hidden_layers": 24,
    "num_attention_heads": 32,
    "ffn_dim": 8192,
}
# Key biases shift all scores of a query alike: their gradient is zero but for rounding.
KEY_BIAS = (r"self_attn\.k_proj\.bias",)


class TestOpt(FamilySuite):
    family = "opt"
    checkpoints = {  # noqa: RUF012
        "classifier": Checkpoint("OPTForSequenceClassification", SMALL, "classification", KEY_BIAS),
        "narrow classifier": Checkpoint(
            "OPTForSequenceClassification", SMALL | NARROW, "classification", KEY_BIAS
        ),
        "narrow language model": Checkpoint("OPTForCausalLM", SMALL | NARROW, "linear", KEY_BIAS),
        "bare": Checkpoint("OPTModel", SMALL | {"enable_bias": False}),
    }
    presets = {  # noqa: RUF012
        "opt-125m": ("OPTModel", SMALLEST),
        "opt-350m": ("OPTModel", MEDIUM),
        "opt-1.3b": ("OPTModel", LARGE),
    }
    full_size = {  # noqa: RUF012
        "opt-125m": Checkpoint(
            "OPTForSequenceClassification", SMALLEST, "classification", KEY_BIAS
        ),
        "opt-350m": Checkpoint("OPTForSequenceClassification", MEDIUM, "classification", KEY_BIAS),
        "opt-1.3b": Checkpoint("OPTModel", LARGE, "linear", KEY_BIAS),
    }
    slow = ("opt-350m", "opt-1.3b")
    forward_only = ("opt-1.3b",)
    tokenizer = "opt"
