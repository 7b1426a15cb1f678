from tests.families.comparison import SMALL_VOCABULARY, Checkpoint
from tests.families.suite import FamilySuite

SMALL = {
    "vocab_size": SMALL_VOCABULARY,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 32,
    "num_labels": 1,
    "pad_token_id": 1,
}
SEQUENTIAL = {"use_parallel_residual": False, "rotary_pct": 0.5, "rotary_emb_base": 500}


def size(hidden: int, layers: int, heads: int) -> dict:
    return {
        "vocab_size": 50304,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": 4 * hidden,
        "num_labels": 1,
        "pad_token_id": 1,
    }


class TestGptNeoX(FamilySuite):
    family = "gpt_neox"
    checkpoints = {  # noqa: RUF012
        "classifier": Checkpoint("GPTNeoXForSequenceClassification", SMALL, "classification"),
        "bare": Checkpoint("GPTNeoXModel", SMALL | {"hidden_dropout": 0.1}),
        "sequential language model": Checkpoint("GPTNeoXForCausalLM", SMALL | SEQUENTIAL),
    }
    presets = {  # noqa: RUF012
        "pythia-160m": ("GPTNeoXModel", size(768, 12, 12)),
        "pythia-410m": ("GPTNeoXModel", size(1024, 24, 16)),
        "pythia-1b": ("GPTNeoXModel", size(2048, 16, 8)),
    }
    full_size = {  # noqa: RUF012
        "pythia-160m": Checkpoint(
            "GPTNeoXForSequenceClassification", size(768, 12, 12), "classification"
        ),
        "pythia-410m": Checkpoint("GPTNeoXForCausalLM", size(1024, 24, 16)),
        "pythia-1b": Checkpoint("GPTNeoXModel", size(2048, 16, 8)),
    }
    slow = ("pythia-410m", "pythia-1b")
    forward_only = ("pythia-1b",)
    tokenizer = "gpt-neox-20b"
