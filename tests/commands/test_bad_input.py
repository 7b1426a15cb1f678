"""Every command on bad input: one line, status 2, nothing written; Ctrl-C and a full disk as well.

What a reader of files refuses is tested beside it; here is what a user of the commands sees.
"""

import gzip
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ckpt_convert import __main__ as ckpt_convert
from ckpt_convert.load import load
from ckpt_convert.save import save
from jaxrank import compare, encode_documents, evaluate, fuse, mine, rerank, search, train
from jaxrank.command_line import EXIT_STOPPED, run
from jaxrank.evaluation.runs import read_run
from jaxrank.models.bert import BertConfig
from jaxrank.models.module import RerankerConfig, init_module, parameters
from jaxrank.ranking.scoring import Scorer
from jaxrank.retrieval.bm25 import Bm25
from jaxrank.text.templates import TextConfig
from jaxrank.text.tokenize import load_tokenizer
from jaxrank.training.loop import LoopConfig
from jaxrank.training.step import TrainState
from jaxrank.training_run import run as training_run

Change = Callable[[Path], object]

ILLNESSES = (
    "asthma", "acne", "anemia", "autism", "cancer", "cholera", "diabetes", "epilepsy", "fever",
    "flu", "gout", "hepatitis", "herpes", "leprosy", "lupus", "malaria", "measles", "mumps",
    "plague", "polio",
)  # fmt: skip
WEIGHTS = "model/model.safetensors"

MAINS: dict[str, Callable[[], None]] = {
    "search": search.main,
    "fuse": fuse.main,
    "mine": mine.main,
    "train": train.main,
    "encode_documents": encode_documents.main,
    "rerank": rerank.main,
    "evaluate": evaluate.main,
    "compare": compare.main,
    "ckpt_convert": ckpt_convert.main,
}
# Options that work; those of a case come after them and win.
OPTIONS = {
    "search": "--collection c --split test --output out",
    "fuse": "--runs test.run dev.run --output out",
    "mine": "--collection c --split train --run train.run --output out --negatives 3 --last_rank 5",
    "encode_documents": "--model model --collection c --output out",
    "rerank": "--model model --collection c --run test.run --output out",
    "evaluate": "--qrels c/qrels.test.txt --runs test.run",
    "train": (
        "--model.init_from model --data.collection c --data.groups groups.jsonl --data.negatives 3 "
        "--data.groups_per_batch 2 --text.max_length 32 --optimizer.warmup_fraction 0.2 "
        "--training.steps 2 --training.milestones 1 --training.output out"
    ),
    "compare": "run --output out",
    "ckpt_convert": "",
}


