"""The run folder: what run.json tells, and when an earlier run is reused or protected."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from flax.traverse_util import flatten_dict

from jaxrank.errors import InputError
from jaxrank.files import file_digest
from jaxrank.options import as_plain
from jaxrank.training.config import DataConfig, Recipe, TrainingConfig
from jaxrank.training.run_folder import (
    DEVICE_OPTIONS,
    HARMLESS_OPTIONS,
    MILESTONES_FOLDER,
    MODEL_FOLDER,
    RUN_FILE,
    check_folder,
    check_resolved,
    describe_run,
    environment_notes,
    find_status,
    finish_run,
    resume_run,
    start_run,
    write_run,
)

CONFIG: dict[str, dict[str, Any]] = {
    "optimizer": {"learning_rate": 1e-4},
    "training": {"overwrite": False, "steps": 5},
}


@pytest.fixture
def groups(tmp_path: Path) -> Path:
    path = tmp_path / "groups.jsonl"
    path.write_text('{"query_id": "q"}\n')
    return path


def describe(groups: Path, **optimizer: Any) -> dict[str, Any]:
    config = CONFIG | ({"optimizer": optimizer} if optimizer else {})
    digests = {groups.name: file_digest(groups)}
    return describe_run(config=config, seed=3, digests=digests, command=["train"])


def finish(folder: Path, description: dict[str, Any]) -> None:
    start_run(folder, description, config_yaml=yaml.safe_dump(CONFIG))
    (folder / MODEL_FOLDER).mkdir()
    finish_run(folder, results={"loss": 0.5})


def test_run_json_tells_how_to_repeat_the_run(tmp_path: Path, groups: Path):
    start_run(tmp_path / "run", describe(groups), config_yaml=yaml.safe_dump(CONFIG))
    run = json.loads((tmp_path / "run" / RUN_FILE).read_text())
    assert run["status"] == "running"
    assert run["seed"] == 3
    assert run["command"] == ["train"]
    assert len(run["sha256"]["groups.jsonl"]) == 64
    assert run["packages"]["jax"]
    assert run["packages"]["jaxrank"]
    assert run["git"] is None or run["git"].keys() == {"commit", "is_changed"}
    assert run["device"]["kind"] == "cpu"
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text()) == CONFIG


def test_a_finished_run_is_found_again(tmp_path: Path, groups: Path):
    folder = tmp_path / "run"
    assert find_status(folder, describe(groups)) == "new"
    finish(folder, describe(groups))
    assert find_status(folder, describe(groups)) == "finished"


def test_a_run_that_starts_again_loses_what_the_earlier_one_left(tmp_path: Path, groups: Path):
    folder = tmp_path / "run"
    finish(folder, describe(groups))
    write_run(folder, describe(groups), status="running")
    (folder / "metrics.jsonl").write_text("{}\n")
    (folder / MILESTONES_FOLDER / "step-000001").mkdir(parents=True)
    (folder / "checkpoints" / "step-000001").mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    assert find_status(folder, describe(groups)) == "unfinished"
    start_run(folder, describe(groups), config_yaml="")
    assert not (folder / "metrics.jsonl").exists()
    assert not (folder / MILESTONES_FOLDER).exists()
    assert not (folder / "checkpoints").exists()
    assert (folder / MODEL_FOLDER).exists()
    assert (folder / "notes.txt").exists()


def test_a_finished_run_with_other_options_is_protected(tmp_path: Path, groups: Path):
    finish(tmp_path / "run", describe(groups))
    with pytest.raises(InputError) as error:
        find_status(tmp_path / "run", describe(groups, learning_rate=1e-5))
    assert "optimizer.learning_rate: 0.0001 there, 1e-05 now" in str(error.value)
    assert "--training.overwrite true" in str(error.value)


def test_an_unfinished_run_with_other_options_keeps_its_milestones(tmp_path: Path, groups: Path):
    write_run(tmp_path, describe(groups), status="running")
    with pytest.raises(InputError, match="an unfinished run with other inputs"):
        find_status(tmp_path, describe(groups, learning_rate=1e-5))


def test_a_finished_run_with_other_data_is_protected(tmp_path: Path, groups: Path):
    finish(tmp_path / "run", describe(groups))
    groups.write_text('{"query_id": "other"}\n')
    with pytest.raises(InputError, match=r"content of groups.jsonl: .* there, .* now"):
        find_status(tmp_path / "run", describe(groups))


def test_overwrite_itself_is_no_difference(tmp_path: Path, groups: Path):
    finish(tmp_path / "run", describe(groups))
    description = describe(groups)
    description["config"] = CONFIG | {"training": {"overwrite": True, "steps": 5}}
    assert find_status(tmp_path / "run", description) == "finished"


@pytest.mark.parametrize("name", [MODEL_FOLDER, MILESTONES_FOLDER, "tensorboard"])
def test_a_folder_of_somebody_elses_is_not_emptied(tmp_path: Path, groups: Path, name: str):
    (tmp_path / "run" / name).mkdir(parents=True)
    with pytest.raises(InputError, match=f"{name}: is not of a run of ours.*training.output"):
        check_folder(tmp_path / "run", {})
    write_run(tmp_path / "run", describe(groups), status="running")
    check_folder(tmp_path / "run", {})


def test_a_run_does_not_write_over_what_it_begins_with(tmp_path: Path):
    milestone = tmp_path / "run" / MILESTONES_FOLDER / "step-000010"
    with pytest.raises(InputError, match=r"milestones: is an input .*--model.init_from.*give --tr"):
        check_folder(tmp_path / "run", {"--model.init_from": [milestone]})
    beside = [tmp_path / "run" / "groups.jsonl", tmp_path, None]
    check_folder(tmp_path / "run", {"--data.groups": beside})


def test_options_that_change_no_weight_may_differ(tmp_path: Path, groups: Path):
    write_run(tmp_path, describe(groups), status="running")
    description = describe(groups)
    harmless = {"training.output", "training.log_every", "data.num_threads", "checkpoint.keep"}
    description["config"] = CONFIG | {
        section: CONFIG.get(section, {}) | {name: 7}
        for section, name in (option.split(".") for option in sorted(harmless))
    }
    description["config"]["training"] = {"steps": 5, "output": "moved", "log_every": 7}
    assert harmless < HARMLESS_OPTIONS
    assert find_status(tmp_path, description) == "unfinished"
    description["config"]["data"] |= {"negatives": 3}
    with pytest.raises(InputError, match=r"\(data.negatives: null there, 3 now\)"):
        find_status(tmp_path, description)


def test_every_harmless_option_is_an_option():
    recipe = Recipe(data=DataConfig(groups=Path("g")), training=TrainingConfig(output=Path("o")))
    options = set(flatten_dict(as_plain(recipe), sep="."))
    assert options > HARMLESS_OPTIONS | DEVICE_OPTIONS


def test_what_options_came_to_must_be_the_same(tmp_path: Path, groups: Path):
    resolved = {"text.max_length": 512, "model.tokenizer": "SHA-256 abc"}
    write_run(tmp_path, describe(groups) | {"resolved": resolved}, status="running")
    check_resolved(tmp_path, resolved)
    with pytest.raises(InputError) as error:
        check_resolved(tmp_path, resolved | {"model.tokenizer": "SHA-256 def"})
    assert "(model.tokenizer: SHA-256 abc there, SHA-256 def now)" in str(error.value)
    assert "--training.overwrite true" in str(error.value)


def test_another_machine_is_told_and_not_refused(tmp_path: Path, groups: Path):
    description = describe(groups)
    write_run(tmp_path, description, status="running")
    assert environment_notes(tmp_path, description) == []
    other = description | {"packages": description["packages"] | {"jax": "9.9"}}
    (note,) = environment_notes(tmp_path, other)
    assert f"package.jax: {description['packages']['jax']} there, 9.9 now" in note
    # Going on a second time with the same is no news.
    resume_run(tmp_path, other, step=4)
    assert environment_notes(tmp_path, other) == []


def test_a_run_that_goes_on_keeps_its_description_and_loses_only_leftovers(
    tmp_path: Path, groups: Path
):
    folder = tmp_path / "run"
    start_run(folder, describe(groups), config_yaml="")
    (folder / MILESTONES_FOLDER / "step-000001").mkdir(parents=True)
    (folder / MILESTONES_FOLDER / ".step-000002.x.part").mkdir()
    (folder / ".run.json.x.part").write_text("{")
    (folder / "metrics.jsonl").write_text("{}\n")
    for step in (4, 8):
        resume_run(folder, describe(groups) | {"command": ["again"]}, step=step)
    run = json.loads((folder / RUN_FILE).read_text())
    assert run["status"] == "running"
    assert run["command"] == ["train"]
    assert [(part["step"], part["command"]) for part in run["resumed"]] == [
        (4, ["again"]), (8, ["again"])
    ]  # fmt: skip
    assert (folder / "metrics.jsonl").exists()
    assert [path.name for path in (folder / MILESTONES_FOLDER).iterdir()] == ["step-000001"]
    assert not (folder / ".run.json.x.part").exists()
    finish_run(folder, results={"loss": 1.0})
    run = json.loads((folder / RUN_FILE).read_text())
    assert (run["status"], run["results"], len(run["resumed"])) == ("finished", {"loss": 1.0}, 2)
