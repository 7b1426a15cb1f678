"""The parts that a batch is cut into are found by compiling, and kept when a run goes on."""

from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxrank.errors import InputError
from jaxrank.training.config import DataConfig, ModelConfig, Recipe, TextOptions, TrainingConfig
from jaxrank.training.losses import LossConfig
from jaxrank.training.memory import Memory, StepMemory
from jaxrank.training_run import batch_size
from jaxrank.training_run.batch_size import fit_batch, longest_batch, use_earlier_batch
from jaxrank.training_run.start import load_start

MIB = 2**20


@pytest.fixture
def recipe(bert_tokenizer_folder: Path, tmp_path: Path) -> Recipe:
    return Recipe(
        model=ModelConfig(
            family="bert",
            preset="bert-tiny",
            overrides={"num_layers": 1},
            tokenizer=str(bert_tokenizer_folder),
        ),
        text=TextOptions(max_length=128),
        data=DataConfig(groups=tmp_path / "groups.jsonl", negatives=7, groups_per_batch=6),
        training=TrainingConfig(output=tmp_path / "run", steps=10, find_batch_size=True),
    )


def test_the_fewest_parts_that_fit_are_chosen_and_told(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
):
    """Of a step that takes 1 MiB a group and part, beside 40 of 50 MiB."""
    tried = []

    def measure(step: object, state: object, batch: dict[str, jax.Array]) -> StepMemory:
        tried.append(batch["input_ids"].shape)
        return StepMemory(40 * MIB, 0, 0, batch["candidate_mask"].shape[-2] * MIB)

    monkeypatch.setattr(batch_size, "measure_step", measure)
    monkeypatch.setattr(batch_size, "read_memory", lambda: Memory(60 * MIB, 12 * MIB, is_host=True))
    fitted, note = fit_batch(recipe, load_start(recipe), None)
    assert fitted == replace(recipe, training=replace(recipe.training, accumulation=2))
    assert tried == [(6, 8, 128), (2, 3, 8, 128)]
    assert "the 6 groups of a step in 2 parts" in note
    assert "(training.accumulation 2): 0.04 GiB of 0.05 GiB" in note


def test_the_real_step_is_measured_without_a_state(recipe: Recipe, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(batch_size, "read_memory", lambda: Memory(2**40, 0, is_host=True))
    fitted, note = fit_batch(recipe, load_start(recipe), None)
    assert fitted.training.accumulation == 1
    assert "all at once" in note


def test_a_device_that_does_not_say_is_refused(recipe: Recipe, monkeypatch: pytest.MonkeyPatch):
    start = load_start(recipe)
    monkeypatch.setattr(batch_size, "read_memory", lambda: None)
    with pytest.raises(InputError, match="does not say what memory it has"):
        fit_batch(recipe, start, None)


def test_a_run_that_goes_on_keeps_its_parts(recipe: Recipe):
    assert use_earlier_batch(recipe, {"training.accumulation": 3}).training.accumulation == 3
    assert use_earlier_batch(recipe, {}).training.accumulation == 1


def test_the_longest_batch_has_all_arrays_of_a_step(recipe: Recipe):
    batch = longest_batch(recipe, max_length=128)
    assert {name: array.shape for name, array in batch.items()} == {
        "candidate_mask": (6, 8),
        "mask": (6, 8, 128),
        "input_ids": (6, 8, 128),
        "token_type_ids": (6, 8, 128),
    }
    packed = replace(
        recipe,
        data=replace(recipe.data, packing=True),
        loss=LossConfig(name="margin_mse"),
        training=replace(recipe.training, accumulation=3),
    )
    batch = longest_batch(packed, max_length=128)
    devices = jax.local_device_count()
    rows = -(-16 // devices) * devices
    assert batch["input_ids"].shape == batch["positions"].shape == (3, rows, 128)
    assert batch["places"].shape == batch["targets"].shape == (3, 2, 8)
    assert batch["first"].shape[:2] == (3, rows)
    assert batch["candidate_mask"].dtype == np.bool_