def write_lines(path: Path, lines: Sequence[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory, bert_tokenizer_folder: Path) -> Path:
    """A collection of 20 documents, each with a question, its runs and groups, and a tiny BERT."""
    folder = tmp_path_factory.mktemp("good")
    (folder / "c").mkdir()
    documents = [
        {"_id": f"d{i}", "text": f"{word} is an illness"} for i, word in enumerate(ILLNESSES)
    ]
    queries = [{"_id": f"q{i}", "text": f"What causes {word}?"} for i, word in enumerate(ILLNESSES)]
    write_lines(folder / "c" / "corpus.jsonl", list(map(json.dumps, documents)))
    write_lines(folder / "c" / "queries.jsonl", list(map(json.dumps, queries)))
    near = {
        i: [f"d{(i + step) % len(ILLNESSES)}" for step in range(6)] for i in range(len(ILLNESSES))
    }
    for split, numbers in {"train": range(12), "dev": range(12, 16), "test": range(16, 20)}.items():
        write_lines(folder / "c" / f"qrels.{split}.txt", [f"q{i} 0 d{i} 1" for i in numbers])
        found = [(i, name, 9 - rank) for i in numbers for rank, name in enumerate(near[i])]
        lines = [f"q{i} Q0 {name} 0 {score} t" for i, name, score in found]
        write_lines(folder / f"{split}.run", lines)
    groups = [
        {"query_id": f"q{i}", "positive_id": f"d{i}", "negative_ids": near[i][1:]}
        for i in range(12)
    ]
    write_lines(folder / "groups.jsonl", list(map(json.dumps, groups)))
    backbone = BertConfig(
        hidden_size=16, num_layers=2, num_heads=2, intermediate_size=32, max_position_embeddings=64
    )
    config = RerankerConfig("bert", backbone, head="classification")
    start = parameters(init_module(config, seed=0))
    save(
        folder / "model",
        config=config,
        parameters={name: np.asarray(value) for name, value in start.items()},
        tokenizer=load_tokenizer(bert_tokenizer_folder),
        text=TextConfig(max_length=64),
    )
    return folder


@pytest.fixture
def folder(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: names in `tmp_path` for all that is in `good`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    for source in (*good.glob("*"), *good.glob("*/*")):
        target = tmp_path / source.relative_to(good)
        if source.is_dir():
            target.mkdir()
        else:
            target.hardlink_to(source)
    return tmp_path


def replace(path: Path, content: bytes) -> None:
    """Write anew, so that the file in `good` stays as it is."""
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def write(name: str, text: str | bytes) -> Change:
    return lambda folder: replace(folder / name, text.encode() if isinstance(text, str) else text)


def append(name: str, text: str | bytes) -> Change:
    added = text.encode() if isinstance(text, str) else text
    return lambda folder: replace(folder / name, (folder / name).read_bytes() + added)


def remove(name: str) -> Change:
    return lambda folder: (folder / name).unlink()


def link(name: str) -> Change:
    """A name for the run that it is given beside."""
    return lambda folder: (folder / name).symlink_to("test.run")


def configure(section: str | None = None, **values: Any) -> Change:
    """Change the model's config.json."""

    def change(folder: Path) -> None:
        config = json.loads((folder / "model/config.json").read_text())
        (config[section] if section else config).update(values)
        replace(folder / "model/config.json", json.dumps(config).encode())

    return change


def weigh(name: str, edit: Callable[[np.ndarray], np.ndarray | None]) -> Change:
    """Change one tensor of the model, or drop it where `edit` gives None."""

    def change(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        edited = edit(tensors.pop(name).copy())
        (folder / WEIGHTS).unlink()
        save_file(tensors if edited is None else {**tensors, name: edited}, folder / WEIGHTS)

    return change


def group(**values: Any) -> str:
    line = {"query_id": "q0", "positive_id": "d0", "negative_ids": ["d1", "d2", "d3"]} | values
    return json.dumps({key: value for key, value in line.items() if value is not None}) + "\n"


class Case(NamedTuple):
    command: str
    words: str
    options: str = ""
    change: Change | None = None


INPUT = "is an input of this command"
REPEATED = '{"_id": "d1", "text": ""}\n'

CASES = [
    # Options and configs.
    Case("search", "unknown key 'dpeth'; did you mean 'depth'?", "--dpeth 3"),
    Case("train", "'steps'?", "--config x.yaml", write("x.yaml", "training: {stesp: 1}")),
    Case("rerank", "dtype: got float16; float32 or bfloat16 is needed", "--dtype float16"),
    Case("train", "model.dtype: got float8; auto, float32, bfloat16 or", "--model.dtype float8"),
    Case("train", "model.head: got liner; linear, classification or null", "--model.head liner"),
    Case("ckpt_convert", "invalid choice: 'liner'", "import model out --head liner"),
    Case("evaluate", "'nDGC@10': unknown; did you mean 'nDCG@10'?", "--measures nDGC@10"),
    Case("rerank", "depth: got 0; at least 1", "--depth 0"),
    Case("rerank", "depth: got -1; at least 1", "--depth -1"),
    Case("rerank", "batch_size: got 0; at least 1", "--batch_size 0"),
    Case("rerank", "tag 'a b': a word", "--config x.yaml", write("x.yaml", "tag: a b")),
    Case("train", "optimizer.learning_rate: got -1.0", "--optimizer.learning_rate -1"),
    Case("train", "training.steps: got 0", "--training.steps 0"),
    Case("train", "training.seed: got -1", "--training.seed -1"),
    Case("train", "text.max_length: got 65; the model has 64 positions", "--text.max_length 65"),
    Case("train", "text.max_length: got 3, which the special tokens fill", "--text.max_length 3"),
    Case("ckpt_convert", "pairs: got 0", "check model --pairs 0"),
    Case("encode_documents", "dtype: got float16; float32, bfloat16, bf16 or", "--dtype float16"),
    Case("encode_documents", "batch_size: got 0; at least 1", "--batch_size 0"),
    Case("encode_documents", "depth: got 3; it is of the candidates of --runs", "--depth 3"),
    Case("encode_documents", "depth: got 0; at least 1", "--runs test.run --depth 0"),
    Case("encode_documents", "collection: got null; the action encode", "--collection null"),
    Case("encode_documents", "action: got verfy; encode, verify, desc", "--action verfy"),
    Case("encode_documents", "model: got model; the action verify has no", "--action verify"),
    Case(
        "encode_documents",
        "documents, runs: both are given; give one",
        "--documents ids --runs test.run",
    ),
    # Places.
    Case("search", "c: a file is to be written here, this is a folder", "--output c"),
    Case("mine", "test.run/x: cannot be written", "--output test.run/x"),
    Case("rerank", "c: a file is to be written here, this is a folder", "--output c"),
    Case("evaluate", "c: a file is to be written here", "--json out --per_query c"),
    Case("train", "test.run: a folder is to be written here", "--training.output test.run"),
    Case("ckpt_convert", "test.run/x: cannot be written", "import model test.run/x"),
    Case("ckpt_convert", "c: a file is to be written here", "check model --json c"),
    Case("train", "out/model: is not of a run of ours", "", write("out/model", "mine")),
    Case("search", "error: nowhere: no such folder; a collection", "--collection nowhere"),
    Case("search", "error: test.run: a collection folder is needed", "--collection test.run"),
    Case("rerank", "./nowhere: no such folder", "--model ./nowhere"),
    Case("encode_documents", "test.run: a folder is to be written", "--output test.run"),
    Case("encode_documents", "ids: no such file", "--documents ids"),
    Case("rerank", "hub did not give it", "--model some/reranker"),
    Case("rerank", "test.run: a model folder is needed, this is a file", "--model test.run"),
    # Outputs that are inputs.
    Case("search", f"c/qrels.dev.txt: {INPUT} (--collection)", "--output c/qrels.dev.txt"),
    Case("search", f"c/documents: {INPUT} (--collection)", "--output c/documents"),
    Case("search", f"c/qrels.new.txt: {INPUT} (--collection)", "--output c/qrels.new.txt"),
    Case("fuse", f"error: dev.run: {INPUT} (--runs); give --output", "--output ./dev.run"),
    Case("mine", f"train.run: {INPUT} (--run); give --output", "--output train.run"),
    Case(
        "mine",
        f"pairs: {INPUT} (--exclude)",
        "--exclude pairs --output pairs",
        write("pairs", "q1\td1\n"),
    ),
    Case("mine", f"c/queries.jsonl: {INPUT} (--collection)", "--output c/queries.jsonl"),
    Case("rerank", f"test.run: {INPUT} (--run)", "--output test.run"),
    Case("rerank", f"test.run: {INPUT} (--run)", "--run link --output test.run", link("link")),
    Case("rerank", f"model/config.json: {INPUT} (--model)", "--output model/config.json"),
    Case("rerank", f"c/corpus.jsonl: {INPUT} (--collection)", "--output c/corpus.jsonl"),
    Case("rerank", f"s/out: {INPUT} (--document_states)", "--document_states s --output s/out"),
    Case("encode_documents", f"c: {INPUT} (--collection); give --output", "--output c"),
    Case("encode_documents", f"c/documents: {INPUT} (--coll", "--output c/documents"),
    Case("encode_documents", f"model: {INPUT} (--model)", "--output model"),
    Case("evaluate", f"test.run: {INPUT} (--runs); give --csv", "--csv test.run"),
    Case("evaluate", f"c/qrels.test.txt: {INPUT} (--qrels)", "--per_query c/qrels.test.txt"),
    Case("evaluate", f"c/corpus.jsonl: {INPUT} (--coll", "--collection c --json c/corpus.jsonl"),
    Case(
        "evaluate",
        f"year.tsv: {INPUT} (--slice_by)",
        "--slice_by year.tsv:2 --latex year.tsv",
        write("year.tsv", "q16\t1\n"),
    ),
    Case(
        "compare",
        f"run/metrics.jsonl: {INPUT} (--runs)",
        "--output run/metrics.jsonl",
        write("run/run.json", "{}"),
    ),
    Case(
        "train",
        f"out/model: {INPUT} (--model.init_from); give --training.output",
        "--model.init_from out/model --training.overwrite true",
        write("out/run.json", "{}"),
    ),
    Case(
        "ckpt_convert", f"model/config.json: {INPUT} (SRC)", "check model --json model/config.json"
    ),
    # Collections, judgements, runs, groups.
    Case(
        "search",
        "corpus.jsonl:21: id 'd1' was there before",
        "",
        append("c/corpus.jsonl", REPEATED),
    ),
    Case("search", "queries.jsonl:22: id 'd1' was", "", append("c/queries.jsonl", REPEATED * 2)),
    Case(
        "search",
        "corpus.jsonl:21: byte 2 of the line is not UTF-8",
        "",
        append("c/corpus.jsonl", b"{\xff}"),
    ),
    Case(
        "rerank",
        "corpus.jsonl:1: byte 1 of the line is not UTF-8",
        "",
        write("c/corpus.jsonl", '{"_id": "d1"}'.encode("utf-16")),
    ),
    Case(
        "mine",
        "qrels.train.txt:13: grade '1.5'; a whole number",
        "",
        append("c/qrels.train.txt", "q1 0 d3 1.5"),
    ),
    Case(
        "mine", "train.run:73: 5 columns; a run has 6", "", append("train.run", "q1 Q0 d19 1 0.5")
    ),
    Case("mine", "train.run: no results", "", write("train.run", "\n")),
    Case("mine", "x.gz:1: broken gzip", "--run x.gz", write("x.gz", "q1 Q0 d1 1 1 t")),
    Case(
        "rerank",
        "test.run:25: score 'nan'; a finite number",
        "",
        append("test.run", "q19 Q0 d9 1 nan t"),
    ),
    Case(
        "rerank",
        "test.run: query 'q99' is not among the queries of c;",
        "",
        append("test.run", "q99 Q0 d9 1 1 t"),
    ),
    Case(
        "rerank",
        "test.run: query 'q19' has document 'd99', which c lacks; give the collection",
        "",
        append("test.run", "q19 Q0 d99 1 1 t"),
    ),
    Case("evaluate", "dev: the run and the qrels share no query", "--runs dev.run"),
    Case(
        "train",
        "groups.jsonl:13: lacks positive_id",
        "",
        append("groups.jsonl", group(positive_id=None)),
    ),
    Case(
        "train",
        "groups.jsonl:13: 1 negatives; at least 3",
        "",
        append("groups.jsonl", group(negative_ids=["d1"])),
    ),
    Case("train", "groups.jsonl:13: not valid JSON", "", append("groups.jsonl", '{"query_id": ')),
    Case(
        "train",
        "groups.jsonl:1: 'pos' is empty",
        "",
        write("groups.jsonl", '{"query": "a", "pos": [], "neg": ["b"]}'),
    ),
    Case("train", "split 'dve': c holds neither", "--dev.run dev.run --dev.split dve"),
    Case(
        "encode_documents",
        "test.run:25: 5 columns",
        "--runs test.run",
        append("test.run", "q1 Q0 d19 1 0.5"),
    ),
    Case(
        "rerank",
        "document_states: got s with groups; states serve runs",
        "--document-states s --run null --groups groups.jsonl",
    ),
    Case(
        "rerank",
        "document_states: got s with long_documents maxp; a state is that of",
        "--document_states s --long_documents maxp",
    ),
    Case("rerank", "verify_states: got false; it goes with", "--verify_states false"),
    Case("rerank", "states_memory_gb: got 1.0; it goes with", "--states_memory_gb 1"),
    Case(
        "rerank",
        "states_memory_gb: got -1.0; a number of GB",
        "--document_states s --states_memory_gb -1",
    ),
    Case("rerank", "run, groups: neither is given; give --run or --groups", "--run null"),
    Case("rerank", "run, groups: both are given; give one", "--groups groups.jsonl"),
    Case("evaluate", "runs: got a.run,b.run; blanks are needed between", "--runs a.run,b.run"),
    # Models.
    Case(
        "rerank",
        "1 missing: classifier.bias; the weights must fit",
        "",
        weigh("classifier.bias", lambda _: None),
    ),
    Case(
        "rerank",
        "classifier.bias is (2,), needs (1,)",
        "",
        weigh("classifier.bias", lambda bias: np.repeat(bias, 2)),
    ),
    Case(
        "rerank",
        "'classifier.bias': 1 of 1 values are NaN",
        "",
        weigh("classifier.bias", lambda bias: bias * np.nan),
    ),
    Case(
        "train",
        "'classifier.bias': 1 of 1 values are NaN",
        "",
        weigh("classifier.bias", lambda bias: bias * np.nan),
    ),
    Case("ckpt_convert", "needs (30522, 32)", "export model out", configure(hidden_size=32)),
    Case("rerank", "model_type is 'brt'; supported are", "", configure(model_type="brt")),
    Case(
        "rerank",
        "template: got 'pear'; did you mean 'pair'?",
        "",
        configure("jaxrank", template="pear"),
    ),
    Case("rerank", "damaged, or not a safetensors file", "", write(WEIGHTS, b"\x80" * 99)),
    Case("rerank", "holds no tokenizer", "", remove("model/tokenizer.json")),
    Case("rerank", "family: 'bert' has no document states: its encoder", "--document_states s"),
    Case("encode_documents", "family: 'bert' has no document states: its encoder"),
    Case(
        "ckpt_convert",
        "the tokenizer has 50277 ids, the model's embedding 30522 rows",
        "import model out --tokenizer {neox}",
    ),
]


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() if p.is_file() else b"" for p in folder.rglob("*")}


@pytest.mark.parametrize(
    "case", CASES, ids=lambda case: f"{case.command}-{case.words.partition(';')[0]}"
)
def test_bad_input_is_one_line_with_status_2_and_writes_nothing(
    case: Case,
    folder: Path,
    neox_tokenizer_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if case.change is not None:
        case.change(folder)
    before = snapshot(folder)
    options = f"{OPTIONS[case.command]} {case.options}".format(neox=neox_tokenizer_folder)
    assert call(monkeypatch, case.command, options) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert case.words in error
    assert snapshot(folder) == before


def call(monkeypatch: pytest.MonkeyPatch, command: str, options: str) -> int:
    """Exit status of the command, run as from a shell."""
    monkeypatch.setattr(sys, "argv", [command, *options.split()])
    monkeypatch.setattr(os, "_exit", sys.exit)
    with pytest.raises(SystemExit) as exit_status:
        run(MAINS[command])
    return int(exit_status.value.code or 0)


def save_at_once(
    state: TrainState,
    _step: object,
    _batches: object,
    config: LoopConfig,
    *,
    log: Callable[[int, dict[str, float]], None],
    save_model: Callable[[int, object], None],
    **_: object,
) -> TrainState:
    """In place of `train`, where its steps do not matter and their compilation would take long."""
    log(config.total_steps, {"loss": 1.0, "dev/RR@10": 1.0, "dev/nDCG@10": 1.0})
    save_model(config.total_steps, state)
    return state


def test_odd_but_usable_input_is_taken_and_counted(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Byte-order marks, gzip, an empty document and a huge one, queries without candidates."""
    long = json.dumps({"_id": "d21", "text": "flu " * 250_000})
    append("c/corpus.jsonl", f'{{"_id": "d20", "text": ""}}\n{long}\n')(folder)
    lines = (folder / "test.run").read_text().splitlines(keepends=True)
    lines = [line for line in lines if not line.startswith("q19")]
    lines += ["q16 Q0 d20 1 1 t\n", "q16 Q0 d21 1 1 t\n"]
    replace(folder / "test.run.gz", gzip.compress("".join(lines).encode()))
    replace(folder / "groups.jsonl.gz", gzip.compress((folder / "groups.jsonl").read_bytes()))
    write("dev.run", "q12 Q0 d13 1 1 t\n")(folder)
    for name in ("c/corpus.jsonl", "c/queries.jsonl", "c/qrels.test.txt", "train.run", "dev.run"):
        replace(folder / name, b"\xef\xbb\xbf" + (folder / name).read_bytes())
    monkeypatch.setattr(training_run, "train", save_at_once)
    said = {
        "search": "22 documents indexed in memory",
        "mine --output mined": "12 groups of 12 queries",
        "rerank --run test.run.gz --output reranked": ", 1 empty documents",
        "evaluate --runs reranked": "reranked: 1 of 4 queries are not in the run and count 0",
        "train --data.groups groups.jsonl.gz --dev.run dev.run --training.output trained": (
            "3 of 4 dev queries have no candidates in dev.run and count 0"
        ),
    }
    for arguments, words in said.items():
        command, _, options = arguments.partition(" ")
        assert call(monkeypatch, command, f"{OPTIONS[command]} {options}") == 0
        assert words in capsys.readouterr().out
    assert read_run(folder / "reranked")["q16"].keys() >= {"d20", "d21"}


@pytest.mark.parametrize(
    ("command", "owner", "method"), [("search", Bm25, "results"), ("rerank", Scorer, "score")]
)
def test_ctrl_c_leaves_the_earlier_run(
    command: str,
    owner: type,
    method: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write("out", "earlier")(folder)
    before = snapshot(folder)
    monkeypatch.setattr(owner, method, lambda *_, **__: signal.raise_signal(signal.SIGINT))
    assert call(monkeypatch, command, OPTIONS[command]) == 130
    assert capsys.readouterr().err == (
        "interrupted: no unfinished file passes for whole; the same command can be run again\n"
    )
    assert snapshot(folder) == before


def test_ctrl_c_leaves_milestones_and_a_checkpoint_of_a_training(folder: Path) -> None:
    options = f"{OPTIONS['train']} --training.steps 30000 --training.milestones 3000".split()
    root = Path(__file__).resolve().parents[2]
    environment = os.environ | {"PYTHONPATH": str(root), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "jaxrank.train", *options]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        milestone = folder / "out/milestones/step-000010"
        while not milestone.exists() and process.poll() is None:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        error = process.communicate(timeout=60)[1]
    assert process.returncode == EXIT_STOPPED, error
    assert error.splitlines()[-1].startswith("stopped a")
    assert error.endswith("the same command goes on from there\n")
    assert list(folder.glob("out/checkpoints/step-*"))
    assert "Traceback" not in error
    assert load(milestone).config.family == "bert"
    assert not list(folder.rglob(".*"))


@pytest.mark.parametrize(
    ("command", "options", "target"),
    [
        ("ckpt_convert", "import model out --replace", "out"),
        ("train", "--training.overwrite true", "out/model"),
    ],
)
def test_a_full_disk_leaves_the_earlier_model(
    command: str,
    options: str,
    target: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for source in (folder / "model").iterdir():
        replace(folder / target / source.name, source.read_bytes())
    write("out/run.json", "{}")(folder)
    monkeypatch.setattr(training_run, "train", save_at_once)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        assert call(monkeypatch, command, f"{OPTIONS[command]} {options}") == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: {target}: ")
    assert "File too large" in error
    assert (folder / target / "model.safetensors").read_bytes() == (folder / WEIGHTS).read_bytes()
    assert not list(folder.rglob(".*"))
