from tests.families.comparison import SMALL_VOCABULARY, Checkpoint
from tests.families.suite import FamilySuite

SMALL = {
    "vocab_size": SMALL_VOCABULARY,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 16,
    "num_labels": 1,
}
LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}
MINILM = {"hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536}
# Key biases shift all scores of a query alike: their gradient is zero but for rounding.
KEY_BIAS = (r"self\.key\.bias",)


class TestBert(FamilySuite):
    family = "bert"
    checkpoints = {  # noqa: RUF012
        "classifier": Checkpoint(
            "BertForSequenceClassification", SMALL, "classification", KEY_BIAS
        ),
        "bare": Checkpoint("BertModel", SMALL, "linear", KEY_BIAS),
    }
    presets = {  # noqa: RUF012
        "bert-base": ("BertModel", {}),
        "bert-large": ("BertModel", LARGE),
        "minilm-l6": ("BertModel", MINILM),
    }
    full_size = {  # noqa: RUF012
        "bert-base": Checkpoint(
            "BertForSequenceClassification", {"num_labels": 1}, "classification", KEY_BIAS
        ),
        "bert-large": Checkpoint("BertModel", LARGE, "linear", KEY_BIAS),
    }
    slow = ("bert-large",)
    tokenizer = "bert-base-uncased"
