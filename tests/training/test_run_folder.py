"""The run folder: what run.json tells, and when an earlier run is reused or protected."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from jaxrank.errors import InputError
from jaxrank.files import file_digest
from jaxrank.training.run_folder import (
    MILESTONES_FOLDER,
    MODEL_FOLDER,
    RUN_FILE,
    check_folder,
    describe_run,
    find_status,
    start_run,
    write_run,
)

CONFIG = {"optimizer": {"learning_rate": 1e-4}, "training": {"overwrite": False, "steps": 5}}


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
    write_run(folder, description, status="finished")


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


def test_an_interrupted_run_is_restarted_without_its_metrics(tmp_path: Path, groups: Path):
    folder = tmp_path / "run"
    finish(folder, describe(groups))
    write_run(folder, describe(groups), status="running")
    (folder / "metrics.jsonl").write_text("{}\n")
    (folder / MILESTONES_FOLDER / "step-000001").mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    assert find_status(folder, describe(groups)) == "unfinished"
    start_run(folder, describe(groups), config_yaml="")
    assert not (folder / "metrics.jsonl").exists()
    assert not (folder / MILESTONES_FOLDER).exists()
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
        check_folder(tmp_path / "run")
    write_run(tmp_path / "run", describe(groups), status="running")
    check_folder(tmp_path / "run")
