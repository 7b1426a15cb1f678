"""scripts/reproduce_ssm_rerankers.sh on passages and two BEIR sets in miniature."""

import gzip
import json
import shutil
from pathlib import Path

import pytest

from scripts.reproduction import __main__ as command
from scripts.reproduction.official_files import collection_files
from tests.scripts.miniature import DEPTH, as_beir, as_passages, write_miniature, write_model

TRAINING = (
    *("--optimizer.learning_rate", 1e-3, "--optimizer.warmup_steps", 1, "--training.steps", 2),
    *("--training.epochs", "null", "--training.milestones", 1, "--training.tensorboard", "false"),
    *("--training.find_batch_size", "false", "--data.groups_per_batch", 2, "--data.negatives", 3),
    *("--data.min_negatives", 1, "--text.max_length", 64, "--model.dtype", "float32"),
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Official files of both kinds, a run for the negatives, and a tiny model."""
    place = tmp_path_factory.mktemp("ssm")
    documents = write_miniature(place / "documents")
    as_passages(documents, place / "data" / "msmarco-passage")
    for name in ("scifact", "nfcorpus"):
        folder = as_beir(documents, place / "data" / "beir" / name)
    for path in [path for path in folder.rglob("*") if path.is_file()]:  # as people shrink them
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    shutil.copy(documents / "msmarco-doctrain-top100.gz", place / "bge.run.gz")
    write_model(place / "model", "bert")
    return place


def reproduce(place: Path, setting: str, *more: object) -> None:
    options = ("--setting", setting, "--data", place / "data", "--output", place / "output")
    shared = ("--first_stage", "bm25", "--depth", DEPTH, "--negatives_run", place / "bge.run.gz")
    train = ("--", "--model.init_from", place / "model", *TRAINING)
    words = ("ssm-rerankers", "bert-base", *options, *shared, *more, *train)
    command.main(list(map(str, words)))


def test_the_miniature_has_the_names_of_the_official_passage_files(place: Path):
    files = collection_files("msmarco-passage", ("train", "dev", "dl19", "dl20"))
    assert all(file.find(place / "data" / "msmarco-passage") for file in files)


@pytest.mark.slow
def test_passages_and_then_beir_lead_to_tables(place: Path, capsys: pytest.CaptureFixture[str]):
    reproduce(place, "passage")
    folder = place / "output" / "msmarco-passage" / "bm25" / "passage"
    lines = (folder / "table.md").read_text().splitlines()
    assert lines[0] == "| Model | Dev MRR@10 | DL19 nDCG@10 | DL20 nDCG@10 |"
    assert lines[3].startswith("| bert-base | 0.")
    groups = (place / "output" / "msmarco-passage" / "groups-15.jsonl").read_text().splitlines()
    assert json.loads(groups[0])["query_id"]

    capsys.readouterr()
    reproduce(place, "beir", "--sets", "scifact")
    reproduce(place, "beir", "--sets", "scifact", "nfcorpus")
    said = capsys.readouterr().out
    assert "kept: beir/bm25/bert-base/rerank-scifact" in said
    assert "jaxrank.train" not in said
    assert "kept: beir/import-scifact" in said
    assert (place / "output/beir/collections/nfcorpus/documents/manifest.json").is_file()
    table = (place / "output" / "beir" / "bm25" / "table.md").read_text().splitlines()
    assert table[0] == "| Model | scifact nDCG@10 | nfcorpus nDCG@10 | mean nDCG@10 |"
    values = [float(cell) for cell in table[3].split("|")[2:5]]
    assert values[2] == pytest.approx((values[0] + values[1]) / 2, abs=1e-4)
