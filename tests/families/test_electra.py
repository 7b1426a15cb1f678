from tests.families.comparison import Checkpoint
from tests.families.suite import FamilySuite
from tests.families.test_bert import KEY_BIAS, LARGE, SMALL

BASE = {
    "embedding_size": 768,
    "hidden_size": 768,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
}


class TestElectra(FamilySuite):
    family = "electra"
    checkpoints = {  # noqa: RUF012
        "classifier": Checkpoint(
            "ElectraForSequenceClassification", SMALL, "classification", KEY_BIAS
        ),
        "discriminator": Checkpoint(
            "ElectraForPreTraining", SMALL | {"embedding_size": 12}, "linear", KEY_BIAS
        ),
        "generator": Checkpoint(
            "ElectraForMaskedLM", SMALL | {"embedding_size": 24}, "linear", KEY_BIAS
        ),
    }
    presets = {  # noqa: RUF012
        "electra-small": ("ElectraModel", {}),
        "electra-base": ("ElectraModel", BASE),
        "electra-large": ("ElectraModel", LARGE | {"embedding_size": 1024}),
    }
    full_size = {  # noqa: RUF012
        "electra-small": Checkpoint("ElectraModel", {}, "linear", KEY_BIAS),
        "electra-base": Checkpoint(
            "ElectraForSequenceClassification", BASE | {"num_labels": 1}, "classification", KEY_BIAS
        ),
        "electra-large": Checkpoint(
            "ElectraModel", LARGE | {"embedding_size": 1024}, "linear", KEY_BIAS
        ),
    }
    slow = ("electra-small", "electra-large")
    tokenizer = "bert-base-uncased"
