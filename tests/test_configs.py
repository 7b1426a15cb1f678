"""Every file of configs/ is a recipe or a layer of one, and says what the papers say."""

import re
import shlex
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from jaxrank.errors import InputError
from jaxrank.options import as_plain, parse
from jaxrank.training.config import Recipe
from jaxrank.training.recipe_checks import check_recipe
from scripts.reproduction.recipe_layers import RECIPES, find_models, recipe_layers
from scripts.reproduction.step_shapes import find_architecture

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs"


class Row(NamedTuple):
    """A row of RankMamba's Tables 1, 2 and 3."""

    checkpoint: str
    learning_rate: float
    precision: str
    lora: bool
    dev: float
    dl19: float
    dl20: float


TABLE = [
    Row("bert-base-uncased", 2e-5, "fp16", False, 0.4126, 0.6575, 0.6147),
    Row("roberta-base", 2e-5, "fp16", False, 0.4006, 0.6591, 0.6140),
    Row("facebook/opt-125m", 2e-5, "bf16", False, 0.3878, 0.6377, 0.6176),
    Row("EleutherAI/pythia-160m", 2e-5, "bf16", False, 0.3727, 0.6490, 0.6362),
    Row("state-spaces/mamba-130m", 2e-5, "bf16", False, 0.4089, 0.6652, 0.6443),
    Row("T5-base", 2e-5, "bf16", False, 0.3670, 0.6383, 0.5932),
    Row("bert-large-uncased", 1e-5, "fp16", False, 0.4006, 0.6591, 0.6140),
    Row("roberta-large", 1e-5, "fp16", False, 0.4334, 0.6676, 0.6423),
    Row("facebook/opt-350m", 1e-5, "bf16", False, 0.3569, 0.6431, 0.6046),
    Row("EleutherAI/pythia-410m", 1e-5, "bf16", False, 0.3750, 0.6497, 0.6169),
    Row("state-spaces/mamba-370m", 1e-5, "bf16", False, 0.4250, 0.6775, 0.6394),
    Row("T5-large", 1e-4, "bf16", True, 0.3881, 0.6473, 0.6146),
    Row("EleutherAI/pythia-1b", 1e-4, "bf16", True, 0.3921, 0.6588, 0.6386),
    Row("state-spaces/mamba-790m", 1e-4, "bf16", True, 0.4201, 0.6729, 0.6489),
]
ROWS = {row.checkpoint.rpartition("/")[2].lower(): row for row in TABLE}
DTYPES = {"fp16": "float16", "bf16": "bfloat16"}

SECOND_PAPER = {
    *("bert-base", "bert-large", "roberta-base", "roberta-large", "electra-base", "electra-large"),
    *("bart-base", "bart-large", "opt-125m", "opt-350m", "opt-1.3b", "llama-3.2-1b"),
    *("mamba-130m", "mamba-370m", "mamba-790m", "mamba-1.4b"),
    *("mamba2-130m", "mamba2-370m", "mamba2-780m", "mamba2-1.3b"),
}
ENDS_BEFORE_LONGP = ("bert-", "roberta-", "electra-", "bart-")
LONGP = 1536
LEFT_OPEN = {"optimizer.learning_rate": "3e-5", "training.output": "runs/x"}

OTHER_LAYERS = {
    "distillation/student.yaml": ["--training.output=o", "--data.groups=g", "--training.steps=9"],
    "distillation/teacher.yaml": [
        *("--training.output=o", "--data.groups=g", "--training.steps=9", "--model.init_from=m"),
    ],
    "medquad-minilm.yaml": ["--model.init_from=m"],
    "medquad-mamba-small.yaml": [],
    "medquad-mamba-small-in-batch.yaml": [],
    "medquad-mamba-small-continued.yaml": [],
    "quickstart/train.yaml": [],
}
"""Recipes of no paper, with the options that whoever runs them gives."""
LAYERS_BELOW = {"medquad-mamba-small-in-batch.yaml": ["medquad-mamba-small.yaml"]}


def read(layers: list[Path], *arguments: str) -> Recipe:
    return read_once(tuple(layers), arguments)


@cache
def read_once(layers: tuple[Path, ...], arguments: tuple[str, ...]) -> Recipe:
    recipe = parse(Recipe, "jaxrank.train", [*(f"--config={path}" for path in layers), *arguments])
    check_recipe(recipe)
    return recipe


def options(values: dict[str, str]) -> list[str]:
    return [f"--{key}={value}" for key, value in values.items()]


def head_of(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.startswith("#")]


