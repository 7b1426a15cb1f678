from tests.families.comparison import SMALL_VOCABULARY, Checkpoint
from tests.families.suite import FamilySuite

# Chunks of 4 make PyTorch cut the recurrence as well; its default of 256 only takes time.
SMALL = {
    "vocab_size": SMALL_VOCABULARY,
    "hidden_size": 20,
    "state_size": 4,
    "num_heads": 4,
    "head_dim": 10,
    "n_groups": 1,
    "num_hidden_layers": 3,
    "chunk_size": 4,
}


def size(hidden_size: int, num_layers: int) -> dict:
    return {
        "vocab_size": 50288,
        "hidden_size": hidden_size,
        "num_hidden_layers": num_layers,
        "num_heads": 2 * hidden_size // 64,
        "n_groups": 1,
    }


SIZES = {
    "mamba2-130m": size(768, 24),
    "mamba2-370m": size(1024, 48),
    "mamba2-780m": size(1536, 36),
    "mamba2-1.3b": size(2048, 48),
}
# mamba_ssm starts with 0.02; see test_mamba.py.
STARTS = {"initializer_range": 0.02, "chunk_size": 4}


class TestMamba2(FamilySuite):
    family = "mamba2"
    checkpoints = {  # noqa: RUF012
        "bare": Checkpoint("Mamba2Model", SMALL),
        "language model": Checkpoint(
            "Mamba2ForCausalLM",
            SMALL
            | {"n_groups": 2, "use_bias": True, "use_conv_bias": False}
            | {"time_step_limit": (0.02, 0.05), "tie_word_embeddings": True},
        ),
    }
    presets = {name: ("Mamba2Model", config) for name, config in SIZES.items()}  # noqa: RUF012
    full_size = {  # noqa: RUF012
        name: Checkpoint("Mamba2Model", config | STARTS) for name, config in SIZES.items()
    }
    slow = ("mamba2-370m", "mamba2-780m", "mamba2-1.3b")
    forward_only = ("mamba2-780m", "mamba2-1.3b")
    tokenizer = "gpt-neox-20b"
