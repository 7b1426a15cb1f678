"""What the reproduce scripts say before anything is done: plan, cost, what is missing, typos."""

import gzip
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from jaxrank.errors import InputError
from scripts.reproduction import __main__ as command
from scripts.reproduction import disk, presentation, settings, ssm_rerankers
from scripts.reproduction.papers import BEIR_SETS, TABLE_3
from tests.scripts.miniature import write_miniature

ROOT = Path(__file__).resolve().parents[2]


def reproduce(*arguments: object) -> None:
    command.main(list(map(str, arguments)))


def plan_of(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What `--plan` prints where something is missing."""
    with pytest.raises(InputError, match="needed and not there, see the list above"):
        reproduce(*arguments, "--plan")
    return capsys.readouterr().out


@pytest.fixture
def real_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that commands are called from."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def place(real_place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, without the estimate of the cost, which takes a second and has its own tests."""
    monkeypatch.setattr(presentation, "estimate_training", lambda recipe, **about: "left out")
    return real_place


@pytest.mark.parametrize("model", TABLE_3)
@pytest.mark.parametrize("recipe", ["paper", "authors-code"])
def test_every_row_has_a_plan(
    place: Path, capsys: pytest.CaptureFixture[str], model: str, recipe: str
):
    printed = plan_of(capsys, "rankmamba", model, "--recipe", recipe)
    assert f"lucene/{recipe}/{model}/train: the model" in printed
    assert f"configs/rankmamba/{recipe}.yaml --config {ROOT}/configs/rankmamba/{model}" in printed
    # The folder, and not the models in it now: others may be done by the time of the table.
    assert f"scripts.results_table {place}/runs/rankmamba/lucene/{recipe} --table" in printed
    assert not list(place.iterdir())


def test_the_plan_says_what_it_costs(real_place: Path, capsys: pytest.CaptureFixture[str]):
    printed = plan_of(capsys, "rankmamba", "opt-125m")
    said = "cost of training, estimated for one A100 of 80 GB, at the paper's 734,008 groups: "
    assert f"{said}91,751 steps" in printed
    assert "cost of reranking 528,100 pairs" in printed
    assert "free where the output goes: " in printed


def test_all_missing_files_are_named_at_once_with_where_they_are_obtained(
    place: Path, capsys: pytest.CaptureFixture[str]
):
    (place / "data").mkdir()
    (place / "data" / "msmarco-docdev-qrels.tsv.gz").touch()
    printed = plan_of(capsys, "rankmamba", "opt-125m", "--data", "data")
    missing = [line for line in printed.partition("missing:")[2].splitlines() if "https" in line]
    assert len(missing) == 8
    source = "https://msmarco.z22.web.core.windows.net/msmarcoranking"
    assert f"  {place}/data/msmarco-docs.tsv (22 GB): {source}/msmarco-docs.tsv.gz" in missing
    assert any(
        line.endswith("https://trec.nist.gov/data/deep/2020qrels-docs.txt") for line in missing
    )
    assert "msmarco-docdev-qrels" not in "".join(missing)
    assert not (place / "runs").exists()


def test_sets_that_are_not_asked_for_need_no_files(place: Path, capsys: pytest.CaptureFixture[str]):
    printed = plan_of(capsys, "rankmamba", "opt-125m", "--sets", "dev")
    assert "2019qrels" not in printed
    assert "dl20" not in printed


def test_official_runs_are_needed_where_they_are_chosen(
    real_place: Path, capsys: pytest.CaptureFixture[str]
):
    printed = plan_of(capsys, "rankmamba", "opt-125m", "--first_stage", "official")
    for name in ("doctrain", "docdev", "doctest2019", "doctest2020"):
        assert f"msmarcoranking/msmarco-{name}-top100.gz" in printed
    assert "jaxrank.search" not in printed
    # 5,193 questions, and all 200 topics of both tracks: those runs have what nobody judged too.
    assert "cost of reranking 559,300 pairs" in printed


def test_lucene_that_is_not_installed_is_missing_too(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(settings, "find_spec", lambda name: None)
    assert "bash scripts/setup.sh pyserini" in plan_of(capsys, "rankmamba", "opt-125m")
    printed = plan_of(capsys, "rankmamba", "opt-125m", "--first_stage", "bm25")
    assert "pyserini" not in printed


def test_negatives_of_the_other_paper_are_the_users_to_bring(
    place: Path, capsys: pytest.CaptureFixture[str]
):
    arguments = ("ssm-rerankers", "mamba2-370m", "--setting", "passage")
    printed = plan_of(capsys, *arguments)
    assert "--negatives_run RUN: a TREC run of the training questions" in printed
    assert "BAAI/bge-large-en-v1.5" in printed
    assert "-- --optimizer.learning_rate VALUE (what the paper took is not known here" in printed
    assert "--run RUN " in printed
    assert "\ncost: " in printed  # which the rate does not change
    (place / "bge.run").touch()
    more = ("--negatives_run", "bge.run", "--plan", "--", "--optimizer.learning_rate", "1e-5")
    with pytest.raises(InputError, match="not there"):
        reproduce(*arguments, *more)
    printed = capsys.readouterr().out
    assert "negatives_run" not in printed.partition("missing:")[2]
    assert "learning_rate VALUE" not in printed
    assert f"--run {place}/bge.run" in printed
    assert "--negatives 15 --groups_per_positive 1" in printed


def test_beir_goes_over_thirteen_sets_with_the_passage_model(
    place: Path, capsys: pytest.CaptureFixture[str]
):
    arguments = ("ssm-rerankers", "mamba2-370m", "--setting", "beir")
    printed = plan_of(capsys, *arguments)
    run_folder = place / "runs/ssm-rerankers/msmarco-passage/lucene/passage/mamba2-370m"
    trained = run_folder / "model"
    for name in BEIR_SETS:
        assert f"rerank-{name}:" in printed
        assert f"thakur/BEIR/datasets/{name}.zip, unpacked" in printed
        imported = f"{place}/runs/ssm-rerankers/beir/collections/{name}"
        assert f"--source {place}/data/beir/{name} --output {imported} --layout beir" in printed
        assert f"--model {trained} --collection {imported} --run " in printed
    assert "msmarco-passage/lucene/passage/mamba2-370m/train: the model" in printed
    (place / "model").mkdir()
    more = ("--trained", "model", "--sets", "scifact", "nfcorpus")
    printed = plan_of(capsys, *arguments, *more)
    assert printed.count("jaxrank.rerank") == 2
    assert f"--model {place}/model " in printed
    assert "jaxrank.train" not in printed
    assert "msmarco" not in printed


def test_long_documents_are_read_to_1536_tokens(place: Path, capsys: pytest.CaptureFixture[str]):
    printed = plan_of(capsys, "ssm-rerankers", "mamba2-370m", "--setting", "longp")
    assert "--long_documents longp --max_length 1536" in printed
    assert "longp.yaml" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rankmamba", "mamba-130"], "'mamba-130' is none of Table 3's models; did you mean "
         "'mamba-130m'"),
        (["rankmamba", "mamba2-370m"], "mamba-370m"),
        (["ssm-rerankers", "mamba2-37m", "--setting", "passage"], "did you mean 'mamba2-370m'"),
        (["rankmamba", "t5-base", "--sets", "dl21"], "sets: 'dl21' is unknown; known: dev, dl19"),
        (["rankmamba", "t5-base", "--sets", "dev", "dev"], "sets: dev is given twice"),
        (["rankmamba", "t5-base", "--recipe", "papr"], "recipe: got papr"),
        (["rankmamba", "t5-base", "--outptu", "x"], "did you mean 'output'"),
        (["rankmamba", "t5-base", "--first_stage", "own"], "--runs DIR goes with"),
        (["rankmamba", "t5-base", "--first_stage", "bm25", "--index", "x"], "goes with "
         "--first_stage lucene"),
        (["rankmamba", "t5-base", "--plan", "--", "--training.stpes", "5"], "did you mean 'steps'"),
        (["rankmamba", "t5-base", "--plan", "--", "--training.steps", "5"], "exactly one of them"),
        (["rankmmaba", "t5-base"], "rankmamba or ssm-rerankers is needed"),
        ([], "rankmamba or ssm-rerankers is needed"),
    ],
)  # fmt: skip
def test_wrong_names_and_options_are_refused_in_one_line_before_anything(
    place: Path, arguments: list[str], message: str
):
    with pytest.raises(InputError, match=message) as error:
        reproduce(*arguments)
    assert "\n" not in str(error.value)
    assert not list(place.iterdir())


