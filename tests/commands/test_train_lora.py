"""python -m jaxrank.train with low-rank adapters, from a checkpoint to folders that others read."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import jaxrank
from ckpt_convert.__main__ import main as convert
from ckpt_convert.load import load
from ckpt_convert.save import save
from jaxrank import train
from jaxrank.errors import InputError
from jaxrank.models.bert import BertConfig
from jaxrank.models.module import RerankerConfig, parameter_shapes, parameters
from jaxrank.ranking import scoring
from jaxrank.text.templates import TextConfig
from jaxrank.text.tokenize import load_tokenizer
from jaxrank.training.metrics import read_metrics


@pytest.fixture
def base(tmp_path: Path, bert_tokenizer_folder: Path) -> Path:
    """A BERT of one layer that stands for a published checkpoint."""
    backbone = BertConfig(hidden_size=16, num_layers=1, num_heads=2, intermediate_size=32)
    config = RerankerConfig("bert", backbone, "classification")
    random = np.random.default_rng(0)
    values = {
        path: random.normal("norm.weight" in path, 0.1, spec.shape).astype(np.float32)
        for path, spec in parameter_shapes(config).items()
    }
    return save(
        tmp_path / "base",
        config=config,
        parameters=values,
        tokenizer=load_tokenizer(bert_tokenizer_folder),
        text=TextConfig("pair", max_length=16),
    )


@pytest.fixture
def arguments(base: Path, tmp_path: Path, medquad_mini: Path) -> list[str]:
    """Two steps on the first groups of medquad-mini, and a dev measure at the end."""
    groups, run = tmp_path / "groups.jsonl", tmp_path / "dev.run"
    judged = (medquad_mini / "qrels.train.txt").read_text().splitlines()
    positives = dict(line.split()[0:3:2] for line in judged)
    ids = list(positives.values())
    lines = [
        {"query_id": query, "positive_id": positive, "negative_ids": [ids[number - 1]]}
        for number, (query, positive) in enumerate(positives.items())
    ]
    groups.write_text("".join(json.dumps(line) + "\n" for line in lines[1:5]))
    dev = (medquad_mini / "qrels.dev.txt").read_text().split()
    run.write_text(f"{dev[0]} Q0 {dev[2]} 1 2.0 x\n{dev[0]} Q0 {ids[0]} 2 1.0 x\n")
    return [
        *("--model.init_from", str(base), "--data.collection", str(medquad_mini)),
        *("--data.groups", str(groups), "--data.negatives", "1", "--data.groups_per_batch", "2"),
        *("--dev.run", str(run), "--dev.queries", "null", "--optimizer.warmup_steps", "0"),
        *("--optimizer.learning_rate", "0.05", "--training.tensorboard", "false"),
        *("--training.steps", "2", "--training.milestones", "1"),
        *("--training.output", str(tmp_path / "run"), "--lora.rank", "4"),
    ]


def test_a_run_leaves_the_merged_model_and_the_adapters_alone(
    arguments: list[str],
    base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    given = []

    def spy(scorer: scoring.Scorer, pairs: object, **options: object) -> np.ndarray:
        given.append(options["parameters"])
        return score(scorer, pairs, **options)

    score = scoring.Scorer.score
    monkeypatch.setattr(scoring.Scorer, "score", spy)
    train.main(arguments)
    monkeypatch.undo()
    printed = capsys.readouterr().out
    assert "lora: adapters of rank 4 in query, key, value, output, up, down; with the" in printed
    assert "1,185 numbers are trained, 0.24% of the model's" in printed
    model = tmp_path / "run" / "model"
    before, merged = load(base).parameters, load(model).parameters
    moved = {path for path, value in merged.items() if np.any(value != before[path])}
    kernels = {path for path in before if "stacked" in path and path.endswith("kernel")}
    assert moved == kernels | {path for path in before if path.startswith("head.")}
    # What was measured is the model that was saved.
    assert "lora" not in str(given[0])
    up = given[0]["backbone"]["layers"]["stacked"]["feed_forward"]["up"]["kernel"]
    name = "backbone.layers.stacked.feed_forward.up.kernel"
    np.testing.assert_array_equal(jnp.asarray(up.get_value()), merged[name])
    assert "dev/RR@10" in read_metrics(tmp_path / "run")[-1]
    # The adapters alone, over their base, are that model; by the command too.
    adapter = model / "adapter"
    settings = json.loads((adapter / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == str(base)
    assert sum(file.stat().st_size for file in adapter.glob("*.safetensors")) < 20_000
    whole, alone = load(model), jaxrank.Reranker.from_pretrained(adapter)
    assert (alone.text, alone.config) == (whole.text, whole.config)
    for path, value in parameters(alone.module).items():
        np.testing.assert_allclose(value, merged[path], atol=1e-6)
    moved_base = base.rename(tmp_path / "elsewhere")
    again = tmp_path / "again"
    with pytest.raises(InputError, match=r"its base: .*base.*name the model .* --base"):
        convert(["import", str(adapter), str(again)])
    convert(["import", str(adapter), str(again), "--base", str(moved_base)])
    for path, value in load(again).parameters.items():
        np.testing.assert_allclose(value, merged[path], atol=1e-6)


RANDOM_START = ["--model.init_from=null", "--model.family=bert", "--model.preset=bert-tiny"]
RANDOM_START.append("--model.tokenizer=x")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--lora.targets", "[querry]"], r"lora.targets: no layer 'querry' in bert; there are"),
        (["--lora.rank", "0"], r"lora.rank: got 0; 1 to 4,096 is needed"),
        (["--lora.alpha", "0"], r"lora.alpha: got 0.0; a number above 0"),
        (["--lora.dropout", "1"], r"lora.dropout: got 1.0; a rate in"),
        (["--lora.targets", "[]"], r"lora.targets: no name"),
        (["--lora.rank", "null", "--lora.alpha", "8"], r"lora.alpha: given without lora.rank"),
        (
            RANDOM_START,
            r"lora.rank: got 4 and model.family bert; adapters change a trained model",
        ),
    ],
)
def test_options_that_cannot_be_are_refused_before_anything_is_written(
    arguments: list[str], tmp_path: Path, changes: list[str], message: str
):
    with pytest.raises(InputError, match=message):
        train.main([*arguments, *changes])
    assert not (tmp_path / "run").exists()


def test_training_from_adapters_alone_says_to_merge_them_first(arguments: list[str], base: Path):
    (base / "adapter_config.json").write_text("{}")
    (base / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"holds adapters alone; merge them first: python -m ckpt"):
        train.main(arguments)
