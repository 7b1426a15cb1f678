"""Which layers of configs/ make up a recipe for a model."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs"

AUTHORS_CODE_LAYERS = {
    "authors-code-opt-pythia": ("opt-125m", "opt-350m", "pythia-160m", "pythia-410m", "pythia-1b"),
    "authors-code-mamba": ("mamba-130m", "mamba-370m", "mamba-790m"),
    "authors-code-lora": ("t5-large", "pythia-1b", "mamba-790m"),
}
"""Layers over the model's, for whom RankMamba's code does what no single recipe can say."""

RECIPES = {
    "rankmamba": ("paper", "authors-code"),
    "ssm-rerankers": ("passage", "document", "longp"),
}
"""Folder in configs/ of a paper -> its recipes; all other files there are layers over them."""


def recipe_layers(paper: str, recipe: str, model: str) -> list[Path]:
    """The files of `--config`, in order, of a model under a recipe of a paper.

    >>> [path.name for path in recipe_layers("rankmamba", "authors-code", "pythia-1b")[1:]]
    ['pythia-1b.yaml', 'authors-code-opt-pythia.yaml', 'authors-code-lora.yaml']
    """
    names = [recipe, model]
    if recipe == "authors-code":
        names += [name for name, models in AUTHORS_CODE_LAYERS.items() if model in models]
    return [CONFIGS / paper / f"{name}.yaml" for name in names]


def find_models(paper: str) -> list[str]:
    """Models that have a layer in the paper's folder."""
    others = {*RECIPES[paper], *AUTHORS_CODE_LAYERS}
    return sorted(path.stem for path in (CONFIGS / paper).glob("*.yaml") if path.stem not in others)