@pytest.mark.parametrize("name", ROWS)
def test_a_row_of_table_3_is_a_layer(name: str):
    row = ROWS[name]
    recipe = read(recipe_layers("rankmamba", "paper", name))
    owner, _, model = row.checkpoint.lower().rpartition("/")
    source = str(recipe.model.init_from).lower()
    assert source.removesuffix("-hf").endswith(f"{owner}/{model}")
    assert recipe.optimizer.learning_rate == row.learning_rate
    assert recipe.model.dtype == DTYPES[row.precision]
    assert recipe.model.parameter_dtype == "float32"
    assert recipe.lora.rank == (32 if row.lora else None)
    assert recipe.training.output == Path("runs/rankmamba") / name


@pytest.mark.parametrize("name", ROWS)
def test_a_rows_head_gives_the_papers_figures(name: str):
    row = ROWS[name]
    (expected,) = [
        line for line in head_of(CONFIGS / f"rankmamba/{name}.yaml") if "Dev MRR@" in line
    ]
    assert expected == (
        f"# Expected: Dev MRR@100 {row.dev:.4f}, DL19 nDCG@10 {row.dl19:.4f}, "
        f"DL20 nDCG@10 {row.dl20:.4f}."
    )


def test_heads_say_where_the_papers_figures_are_in_doubt():
    assert "misprint" in " ".join(head_of(CONFIGS / "rankmamba/bert-large-uncased.yaml"))
    assert "0.4434" in " ".join(head_of(CONFIGS / "rankmamba/roberta-large.yaml"))


def test_rankmambas_recipe_is_the_printed_one():
    recipe = read(recipe_layers("rankmamba", "paper", "mamba-370m"))
    assert (recipe.text.template, recipe.text.max_length) == ("paper", 512)
    assert recipe.data.negatives == 7
    assert (recipe.loss.name, recipe.model.head) == ("info_nce", "linear")
    optimizer = recipe.optimizer
    assert (optimizer.betas, optimizer.epsilon) == ((0.9, 0.999), 1e-8)
    assert (optimizer.weight_decay, optimizer.warmup_steps) == (0.01, 1000)
    assert optimizer.warmup_fraction is None
    assert (recipe.training.epochs, recipe.training.milestones) == (1, 10)
    assert recipe.dev.measures == ("RR@100", "nDCG@10")


