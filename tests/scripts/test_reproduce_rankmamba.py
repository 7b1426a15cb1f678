"""scripts/reproduce_rankmamba.sh on a miniature of the official files, from nothing to a table."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jaxrank.errors import InputError
from jaxrank.evaluation.measures import evaluate_run
from jaxrank.evaluation.qrels import read_qrels
from jaxrank.evaluation.runs import read_run
from scripts.reproduction import __main__ as command
from tests.scripts.miniature import DEPTH, write_miniature, write_model

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "reproduce_rankmamba.sh"
FAMILIES = {"bert-base-uncased": "bert", "mamba-130m": "mamba"}
STEPS = 24
TRAINING = (
    *("--training.steps", STEPS, "--training.epochs", "null", "--training.milestones", 1),
    *("--training.tensorboard", "false", "--training.find_batch_size", "false"),
    *("--optimizer.warmup_steps", 2, "--optimizer.learning_rate", 1e-3),
    *("--data.groups_per_batch", 2, "--model.dtype", "float32"),
    # Every document is cut, so that all batches have one length and are compiled once.
    *("--text.max_length", 48, "--text.query_length", 24),
    *("--checkpoint.every", 4, "--dev.queries", 3),
)
RECORDED = 13
LIMIT_S = 300


class Miniature:
    """A miniature of the official files, and the processes that reproduce rows from it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.output = folder / "output"
        self.data = write_miniature(folder / "data")

    def arguments(self, model: str, *more: object, train: tuple[object, ...] = ()) -> list[str]:
        """A command line's words, but for the name of the paper."""
        start = self.folder / FAMILIES[model]
        if not start.exists():
            write_model(start, FAMILIES[model])
        options = ("--data", self.data, "--output", self.output, "--depth", DEPTH)
        first_stage = () if "--first_stage" in more else ("--first_stage", "bm25")
        trained = ("--", "--model.init_from", start, *TRAINING, *train)
        return list(map(str, (model, *options, *first_stage, *more, *trained)))

    def start(self, model: str, *more: object) -> "subprocess.Popen[str]":
        """The script, started."""
        environment = os.environ | {
            "PYTHON": sys.executable,
            "JAX_COMPILATION_CACHE_DIR": str(self.folder / "xla"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_ENABLE_COMPILATION_CACHE": "1",
        }
        return subprocess.Popen(
            ["bash", str(SCRIPT), *self.arguments(model, *more)],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def interrupt(self, model: str, number: int) -> tuple[int, str, str]:
        """Start the script, and send a signal when its training has saved a checkpoint."""
        process = self.start(model)
        checkpoints = self.output / "bm25" / "paper" / model / "checkpoints"
        limit = time.monotonic() + LIMIT_S
        while process.poll() is None and not list(checkpoints.glob("step-*")):
            if time.monotonic() > limit:
                process.kill()
                said, complained = process.communicate()
                pytest.fail(f"no checkpoint within {LIMIT_S} s\n{said}{complained}")
            time.sleep(0.005)
        process.send_signal(number)
        said, complained = process.communicate(timeout=LIMIT_S)
        return process.returncode, said, complained

    def finish(self, model: str, *more: object) -> str:
        """Start the script and wait for its end; what it said."""
        process = self.start(model, *more)
        said, complained = process.communicate(timeout=LIMIT_S)
        assert process.returncode == 0, said + complained
        return said


@pytest.fixture(scope="module")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Miniature:
    return Miniature(tmp_path_factory.mktemp("miniature"))


@pytest.fixture(scope="module")
def transformer(miniature: Miniature) -> list[str]:
    """What was said from nothing to the table, with a SIGTERM in the training."""
    status, said, complained = miniature.interrupt("bert-base-uncased", signal.SIGTERM)
    assert status == 75, said + complained
    assert "the same command goes on from there" in complained.splitlines()[-1]
    return [said, miniature.finish("bert-base-uncased")]


@pytest.fixture(scope="module")
def mamba(miniature: Miniature, transformer: list[str]) -> list[str]:
    """The same for a second model in the same folder, with a SIGKILL."""
    status, said, _ = miniature.interrupt("mamba-130m", signal.SIGKILL)
    assert status == -signal.SIGKILL
    return [said, miniature.finish("mamba-130m")]


@pytest.fixture
def reproduced(miniature: Miniature, mamba: list[str]) -> Iterator[Miniature]:
    """The finished miniature, which tests must leave as it was."""
    before = contents(miniature.output)
    yield miniature
    assert contents(miniature.output) == before


def contents(folder: Path) -> dict[Path, tuple[int, bytes]]:
    """Bytes of all files but the empty locks, and when they were written."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes())
        for path in paths
        if path.suffix != ".lock"
    }


def steps_done(said: str) -> list[str]:
    return re.findall(r"^(\S+): done in \d+ s$", said, re.MULTILINE)


def steps_kept(said: str) -> list[str]:
    return re.findall(r"^\[ ?\d+/14\] kept: (\S+)$", said, re.MULTILINE)


def test_a_stopped_command_goes_on_and_does_each_step_once(transformer: list[str]):
    done = [steps_done(said) for said in transformer]
    assert done[0] == [
        "collection",
        *(f"bm25/search-{split}" for split in ("train", "dev", "dl19", "dl20")),
        "bm25/mine",
    ]
    assert steps_kept(transformer[1]) == done[0]
    assert done[1][0] == "bm25/paper/bert-base-uncased/train"
    assert re.search(rf"goes on from step \d+ of {STEPS}", transformer[1])
    assert len(set(done[0] + done[1])) == len(done[0] + done[1]) == RECORDED


def test_a_killed_command_goes_on_and_shares_what_another_model_had_made(mamba: list[str]):
    assert steps_done(mamba[0]) == []
    assert steps_kept(mamba[0]) == steps_kept(mamba[1])
    assert len(steps_kept(mamba[1])) == 6
    assert re.search(rf"goes on from step \d+ of {STEPS}", mamba[1])
    assert steps_done(mamba[1])[0] == "bm25/paper/mamba-130m/train"


def test_the_table_is_filled_for_a_transformer_and_a_mamba(reproduced: Miniature):
    table = (reproduced.output / "bm25" / "paper" / "table.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[:5]]
    assert [row[0] for row in rows[2:]] == [
        "first stage (the paper's: BM25, k1=4.46, b=0.82)",
        "bert-base-uncased",
        "state-spaces/mamba-130m",
    ]
    number = r"[01]\.\d{4}"
    for row in rows[2:]:
        for ours, paper, difference in zip(row[2::3], row[3::3], row[4::3], strict=True):
            assert re.fullmatch(number, ours)
            assert re.fullmatch(number, paper)
            assert re.fullmatch(r"[+-]\d\.\d{4} \([+-]\d\.\d{4} [+-]\d\.\d{4}\)", difference)
            assert float(ours) - float(paper) == pytest.approx(float(difference[:7]), abs=1.1e-4)
    assert "not measured" not in table
    qrels = read_qrels(reproduced.output / "collection" / "qrels.dl19.txt")
    for row, run in (
        (rows[2], "bm25.dl19.run"),
        (rows[4], "paper/mamba-130m/runs/mamba-130m.dl19.run"),
    ):
        evaluation = evaluate_run(qrels, read_run(reproduced.output / "bm25" / run), ["nDCG@10"])
        assert row[5] == f"{evaluation.means['nDCG@10']:.4f}"


def test_the_judgements_and_candidates_are_those_of_the_official_files(reproduced: Miniature):
    folder = reproduced.output / "bm25"
    evaluation = json.loads((folder / "paper/mamba-130m/evaluation/dl19.json").read_text())
    assert evaluation["queries"] == 3
    assert set(evaluation["runs"]) == {"bm25.dl19", "mamba-130m.dl19"}
    qrels = (reproduced.data / "2019qrels-docs.txt").read_text().split("\n")
    imported = (reproduced.output / "collection" / "qrels.dl19.txt").read_text().split("\n")
    assert [line.split() for line in imported] == [line.split() for line in qrels]
    candidates = (folder / "bm25.dl19.run").read_text().splitlines()
    reranked = (folder / "paper/mamba-130m/runs/mamba-130m.dl19.run").read_text().splitlines()
    assert {tuple(line.split()[0:3:2]) for line in candidates} == {
        tuple(line.split()[0:3:2]) for line in reranked
    }
    groups = (folder / "groups.jsonl").read_text().splitlines()
    judged = {line.split()[0] for line in (folder / "bm25.train.run").read_text().splitlines()}
    assert len(groups) == 2 * len(
        (reproduced.output / "collection" / "qrels.train.txt").read_text().splitlines()
    )
    assert {json.loads(line)["query_id"] for line in groups} == judged
    assert all(len(json.loads(line)["negative_ids"]) == 7 for line in groups)


def test_the_same_command_again_does_nothing(
    reproduced: Miniature, capsys: pytest.CaptureFixture[str]
):
    table = reproduced.output / "bm25" / "paper" / "table.md"
    written = (table.read_bytes(), table.stat())
    command.main(["rankmamba", *reproduced.arguments("mamba-130m")])
    said = capsys.readouterr().out
    assert len(steps_kept(said)) == RECORDED
    assert said.count("to do ") == 1  # the table, which takes no time
    assert table.read_bytes() == written[0]
    os.utime(table, ns=(written[1].st_atime_ns, written[1].st_mtime_ns))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--k1", "0.9"), r"train.json: this step was done otherwise \(--k1: 4.46 then, 0.9"),
        (("--depth", "10"), r"--depth: 12 then, 10 now\); give what it was done with"),
        (("--document_text", "body"), r"--document_text: not given then, body now"),
    ],
)  # fmt: skip
def test_changed_options_are_refused_and_not_mixed(
    reproduced: Miniature, options: tuple[str, ...], message: str
):
    with pytest.raises(InputError, match=message) as error:
        command.main(["rankmamba", *reproduced.arguments("mamba-130m", *options)])
    assert "\n" not in str(error.value)


def test_changed_options_of_the_training_are_refused_by_the_training(reproduced: Miniature):
    words = reproduced.arguments("mamba-130m", train=("--training.seed", "7"))
    with pytest.raises(InputError, match=r"training.seed: 42 there, 7 now"):
        command.main(["rankmamba", *words])


def test_a_changed_file_is_refused(reproduced: Miniature):
    path = reproduced.output / "bm25" / "bm25.dev.run"
    before, status = path.read_bytes(), path.stat()
    path.write_bytes(before.replace(b" 1 ", b" 9 ", 1))
    try:
        with pytest.raises(InputError, match=r"search-dev.json: .*bm25.dev.run is not what it was"):
            command.main(["rankmamba", *reproduced.arguments("mamba-130m")])
    finally:
        path.write_bytes(before)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.slow
@pytest.mark.parametrize("first_stage", ["official", "lucene"])
def test_other_first_stages_lead_to_a_table_too(miniature: Miniature, first_stage: str):
    if first_stage == "lucene":
        pytest.importorskip("jnius_config")
    said = miniature.finish("mamba-130m", "--first_stage", first_stage)
    assert "| state-spaces/mamba-130m | 130M | 0." in said
    if first_stage == "official":
        assert "jaxrank.search" not in said
        assert "msmarco-doctrain-top100.gz" in said


@pytest.mark.slow
def test_the_authors_recipe_leads_to_a_table_too(miniature: Miniature):
    said = miniature.finish("mamba-130m", "--recipe", "authors-code", "--sets", "dev")
    assert "| state-spaces/mamba-130m | 130M | 0." in said