def test_hub_names_are_understood(place: Path, capsys: pytest.CaptureFixture[str]):
    assert "paper/mamba-130m/train" in plan_of(capsys, "rankmamba", "state-spaces/mamba-130m")
    assert "paper/t5-base/train" in plan_of(capsys, "rankmamba", "T5-base")


def test_a_collection_of_ones_own_takes_the_place_of_the_official_files(
    place: Path, medquad_mini: Path, capsys: pytest.CaptureFixture[str]
):
    own = ("--collection", medquad_mini, "--sets", "test", "--first_stage", "bm25", "--plan")
    reproduce("rankmamba", "opt-125m", *own)
    printed = capsys.readouterr().out
    assert "import_collection" not in printed
    assert f"--qrels {medquad_mini}/qrels.test.txt" in printed
    assert "--measures 'RR@10 RR@100 nDCG@10 R@100'" in printed
    assert "--dev.run null" in printed
    assert "--table own --sets test" in printed
    assert not list(place.iterdir())
    printed = plan_of(
        capsys, "rankmamba", "opt-125m", "--collection", medquad_mini, "--sets", "exam"
    )
    assert "qrels.exam.txt: judgements of exam in your own collection" in printed


def test_a_collection_of_ones_own_is_looked_at_as_the_commands_do(
    place: Path, medquad_mini: Path, capsys: pytest.CaptureFixture[str]
):
    own = place / "own"
    shutil.copytree(medquad_mini, own)
    arguments = ("rankmamba", "opt-125m", "--collection", own, "--first_stage", "bm25")
    with (own / "queries.jsonl").open("rb") as file, gzip.open(own / "queries.jsonl.gz", "w") as to:
        shutil.copyfileobj(file, to)
    (own / "queries.jsonl").unlink()
    reproduce(*arguments, "--sets", "test", "--plan")
    assert "missing" not in capsys.readouterr().out

    (own / "corpus.jsonl").rename(own / "corpus.jsonl.gz")
    printed = plan_of(capsys, *arguments, "--sets", "test")
    [missing] = printed.partition("missing:\n")[2].partition("\n\n")[0].splitlines()
    assert missing.startswith(f"  {own}/corpus.jsonl: ")
    assert "gunzip" in missing