def test_what_rankmamba_does_not_print_is_from_its_authors_code_and_marked_so():
    paper, code = (
        read(recipe_layers("rankmamba", recipe, "mamba-370m")) for recipe in RECIPES["rankmamba"]
    )
    path = CONFIGS / "rankmamba" / "paper.yaml"
    lines = path.read_text(encoding="utf-8").splitlines()
    for section, key, value in (
        ("data", "groups_per_batch", 8),
        ("optimizer", "max_grad_norm", None),
    ):
        assert getattr(getattr(paper, section), key) == value
        assert getattr(getattr(code, section), key) == value
        [line] = [line for line in lines if line.strip().startswith(f"{key}:")]
        assert line.endswith("  # code")


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.lora])
def test_a_layer_with_lora_writes_out_all_of_it(name: str):
    lora = read(recipe_layers("rankmamba", "paper", name)).lora
    assert (lora.rank, lora.alpha, lora.dropout) == (32, 64.0, 0.1)
    lines = (CONFIGS / "rankmamba" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    assert [("code" in line) for line in lines if line.startswith(("  alpha:", "  dropout:"))] == [
        True,
        True,
    ]


@pytest.mark.parametrize("name", ROWS)
def test_the_authors_code_differs_from_the_paper_in_named_places_alone(name: str):
    paper, code = (
        flatten(as_plain(read(recipe_layers("rankmamba", recipe, name))))
        for recipe in RECIPES["rankmamba"]
    )
    expected: dict[str, Any] = {
        "text.template": "authors-code",
        "text.evaluation_template": "authors-code-evaluation",
    }
    if name.startswith(("opt-", "pythia-", "mamba-")):
        expected["text.evaluation_max_length"] = 768
    if name.startswith(("opt-", "pythia-")):
        expected["model.parameter_dtype"] = "bfloat16"
    if name.startswith("mamba-"):
        expected["model.dtype"] = "float32"
    if ROWS[name].lora:
        expected |= {"lora.rank": 64, "lora.alpha": 128.0}
    assert {key: value for key, value in code.items() if value != paper[key]} == expected


@pytest.mark.parametrize("name", sorted(SECOND_PAPER))
def test_a_model_of_the_second_paper_asks_for_its_learning_rate(name: str):
    layers = recipe_layers("ssm-rerankers", "document", name)
    with pytest.raises(InputError) as caught:
        read(layers, "--training.output=o")
    message = str(caught.value)
    assert message.startswith(f"{layers[1]}: optimizer.learning_rate is required (give --optimi")
    assert "not known here" in message
    assert "\n" not in message
    recipe = read(layers, *options(LEFT_OPEN))
    assert recipe.optimizer.learning_rate == 3e-5
    assert recipe.lora.rank is None
    assert name in str(recipe.model.init_from).lower()


@pytest.mark.parametrize(
    ("recipe", "negatives", "max_length"),
    [("passage", 15, 512), ("document", 7, 512), ("longp", 7, LONGP)],
)
def test_the_second_papers_settings(recipe: str, negatives: int, max_length: int):
    layers = recipe_layers("ssm-rerankers", recipe, "mamba2-370m")
    with pytest.raises(InputError, match=r"training\.output is required"):
        read(layers, "--optimizer.learning_rate=1e-5")
    found = read(layers, *options(LEFT_OPEN))
    assert (found.data.negatives, found.text.max_length) == (negatives, max_length)
    assert (found.text.template, found.lora.rank) == ("ssm-rerankers", None)
    assert found.dev.measures == ("RR@10", "nDCG@10")


@pytest.mark.parametrize("name", sorted(SECOND_PAPER))
def test_longp_is_refused_for_models_that_do_not_read_so_far(name: str):
    recipe = read(recipe_layers("ssm-rerankers", "document", name), *options(LEFT_OPEN))
    recipe = replace(recipe, text=replace(recipe.text, max_length=LONGP))
    head = " ".join(head_of(CONFIGS / f"ssm-rerankers/{name}.yaml"))
    if name.startswith(ENDS_BEFORE_LONGP):
        with pytest.raises(InputError, match=r"text\.max_length: got 1536; the model has .* posit"):
            find_architecture(recipe)
        assert "longp: not possible" in head
    else:
        find_architecture(recipe)
        assert "not possible" not in head


@pytest.mark.parametrize("paper", RECIPES)
def test_the_papers_models_are_read_as_those_of_configs_models(paper: str):
    for name in find_models(paper):
        ours = yaml.safe_load((CONFIGS / paper / f"{name}.yaml").read_text())["model"]
        other = CONFIGS / "models" / f"{name.removesuffix('-uncased')}.yaml"
        theirs = yaml.safe_load(other.read_text())["model"]
        keys = ("init_from", "allow_pickle", "tokenizer")
        assert [ours.get(key) for key in keys] == [theirs.get(key) for key in keys]


def test_every_file_belongs_to_a_test():
    assert set(find_models("rankmamba")) == set(ROWS)
    assert set(find_models("ssm-rerankers")) == SECOND_PAPER
    found = {str(path.relative_to(CONFIGS)) for path in CONFIGS.rglob("*.yaml")}
    rest = {name for name in found if not name.startswith(("models/", *RECIPES))}
    assert rest == {*OTHER_LAYERS, "quickstart/mine.yaml"}


@pytest.mark.parametrize("name", OTHER_LAYERS)
def test_a_recipe_of_no_paper_is_whole(name: str):
    read([CONFIGS / layer for layer in (*LAYERS_BELOW.get(name, ()), name)], *OTHER_LAYERS[name])


def test_a_layer_turns_in_batch_negatives_on_and_leaves_the_rest():
    names = "medquad-mamba-small.yaml", "medquad-mamba-small-in-batch.yaml"
    plain, in_batch = (
        flatten(as_plain(read([CONFIGS / name for name in names[:count]]))) for count in (1, 2)
    )
    assert {key: value for key, value in in_batch.items() if value != plain[key]} == {
        "loss.in_batch_negatives": True,
        "training.output": "runs/medquad-mamba-small-in-batch",
    }


@pytest.mark.parametrize(
    "path",
    # Those of configs/models are put together by tests/training/test_config.py.
    [path for path in sorted(CONFIGS.rglob("*.yaml")) if path.parent.name != "models"],
    ids=lambda path: "/".join(path.parts[-2:]),
)
def test_the_commands_at_the_head_of_a_file_are_read(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    text = "\n".join(line.removeprefix("#").strip() for line in head_of(path))
    commands = re.findall(r"^python -m jaxrank\.train (.*)$", text.replace("\\\n", " "), re.M)
    for command in commands:
        check_recipe(parse(Recipe, "jaxrank.train", shlex.split(command)))
    assert commands or path.parent.name not in RECIPES


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
