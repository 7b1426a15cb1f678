import pytest
from transformers import initialization

from tests.families.comparison import SMALL_VOCABULARY, Checkpoint
from tests.families.suite import FamilySuite

# Four layers: all of the text, two windows of two tokens to each side, all of the text.
SMALL = {
    "vocab_size": SMALL_VOCABULARY,
    "hidden_size": 24,
    "num_hidden_layers": 4,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "max_position_embeddings": 16,
    "local_attention": 4,
    "pad_token_id": 1,
    "num_labels": 1,
}
DROPOUT = {"embedding_dropout": 0.1, "attention_dropout": 0.1, "mlp_dropout": 0.1}
LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "intermediate_size": 2624,
}


class TestModernBert(FamilySuite):
    family = "modernbert"
    checkpoints = {  # noqa: RUF012
        "classifier": Checkpoint("ModernBertForSequenceClassification", SMALL, "classification"),
        "classifier of the mean": Checkpoint(
            "ModernBertForSequenceClassification",
            SMALL | DROPOUT | {"classifier_pooling": "mean", "local_attention": 7},
            "classification",
        ),
        "language model": Checkpoint("ModernBertForMaskedLM", SMALL | DROPOUT),
    }
    presets = {  # noqa: RUF012
        "modernbert-base": ("ModernBertModel", {}),
        "modernbert-large": ("ModernBertModel", LARGE),
    }
    full_size = {  # noqa: RUF012
        "modernbert-base": Checkpoint(
            "ModernBertForSequenceClassification",
            {"num_labels": 1, "classifier_pooling": "mean"},
            "classification",
        ),
        "modernbert-large": Checkpoint("ModernBertModel", LARGE),
    }
    slow = ("modernbert-large",)
    tokenizer = "modernbert"

    @pytest.fixture(autouse=True)
    def _draw_quickly(self, monkeypatch: pytest.MonkeyPatch):
        """PyTorch's truncated normal takes half of the time that the base size's test takes."""

        def draw(tensor, mean, std, a, b):
            return initialization.normal_(tensor, mean, std)

        monkeypatch.setattr(initialization, "trunc_normal_", draw)
