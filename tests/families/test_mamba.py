from tests.families.comparison import SMALL_VOCABULARY, Checkpoint
from tests.families.suite import FamilySuite

SMALL = {
    "vocab_size": SMALL_VOCABULARY,
    "hidden_size": 20,
    "state_size": 4,
    "num_hidden_layers": 3,
}
# mamba_ssm starts with 0.02. Transformers' own 0.1 makes a random stack that blows rounding up:
# there PyTorch in float32 is 6e-5 away from float64, and we are 1.3e-4 away from PyTorch.
SMALLEST = {"num_hidden_layers": 24, "initializer_range": 0.02}
MEDIUM = {"num_hidden_layers": 48, "hidden_size": 1024}


class TestMamba(FamilySuite):
    family = "mamba"
    checkpoints = {  # noqa: RUF012
        "bare": Checkpoint("MambaModel", SMALL),
        "language model": Checkpoint(
            "MambaForCausalLM", SMALL | {"use_bias": True, "use_conv_bias": False}
        ),
    }
    presets = {  # noqa: RUF012
        "mamba-130m": ("MambaModel", SMALLEST),
        "mamba-370m": ("MambaModel", MEDIUM),
        "mamba-790m": ("MambaModel", {"num_hidden_layers": 48, "hidden_size": 1536}),
        "mamba-1.4b": ("MambaModel", {"num_hidden_layers": 48, "hidden_size": 2048}),
    }
    full_size = {  # noqa: RUF012
        "mamba-130m": Checkpoint("MambaModel", SMALLEST),
        "mamba-370m": Checkpoint("MambaModel", SMALLEST | MEDIUM),
    }
    slow = ("mamba-370m",)
    tokenizer = "gpt-neox-20b"
