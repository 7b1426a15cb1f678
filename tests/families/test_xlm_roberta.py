from tests.families.comparison import Checkpoint
from tests.families.suite import FamilySuite
from tests.families.test_bert import KEY_BIAS, LARGE
from tests.families.test_roberta import PUBLISHED, SMALL_ROBERTA

BASE = PUBLISHED | {"vocab_size": 250002}


class TestXlmRoberta(FamilySuite):
    family = "xlm-roberta"
    checkpoints = {  # noqa: RUF012
        "classifier": Checkpoint(
            "XLMRobertaForSequenceClassification", SMALL_ROBERTA, "classification", KEY_BIAS
        ),
        "language model": Checkpoint("XLMRobertaForMaskedLM", SMALL_ROBERTA, "linear", KEY_BIAS),
    }
    presets = {  # noqa: RUF012
        "xlm-roberta-base": ("XLMRobertaModel", BASE),
        "xlm-roberta-large": ("XLMRobertaModel", BASE | LARGE),
    }
    full_size = {  # noqa: RUF012
        "xlm-roberta-base": Checkpoint(
            "XLMRobertaForSequenceClassification",
            BASE | {"num_labels": 1},
            "classification",
            KEY_BIAS,
        ),
        "xlm-roberta-large": Checkpoint("XLMRobertaModel", BASE | LARGE, "linear", KEY_BIAS),
    }
    # Three quarters of the base size are the token table: what is new is in roberta-base.
    slow = ("xlm-roberta-base", "xlm-roberta-large")
    tokenizer = "xlm-roberta"
