"""What the reproduce scripts say before anything is done: plan, cost, what is missing, typos."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jaxrank.errors import InputError
from scripts.reproduction import __main__ as command
from scripts.reproduction import presentation, settings
from scripts.reproduction.papers import BEIR_SETS, TABLE_3

ROOT = Path(__file__).resolve().parents[2]


def reproduce(*arguments: object) -> None:
    command.main(list(map(str, arguments)))


def plan_of(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What `--plan` prints where something is missing."""
    with pytest.raises(InputError, match="of what is needed is missing"):
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
    monkeypatch.setattr(presentation, "describe_cost", lambda recipe, **about: "cost: left out")
    return real_place


@pytest.mark.parametrize("model", TABLE_3)
@pytest.mark.parametrize("recipe", ["paper", "authors-code"])
def test_every_row_has_a_plan(
    place: Path, capsys: pytest.CaptureFixture[str], model: str, recipe: str
):
    printed = plan_of(capsys, "rankmamba", model, "--recipe", recipe)
    assert f"lucene/{recipe}/{model}/train: the model" in printed
    assert f"configs/rankmamba/{recipe}.yaml --config {ROOT}/configs/rankmamba/{model}" in printed
    assert not list(place.iterdir())


def test_the_plan_says_what_it_costs(real_place: Path, capsys: pytest.CaptureFixture[str]):
    printed = plan_of(capsys, "rankmamba", "opt-125m")
    assert "cost of training, estimated for one A100 of 80 GB: 91,751 steps" in printed
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
    place: Path, capsys: pytest.CaptureFixture[str]
):
    printed = plan_of(capsys, "rankmamba", "opt-125m", "--first_stage", "official")
    for name in ("doctrain", "docdev", "doctest2019", "doctest2020"):
        assert f"msmarcoranking/msmarco-{name}-top100.gz" in printed
    assert "jaxrank.search" not in printed


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
    (place / "bge.run").touch()
    more = ("--negatives_run", "bge.run", "--plan", "--", "--optimizer.learning_rate", "1e-5")
    with pytest.raises(InputError, match="is missing"):
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
    for name in BEIR_SETS:
        assert f"rerank-{name}:" in printed
        assert f"thakur/BEIR/datasets/{name}.zip, unpacked" in printed
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
        (["rankmamba", "t5-base", "--sets", "dev", "dev"], "none twice"),
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
        "error: 9 of what is needed is missing, see the list above; bring it, or choose fewer sets "
        "with --sets"
    ]
