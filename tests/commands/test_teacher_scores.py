"""A teacher's scores, from `jaxrank.rerank --groups` through `jaxrank.train` with every loss."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import jax.numpy as jnp
import numpy as np
import pytest

from ckpt_convert.save import save
from jaxrank import rerank, train
from jaxrank.data.groups import Group, read_groups, read_training_data, write_groups
from jaxrank.errors import InputError
from jaxrank.models.bert import BertConfig
from jaxrank.models.module import RerankerConfig, init_module, parameters
from jaxrank.reranker import Reranker
from jaxrank.text.templates import TextConfig
from jaxrank.text.tokenize import load_tokenizer
from jaxrank.training.losses import LossConfig, LossName, make_loss, targets_of
from jaxrank.training.metrics import read_metrics

QUERIES = {"q0": "What is gout?", "q1": "Is asthma curable?", "q2": "causes of acne"}
DOCUMENTS = {"d0": "Gout is arthritis", "d1": "No cure", "d2": "Skin", "d3": "A disease", "d4": ""}
GROUPS = [
    Group("q0", "d0", ("d1", "d2", "d3"), labels=(3.0, 0.0, 1.0, 1.0)),
    Group("q1", "d1", ("d4", "d3", "d0"), labels=(2.0, 2.0, 0.0, 0.0)),
    Group("q2", "d2", ("d3", "d4", "d1"), labels=(1.0, 0.0, 0.0, 0.0)),
]
SIZE = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "intermediate_size": 32}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, bert_tokenizer_folder: Path) -> Path:
    """A collection, labelled groups, a tiny BERT, and the groups with that model's scores."""
    folder = tmp_path_factory.mktemp("teacher")
    (folder / "c").mkdir()
    for name, texts in (("queries", QUERIES), ("corpus", DOCUMENTS)):
        lines = [json.dumps({"_id": key, "text": text}) for key, text in texts.items()]
        (folder / "c" / f"{name}.jsonl").write_text("\n".join(lines))
    write_groups(folder / "groups.jsonl", GROUPS)
    config = RerankerConfig("bert", BertConfig(**SIZE), head="classification")
    start = parameters(init_module(config, seed=0))
    random = np.random.default_rng(0)
    save(
        folder / "model",
        config=config,
        # Larger than at a random start, so that scores differ.
        parameters={
            name: random.normal(0, 0.5, value.shape).astype(np.float32)
            for name, value in start.items()
        },
        tokenizer=load_tokenizer(bert_tokenizer_folder),
        text=TextConfig(max_length=32),
    )
    score(folder, "groups.jsonl", "scored.jsonl", "--collection", str(folder / "c"))
    return folder


def score(folder: Path, source: str, target: str, *more: str) -> None:
    files = ["--groups", str(folder / source), "--output", str(folder / target)]
    rerank.main(["--model", str(folder / "model"), *files, *more])


def scores_of(folder: Path) -> np.ndarray:
    """The model's scores of `GROUPS`, as the command wrote them."""
    return np.array([group.teacher_scores for group in read_groups(folder / "scored.jsonl")])


def test_rerank_writes_the_models_scores_beside_the_groups(folder: Path):
    groups = read_groups(folder / "scored.jsonl")
    assert [group.labels for group in groups] == [group.labels for group in GROUPS]
    assert [group.negative_ids for group in groups] == [group.negative_ids for group in GROUPS]
    pairs = [
        (QUERIES[group.query_id], DOCUMENTS[document])
        for group in groups
        for document in (group.positive_id, *group.negative_ids)
    ]
    expected = Reranker.from_pretrained(folder / "model").predict(pairs)
    scores = scores_of(folder)
    np.testing.assert_allclose(scores.ravel(), expected, rtol=1e-5)
    assert scores.std(axis=1).min() > 0.01


def test_rerank_scores_groups_by_texts_without_a_collection(folder: Path):
    line = {"query": QUERIES["q0"], "pos": ["Gout is arthritis"], "neg": ["No cure", "Skin"]}
    (folder / "texts.jsonl").write_text(json.dumps(line | {"type": "normal"}))
    score(folder, "texts.jsonl", "scored-texts.jsonl")
    (group,) = read_training_data(folder / "scored-texts.jsonl").groups
    np.testing.assert_allclose(group.teacher_scores, scores_of(folder)[0, :3], rtol=1e-5)
    assert json.loads((folder / "scored-texts.jsonl").read_text())["type"] == "normal"


def call_train(folder: Path, output: Path, groups: str, *more: str) -> None:
    options = {
        "model.init_from": folder / "model",
        "model.overrides": "{hidden_dropout: 0.0, attention_dropout: 0.0}",
        "model.head_dropout": 0.0,
        "data.collection": folder / "c",
        "data.groups": folder / groups,
        "data.negatives": 3,
        "data.groups_per_batch": len(GROUPS),
        "optimizer.warmup_fraction": 0.5,
        "training.output": output,
        "training.steps": 2,
        "training.milestones": 1,
        "training.log_every": 1,
        "training.tensorboard": "false",
    }
    train.main([*(f"--{name}={value}" for name, value in options.items()), *more])


@pytest.mark.parametrize(
    "name", [name for name in get_args(LossName) if targets_of(LossConfig(name)) is not None]
)
def test_the_first_loss_is_that_of_the_files_labels_and_scores(
    folder: Path, tmp_path: Path, name: LossName
):
    config = LossConfig(name, contrastive_weight=0.25)
    # Scores that are not the model's own, or there would be nothing to distil.
    groups = [
        Group(g.query_id, g.positive_id, g.negative_ids, g.labels, (4.0, -1.0, 0.5, float(place)))
        for place, g in enumerate(GROUPS)
    ]
    write_groups(folder / "taught.jsonl", groups)
    options = [f"--loss.name={name}", "--loss.contrastive_weight=0.25"]
    call_train(folder, tmp_path / "run", "taught.jsonl", *options)
    targets = jnp.array([getattr(group, str(targets_of(config))) for group in groups])
    expected = make_loss(config)(jnp.asarray(scores_of(folder), jnp.float32), targets)
    losses = [line["loss"] for line in read_metrics(tmp_path / "run")]
    np.testing.assert_allclose(losses[0], expected, rtol=1e-4)
    assert np.isfinite(losses).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "run, groups: neither is given; give --run or"),
        (["--groups", "groups.jsonl", "--run", "a.run"], "run, groups: both are given; give one"),
        (["--run", "a.run"], "collection: got null; a run needs the collection"),
        (["--groups", "groups.jsonl"], "groups.jsonl: groups by ids need the collection"),
        (["--groups", "groups.jsonl", "--depth", "3"], "depth: got 3; groups are scored whole"),
        (["--groups", "none.jsonl"], "none.jsonl: no such file"),
    ],
)
def test_what_cannot_be_scored_is_refused_before_the_model_is_loaded(
    folder: Path, arguments: Sequence[str], message: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(folder)
    with pytest.raises(InputError, match=message):
        rerank.main(["--model", "none", "--output", "out", *arguments])
    assert not Path("out").exists()


def test_a_loss_without_its_teacher_scores_is_refused(folder: Path, tmp_path: Path):
    message = "groups.jsonl: no teacher scores in 3 of 3 groups.* --groups .*groups.jsonl --output"
    with pytest.raises(InputError, match=message) as error:
        call_train(folder, tmp_path / "run", "groups.jsonl", "--loss.name=margin_mse")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()
