"""python -m jaxrank.train, end to end on real questions with tiny models from a random start."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
import pytest
import yaml
from jax.experimental.compilation_cache.compilation_cache import reset_cache

from ckpt_convert.load import load
from jaxrank import train
from jaxrank.errors import InputError
from jaxrank.text.templates import TextConfig
from jaxrank.text.tokenize import PairTokenizer
from jaxrank.training.config import DataConfig, ModelConfig, Recipe, TrainingConfig
from jaxrank.training.metrics import read_metrics
from jaxrank.training.per_query import read_per_query
from jaxrank.training_run import data as training_data
from jaxrank.training_run import milestones
from jaxrank.training_run.start import load_start

TINY = {
    "bert": (
        "minilm-l6",
        {"num_layers": 1, "hidden_size": 16, "num_heads": 2, "intermediate_size": 32},
    ),
    "mamba": ("mamba-130m", {"num_layers": 1, "hidden_size": 16, "state_size": 4}),
}
NUM_QUERIES = 12


@pytest.fixture(scope="module")
def data(medquad_mini: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some questions of medquad-mini, each with its passage and that passage's next neighbours."""
    folder = tmp_path_factory.mktemp("data")
    lines = (medquad_mini / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
    ids = [json.loads(line)["_id"] for line in lines]
    corpus: dict[str, str] = {}
    groups, run = [], []
    for split in ("train", "dev"):
        judged = (medquad_mini / f"qrels.{split}.txt").read_text(encoding="utf-8").splitlines()
        positives = dict(line.split()[0:3:2] for line in reversed(judged))
        positives = dict(list(positives.items())[:NUM_QUERIES])
        qrels = [f"{query_id} 0 {positive_id} 1" for query_id, positive_id in positives.items()]
        write_lines(folder / f"qrels.{split}.txt", qrels)
        for query_id, positive_id in positives.items():
            start = ids.index(positive_id)
            rows = [number % len(ids) for number in range(start, start + 5)]
            corpus |= {ids[row]: lines[row] for row in rows}
            negative_ids = [ids[row] for row in rows[1:]]
            group = {"query_id": query_id, "positive_id": positive_id}
            if split == "train":
                groups.append(json.dumps(group | {"negative_ids": negative_ids}))
                continue
            for rank, document_id in enumerate([*negative_ids, positive_id], start=1):
                run.append(f"{query_id} Q0 {document_id} {rank} {-rank} first")
    write_lines(folder / "corpus.jsonl", list(corpus.values()))
    queries = (medquad_mini / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    write_lines(folder / "queries.jsonl", queries)
    write_lines(folder / "groups.jsonl", groups)
    write_lines(folder / "dev.run", run)
    return folder


def write_lines(path: Path, lines: Sequence[str]) -> None:
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def write_config(folder: Path, data: Path, tokenizer: Path, family: str = "bert") -> Path:
    preset, overrides = TINY[family]
    recipe = {
        "model": {
            "family": family,
            "preset": preset,
            "overrides": overrides,
            "head": "classification" if family == "bert" else "linear",
            "tokenizer": str(tokenizer),
        },
        "text": {"template": "pair" if family == "bert" else "paper", "max_length": 32},
        "data": {
            "collection": str(data),
            "groups": str(data / "groups.jsonl"),
            "negatives": 3,
            "groups_per_batch": 2,
        },
        "dev": {"run": str(data / "dev.run"), "queries": 6, "batch_size": 8},
        "optimizer": {"learning_rate": 1e-3, "warmup_fraction": 0.25},
        "training": {"output": str(folder / "run"), "steps": 6, "milestones": 2, "log_every": 2},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return path


@pytest.fixture(scope="module", autouse=True)
def compilation_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Compile what several tests run once, as the commands do."""
    options = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("xla")),
        "jax_persistent_cache_min_compile_time_secs": 0.1,
    }
    before = {name: getattr(jax.config, name) for name in options}
    for name, value in options.items():
        jax.config.update(name, value)
    reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    reset_cache()


@pytest.fixture
def config(tmp_path: Path, data: Path, bert_tokenizer_folder: Path) -> Path:
    return write_config(tmp_path, data, bert_tokenizer_folder)


def call(config: Path, *arguments: str) -> None:
    train.main(["--config", str(config), *arguments])


def test_a_run_folder_holds_all_that_was_promised(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    call(config, "--optimizer.learning_rate", "2e-3")
    run = tmp_path / "run"
    printed = capsys.readouterr().out
    assert str(run / "model") in printed
    assert "documents cut" in printed
    about = json.loads((run / "run.json").read_text())
    assert about["status"] == "finished"
    assert about["config"]["optimizer"]["learning_rate"] == 2e-3
    assert about["command"][-1] == "2e-3"
    assert all(len(digest) == 64 for digest in about["sha256"].values())
    assert {Path(path).name for path in about["sha256"]} >= {"corpus.jsonl", "groups.jsonl"}
    assert about["resolved"]["data.document_text"] == "title-body"
    assert "dev/RR@10" in about["results"]
    assert yaml.safe_load((run / "config.yaml").read_text()) == about["config"]
    assert list((run / "tensorboard").iterdir())
    lines = read_metrics(run)
    assert [line["step"] for line in lines if "loss" in line] == [2, 3, 4, 6]
    assert [line["step"] for line in lines if "dev/nDCG@10" in line] == [3, 6]
    assert lines[0]["first_stage/RR@10"] == pytest.approx(0.2)
    assert [path.name for path in (run / "milestones").iterdir()] == ["step-000003"]
    of_queries = {path.stem: read_per_query(path)["RR@10"] for path in (run / "dev").iterdir()}
    assert of_queries.keys() == {"first_stage", "step-000003", "step-000006"}
    assert len(of_queries["step-000006"]) == 6
    mean = sum(of_queries["step-000006"].values()) / 6
    assert mean == pytest.approx(about["results"]["dev/RR@10"])
    first, last = load(run / "milestones" / "step-000003"), load(run / "model")
    assert last.config.head == "classification"
    assert last.text.max_length == 32
    name = "backbone.layers.stacked.attention.query.kernel"
    assert np.abs(first.parameters[name] - last.parameters[name]).max() > 0
    # The resolved config alone repeats the run, to the same bits.
    again = tmp_path / "again"
    call(run / "config.yaml", "--training.output", str(again))
    repeated = load(again / "model")
    for path, value in last.parameters.items():
        np.testing.assert_array_equal(repeated.parameters[path], value)


def test_a_finished_run_is_reused_and_protected(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    short = ("--training.steps", "1", "--training.milestones", "1", "--dev.run", "null")
    call(config, *short)
    weights = tmp_path / "run" / "model" / "model.safetensors"
    written = weights.stat().st_mtime_ns
    capsys.readouterr()
    call(config, *short)
    assert "finished already" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"training.seed: 0 there, 1 now.*training.overwrite"):
        call(config, *short, "--training.seed", "1")
    assert weights.stat().st_mtime_ns == written
    call(config, *short, "--training.seed", "1", "--training.overwrite", "true")
    assert weights.stat().st_mtime_ns != written


def test_mamba_trains_with_the_papers_template(
    tmp_path: Path, data: Path, neox_tokenizer_folder: Path
):
    config = write_config(tmp_path, data, neox_tokenizer_folder, "mamba")
    call(config, "--training.steps", "2", "--text.query_length", "16")
    assert load(tmp_path / "run" / "model").config.family == "mamba"


def test_the_dev_measure_and_the_saved_model_read_texts_as_at_evaluation(
    tmp_path: Path,
    data: Path,
    neox_tokenizer_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    tokenizers = {}

    def spy(name: str, function: Callable) -> None:
        def call_and_keep(*arguments: object, **options: object) -> object:
            found = [*arguments, *options.values()]
            tokenizers[name] = next(v.text for v in found if isinstance(v, PairTokenizer))
            return function(*arguments, **options)

        monkeypatch.setattr(training_data, name, call_and_keep)

    spy("draw_sample", training_data.draw_sample)
    spy("training_batches", training_data.training_batches)
    config = write_config(tmp_path, data, neox_tokenizer_folder, "mamba")
    wordings = ["--text.template", "authors-code", "--text.max_length", "80"]
    wordings += ["--text.evaluation_template", "authors-code-evaluation"]
    call(config, *wordings, "--text.evaluation_max_length", "96", "--training.steps", "2")
    run = tmp_path / "run"
    trained = TextConfig("authors-code-decoder", max_length=80)
    evaluated = TextConfig("authors-code-decoder-evaluation", max_length=96)
    assert tokenizers == {"training_batches": trained, "draw_sample": evaluated}
    assert load(run / "model").text == evaluated
    both = "authors-code-decoder of at most 80 tokens in training.* 96 tokens at evaluation"
    assert re.search(both, capsys.readouterr().out)
    assert "authors-code-decoder of at most 80 tokens" in (run / "model/README.md").read_text()
    kept = yaml.safe_load((run / "config.yaml").read_text())["text"]
    assert (kept["template"], kept["max_length"]) == ("authors-code", 80)
    assert kept["evaluation_template"] == "authors-code-evaluation"
    # Training on uses the saved wording, since that is what the folder says.
    assert load_start(recipe_from(run / "model", data)).text == evaluated


def recipe_from(model: Path, data: Path) -> Recipe:
    return Recipe(
        model=ModelConfig(init_from=str(model)),
        data=DataConfig(groups=data / "groups.jsonl"),
        training=TrainingConfig(output=model / "again", steps=1),
    )


def test_added_markers_are_trained_from_a_checkpoint_and_from_a_random_start(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    plain = ("--training.steps", "1", "--training.milestones", "1", "--dev.run", "null")
    call(config, *plain)
    before = load(tmp_path / "run" / "model")
    markers = ("--text.template", "authors-code", "--training.output")
    path = "backbone.embeddings.token.embedding"
    start = [f"--model.{name}=null" for name in ("family", "preset", "tokenizer", "head")]
    start += ["--model.overrides={}", f"--model.init_from={tmp_path / 'run' / 'model'}"]
    call(config, *plain, *markers, str(tmp_path / "random"))
    call(config, *plain, *markers, str(tmp_path / "trained"), *start)
    assert "for authors-code-encoder, at random (seed 0): [query], [passage]" in (
        capsys.readouterr().out
    )
    for name in ("random", "trained"):
        model = load(tmp_path / name / "model")
        assert model.text.template == "authors-code-encoder"
        assert model.added_tokens == ()
        assert model.tokenizer.convert_tokens_to_ids(["[query]", "[passage]"]) == [30522, 30523]
        assert model.config.backbone.vocab_size == 30524
        assert model.parameters[path].shape == (30524, 16)
    # One step of warm-up from nothing moves no row by much, so the old rows are still there.
    rows = load(tmp_path / "trained" / "model").parameters[path]
    np.testing.assert_allclose(rows[:30522], before.parameters[path], atol=2e-3)
    assert np.abs(rows[30522:]).max() > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--optimizer.learning_rat", "1"], r"learning_rat.*did you mean 'learning_rate'\?"),
        (["--model.family", "bertt"], r"'bertt' is unknown.*did you mean 'bert'\?"),
        (["--model.preset", "minilm"], r"model.preset: got 'minilm'; did you mean 'minilm-l6'\?"),
        (["--model.overrides", "{num_layer: 2}"], r"overrides.num_layer: .*'num_layers'"),
        (["--model.overrides", "{num_heads: two}"], r"overrides.num_heads: got 'two'"),
        (["--model.overrides", "{vocab_size: 99}"], r"model.tokenizer: has 30522 tokens.* 99 rows"),
        (["--text.max_length", "513"], r"text.max_length: got 513; the model has 512 positions"),
        (["--text.evaluation_max_length", "768"], r"evaluation_max_length: got 768; .* 512 pos"),
        (["--text.evaluation_template", "authors-code"], r"to the vocabulary, which training on"),
        (["--text.template", "pear"], r"template: got 'pear'; did you mean 'pair'\?"),
        (["--data.negatives", "5"], r"groups.jsonl:1: 4 negatives; at least 5 are needed"),
        (["--data.groups", "none.jsonl"], r"none.jsonl: no such file"),
        (["--data.groups_per_batch", "13"], r"12 groups do not fill a batch of 13"),
        (["--dev.measures", '["RR10"]'], r"measure 'RR10'"),
        (["--dev.split", "tst"], r"split 'tst'.*splits there: dev, train"),
        (["--training.steps", "1"], r"training.milestones: got 2; between 1 and .*\(1\)"),
        (["--training.steps", "few"], r"training.steps"),
        (["--optimizer.warmup_steps", "3"], r"warmup_steps, optimizer.warmup_fraction: both"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    config: Path, tmp_path: Path, arguments: Sequence[str], message: str
):
    with pytest.raises(InputError, match=message) as error:
        call(config, *arguments)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_ctrl_c_while_the_model_is_saved_leaves_all_that_was_and_the_next_run_goes_on(
    config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    def interrupted_save(folder: Path, **options: object) -> None:
        if folder.name == "model":
            raise KeyboardInterrupt
        save(folder, **options)

    save = milestones.save
    monkeypatch.setattr(milestones, "save", interrupted_save)
    with pytest.raises(KeyboardInterrupt):
        call(config)
    run = tmp_path / "run"
    assert json.loads((run / "run.json").read_text())["status"] == "running"
    assert load(run / "milestones" / "step-000003").config.family == "bert"
    assert len(read_metrics(run)) == 7
    monkeypatch.undo()
    call(config)
    assert "goes on from step 6 of 6" in capsys.readouterr().out
    assert json.loads((run / "run.json").read_text())["status"] == "finished"
    assert len(read_metrics(run)) == 7
