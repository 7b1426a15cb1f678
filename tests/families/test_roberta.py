from tests.families.comparison import Checkpoint
from tests.families.suite import FamilySuite
from tests.families.test_bert import KEY_BIAS, LARGE, SMALL

SMALL_ROBERTA = SMALL | {
    "max_position_embeddings": 18,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
}
# What the published folders say where transformers' own defaults differ.
PUBLISHED = {"max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5}


class TestRoberta(FamilySuite):
    family = "roberta"
    checkpoints = {  # noqa: RUF012
        "classifier": Checkpoint(
            "RobertaForSequenceClassification", SMALL_ROBERTA, "classification", KEY_BIAS
        ),
        "language model": Checkpoint("RobertaForMaskedLM", SMALL_ROBERTA, "linear", KEY_BIAS),
        "bare, another pad": Checkpoint(
            "RobertaModel",
            SMALL_ROBERTA | {"pad_token_id": 0, "type_vocab_size": 2},
            "linear",
            KEY_BIAS,
        ),
    }
    presets = {  # noqa: RUF012
        "roberta-base": ("RobertaModel", PUBLISHED),
        "roberta-large": ("RobertaModel", PUBLISHED | LARGE),
    }
    full_size = {  # noqa: RUF012
        "roberta-base": Checkpoint(
            "RobertaForSequenceClassification",
            PUBLISHED | {"num_labels": 1},
            "classification",
            KEY_BIAS,
        ),
        "roberta-large": Checkpoint("RobertaModel", PUBLISHED | LARGE, "linear", KEY_BIAS),
    }
    slow = ("roberta-large",)
    tokenizer = "roberta-base"
