"""A recipe's estimate: from shapes, near what the compiler says, at the head of the configs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from jaxrank.errors import InputError
from jaxrank.training.memory import measure_step
from jaxrank.training.optimizer import make_optimizer
from jaxrank.training.step import make_train_step
from jaxrank.training_run.batch_size import longest_batch
from scripts.reproduction import config_headers
from scripts.reproduction.config_headers import estimate_lines, find_files, read_lines
from scripts.reproduction.cost import CostOptions, estimate, main, read_options
from scripts.reproduction.step_shapes import find_architecture, measure_shapes, step_state

ROOT = Path(__file__).parents[2]
QUICK = ("rankmamba/paper.yaml", "ssm-rerankers/bert-base.yaml")
SMALL = [
    "--data.groups=g",
    "--model.tokenizer=t",
    "--model.dtype=float32",
    "--training.epochs=1",
    "--text.template=paper",
    "--optimizer.warmup_steps=0",
]


def options(family: str = "bert", preset: str = "bert-tiny", *more: str) -> CostOptions:
    return read_options([f"--model.family={family}", f"--model.preset={preset}", *SMALL, *more])


def header_file(path: Path) -> Any:
    name = "/".join(path.parts[-2:])
    return pytest.param(path, id=name, marks=() if name in QUICK else (pytest.mark.slow,))


@pytest.mark.parametrize("path", [header_file(path) for path in find_files()])
def test_the_head_of_a_config_gives_its_estimate(path: Path):
    # python -m scripts.reproduction.config_headers --write
    assert read_lines(path) == list(estimate_lines(path))


def test_every_config_of_the_papers_has_lines_of_estimates():
    assert all(len(read_lines(path)) >= 2 for path in find_files())


def test_lines_are_written_in_the_place_of_the_old_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    source = ROOT / "configs" / "rankmamba" / "pythia-160m.yaml"
    copy = tmp_path / "pythia-160m.yaml"
    lines = read_lines(source)
    monkeypatch.setattr(config_headers, "estimate_lines", lambda path: iter(lines))
    for old in (lines[1] + "\n", "\n".join(lines) + "\n"):  # a line is missing, or all are
        copy.write_text(source.read_text().replace(old, ""))
        config_headers.write_lines(copy)
        assert copy.read_text() == source.read_text()


def compiled_bytes(options: CostOptions) -> int:
    config = find_architecture(options)
    graphdef, state = step_state(options, config)
    optimizer, schedule = make_optimizer(options.optimizer, total_steps=10)
    step = make_train_step(
        graphdef, optimizer, schedule, accumulation=options.training.accumulation
    )
    batch = longest_batch(options, max_length=options.text.max_length or 512)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.asarray(x).dtype), batch)
    memory = measure_step(step, state, shapes)
    assert memory is not None
    return memory.total // jax.local_device_count()


@pytest.mark.parametrize(
    ("family", "preset", "length", "allowed"),
    [
        pytest.param("bert", "bert-tiny", 64, 0.05),
        pytest.param("bert", "bert-base", 512, 0.07, marks=pytest.mark.slow),
        pytest.param("opt", "opt-125m", 512, 0.07, marks=pytest.mark.slow),
        pytest.param("mamba", "mamba-130m", 512, 0.07, marks=pytest.mark.slow),
    ],
)
def test_memory_is_near_what_the_compiler_says(
    family: str, preset: str, length: int, allowed: float
):
    # With layers computed again, what the CPU's own scan needs for one is a seventh of the whole.
    # An accelerator, which is what is estimated, does not need it (figures: docs/kernels.md).
    remat = "none" if family == "mamba" else "auto"
    recipe = options(family, preset, f"--text.max_length={length}", f"--training.remat={remat}")
    estimated = measure_shapes(recipe, find_architecture(recipe)).total
    assert estimated == pytest.approx(compiled_bytes(recipe), rel=allowed)


def test_parts_of_a_batch_keep_their_share():
    whole = options("mamba", "mamba-tiny")
    config = find_architecture(whole)
    half = replace(whole, training=replace(whole.training, accumulation=2))
    one, two = measure_shapes(whole, config), measure_shapes(half, config)
    assert two.kept == pytest.approx(one.kept / 2, rel=0.01)
    assert two.layer == pytest.approx(one.layer / 2, rel=0.01)
    assert (two.state, two.gradients) == (one.state, 2 * one.gradients)


def test_what_is_computed_again_is_not_kept():
    recipe = options("mamba", "mamba-tiny")
    config = find_architecture(recipe)
    kept = {
        remat: measure_shapes(
            replace(recipe, training=replace(recipe.training, remat=remat)), config
        ).kept
        for remat in ("auto", "none", "projections", "full")
    }
    assert 5 * kept["full"] < kept["none"]
    # An accelerator's choice, whatever machine this is.
    assert kept["auto"] == kept["projections"] < kept["none"]


def test_adapters_leave_most_of_the_state_out():
    path = ROOT / "configs/rankmamba/pythia-1b.yaml"
    adapted = read_options([f"--config={ROOT}/configs/rankmamba/paper.yaml", f"--config={path}"])
    full = replace(adapted, lora=replace(adapted.lora, rank=None))
    config = find_architecture(adapted)
    _, with_adapters = step_state(adapted, config)
    _, without = step_state(full, config)
    assert not without.frozen
    assert sum(x.size for x in jax.tree.leaves(with_adapters.parameters)) < 50e6


def test_cost_grows_with_the_groups():
    recipe = options("bert", "bert-tiny", "--text.max_length=64")
    one, two = (estimate(recipe, groups=n, tokens_per_pair=100) for n in (8_000, 16_000))
    assert (one.steps, one.tokens) == (1_000, 8_000 * 8 * 100)
    assert (two.tokens, two.memory_gib) == (2 * one.tokens, one.memory_gib)
    assert two.hours == pytest.approx(2 * one.hours)
    assert two.flops == pytest.approx(2 * one.flops)


def test_flops_are_six_for_each_token_and_parameter_and_those_of_attention():
    recipe = options(preset="bert-base")
    cost = estimate(recipe, groups=8, tokens_per_pair=512)
    layers = 12 * (4 * 768 * 768 + 2 * 768 * 3072)
    expected = (6 * layers + 12 * 12 * 768 * 512) * cost.tokens
    assert cost.flops == pytest.approx(expected, rel=0.01)


def test_hours_take_flops_at_the_assumed_share_of_the_peak():
    recipe = options("bert", "bert-tiny", "--text.max_length=64")
    bfloat16 = replace(recipe, model=replace(recipe.model, dtype="bfloat16"))
    cost = estimate(bfloat16, groups=1000)
    assert cost.hours == pytest.approx(cost.flops / (0.30 * 312e12) / 3600)
    assert estimate(recipe, groups=1000).hours == pytest.approx(2 * cost.hours)


def test_passages_are_not_taken_to_be_full():
    layers = [
        f"--config={ROOT}/configs/ssm-rerankers/passage.yaml",
        f"--config={ROOT}/configs/models/bert-base.yaml",
    ]
    recipe = read_options([*layers, "--text.template=ssm-rerankers"])
    assert estimate(recipe).tokens == 524_000 * 16 * 96


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--model.init_from=folder/mine"],
            "model.init_from: the size of folder/mine is not known",
        ),
        (["--model.family=bert", "--model.preset=bert-tiny"], "--groups: how many"),
        (
            ["--model.init_from=google-bert/bert-base-uncased", "--text.max_length=1536"],
            "text.max_length: got 1536; the model has 512 positions",
        ),
    ],
)
def test_what_cannot_be_estimated_is_said(arguments: list[str], message: str):
    others = ["--model.tokenizer=t", "--data.groups=g", "--training.epochs=1"]
    with pytest.raises(InputError, match=message):
        main([*arguments, *others])


def test_the_command_prints_one_line(capsys: pytest.CaptureFixture[str]):
    main(["--model.family=bert", "--model.preset=bert-tiny", *SMALL, "--groups=8000"])
    shown = capsys.readouterr().out
    assert shown.startswith("One A100 of 80 GB, estimated, not measured: 1,000 steps, 0.03B tokens")
    assert shown.count("\n") == 1
