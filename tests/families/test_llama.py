from tests.families.comparison import SMALL_VOCABULARY, Checkpoint
from tests.families.suite import FamilySuite

SMALL = {
    "vocab_size": SMALL_VOCABULARY,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "intermediate_size": 40,
    "max_position_embeddings": 32,
    "num_labels": 1,
    "pad_token_id": 1,
}
# Of the two turns of a head that is 4 wide one stays, one is slowed down, with base 100 by a part.
STRETCHED = {
    "rope_theta": 100.0,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 4.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 128,
    },
    "max_position_embeddings": 512,
}
LLAMA_3_2_1B = {
    "vocab_size": 128256,
    "hidden_size": 2048,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "intermediate_size": 8192,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
    "tie_word_embeddings": True,
}


class TestLlama(FamilySuite):
    family = "llama"
    checkpoints = {  # noqa: RUF012
        "classifier": Checkpoint(
            "LlamaForSequenceClassification", SMALL | STRETCHED, "classification"
        ),
        "bare": Checkpoint("LlamaModel", SMALL | {"attention_dropout": 0.1}),
        "tied language model": Checkpoint(
            "LlamaForCausalLM", SMALL | STRETCHED | {"tie_word_embeddings": True}
        ),
        "untied language model, wide heads": Checkpoint(
            "LlamaForCausalLM", SMALL | {"head_dim": 8, "num_key_value_heads": None}
        ),
    }
    presets = {  # noqa: RUF012
        "llama-3.2-1b": ("LlamaModel", LLAMA_3_2_1B),
    }
    full_size = {  # noqa: RUF012
        "llama-3.2-1b": Checkpoint("LlamaForCausalLM", LLAMA_3_2_1B),
    }
    slow = ("llama-3.2-1b",)
    forward_only = ("llama-3.2-1b",)
    tokenizer = "llama"