def test_too_little_disk_is_missing_too(
    real_place: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    data = write_miniature(real_place / "data")
    monkeypatch.setattr(disk, "free_bytes", lambda folder: 3 << 30)
    arguments = ("rankmamba", "opt-125m", "--first_stage", "bm25", "--data", data)
    printed = plan_of(capsys, *arguments)
    [line] = [line for line in printed.splitlines() if "GiB of disk" in line]
    # 8.5 GiB are the checkpoints of opt-125m: two kept ones and one that is being written.
    assert re.search(
        rf"  9 GiB of disk for {real_place}/runs/rankmamba, of which 3 GiB are free", line
    )
    monkeypatch.setattr(disk, "free_bytes", lambda folder: 20 << 30)
    reproduce(*arguments, "--plan")
    assert "free where the output goes: 20 GiB, needed at least: 9 GiB" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["--plan", "t5-base"], ["--plan", "true", "t5-base"]])
def test_a_flag_may_stand_before_the_model(
    place: Path, capsys: pytest.CaptureFixture[str], words: list[str]
):
    with pytest.raises(InputError, match="needed and not there, see the list above"):
        reproduce("rankmamba", *words)
    assert "paper/t5-base/train: the model" in capsys.readouterr().out


PLACES = ("--data.collection", "--data.groups", "--dev.run")


@pytest.mark.parametrize(
    ("arguments", "recipe"),
    [
        (["rankmamba", "mamba-130m"], "rankmamba/paper"),
        (["rankmamba", "mamba-130m", "--recipe", "authors-code"], "rankmamba/authors-code"),
        (["ssm-rerankers", "mamba2-370m", "--setting", "passage"], "ssm-rerankers/passage"),
        (["ssm-rerankers", "mamba2-370m", "--setting", "document"], "ssm-rerankers/document"),
        (["ssm-rerankers", "mamba2-370m", "--setting", "longp"], "ssm-rerankers/longp"),
    ],
)
def test_a_recipe_names_the_places_that_the_script_fills(
    place: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], recipe: str
):
    printed = plan_of(capsys, *arguments)
    content = yaml.safe_load((ROOT / "configs" / f"{recipe}.yaml").read_text())
    for option in PLACES:
        section, key = option.removeprefix("--").split(".")
        if key in content[section]:  # the second paper's recipes have no dev measure
            assert f"{option} {place / content[section][key]} " in printed


def test_the_script_itself_ends_with_status_2_where_something_is_missing(tmp_path: Path):
    done = subprocess.run(
        ["bash", str(ROOT / "scripts" / "reproduce_rankmamba.sh"), "t5-base", "--plan"],
        cwd=tmp_path,
        env=os.environ | {"PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert f"{tmp_path}/data/msmarco-document/msmarco-docs.tsv (22 GB)" in done.stdout
    assert done.stderr.splitlines() == [
        "error: 9 things are needed and not there, see the list above; bring the files, or choose "
        "fewer sets with --sets"
    ]


def test_a_value_that_is_open_asks_for_no_fewer_sets(place: Path, monkeypatch: pytest.MonkeyPatch):
    for module, name in (
        (ssm_rerankers, "missing_files"),
        (ssm_rerankers, "missing_of_first_stage"),
    ):
        monkeypatch.setattr(module, name, lambda *_: [])
    (place / "bge.run").touch()
    arguments = ("ssm-rerankers", "mamba2-370m", "--setting", "passage", "--negatives_run")
    message = "1 thing is needed and not there, see the list above; give the value behind --"
    with pytest.raises(InputError, match=rf"^{message}$"):
        reproduce(*arguments, "bge.run", "--plan")
