"""Models whose weights are in pytorch_model.bin: loaded, checked, imported, trained from."""

import os
from fnmatch import fnmatch
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ckpt_convert.__main__ import main
from ckpt_convert.load import load
from ckpt_convert.network import find_folder
from jaxrank.errors import InputError
from jaxrank.reranker import Reranker
from jaxrank.text.templates import TextConfig
from jaxrank.training.config import DataConfig, ModelConfig, Recipe, TrainingConfig
from jaxrank.training_run.start import load_start
from tests.ckpt_convert.hostile import Call


def as_pickle(checkpoint: Path, folder: Path) -> Path:
    """The same folder, with its weights as PyTorch users had them before safetensors."""
    checkpoint.rename(folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return folder


def test_a_model_from_a_pickle_is_the_same_model(checkpoint, tmp_path, neox_tokenizer_folder):
    folder = as_pickle(checkpoint("mamba-state-spaces"), tmp_path / "pickle")
    options = {"tokenizer": neox_tokenizer_folder, "text": TextConfig("paper", 32, 16)}
    loaded = load(folder, allow_pickle=True, **options)
    original = load(checkpoint("mamba-state-spaces"), **options)
    assert loaded.config == original.config
    for path, value in original.parameters.items():
        np.testing.assert_array_equal(loaded.parameters[path], value)
    with pytest.raises(InputError, match="--allow-pickle"):
        load(folder, **options)


def test_a_published_cross_encoder_in_a_pickle_is_checked_imported_and_scored(
    checkpoint, tmp_path, medquad_mini, capsys
):
    folder = as_pickle(checkpoint("bert-classifier"), tmp_path / "model")
    texts = ["--texts", str(medquad_mini), "--pairs", "3", "--json", str(tmp_path / "parity.json")]
    main(["check", str(folder), "--allow-pickle", *texts])
    assert "PASSED: 3 pairs" in capsys.readouterr().out
    main(["import", str(folder), str(tmp_path / "imported"), "--allow-pickle"])
    assert (tmp_path / "imported" / "model.safetensors").is_file()
    pairs = [("a query", "a document")]
    scores = Reranker.from_pretrained(folder, allow_pickle=True).predict(pairs)
    imported = Reranker.from_pretrained(tmp_path / "imported").predict(pairs)
    np.testing.assert_array_equal(scores, imported)
    with pytest.raises(InputError, match="allow_pickle=True"):
        Reranker.from_pretrained(folder)


def test_importing_a_hostile_pickle_writes_nothing(checkpoint, tmp_path):
    folder = as_pickle(checkpoint("bert-classifier"), tmp_path / "model")
    hostile = {"../../x": torch.ones(2), "b": Call(os.system, f"touch {tmp_path / 'MARK'}")}
    torch.save(hostile, folder / "pytorch_model.bin")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=r"pytorch_model\.bin: refers to posix\.system"):
        main(["import", str(folder), str(tmp_path / "imported"), "--allow-pickle"])
    # Its tensors alone do not make a model, whatever they are called.
    torch.save({"../../x": torch.ones(2)}, folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"1 not used: \.\./\.\./x"):
        main(["import", str(folder), str(tmp_path / "imported"), "--allow-pickle"])
    assert sorted(tmp_path.rglob("*")) == before


def test_a_recipe_starts_from_a_pickle_where_it_says_so(checkpoint, tmp_path):
    folder = as_pickle(checkpoint("bert-classifier"), tmp_path / "model")

    def recipe(*, allow_pickle: bool) -> Recipe:
        return Recipe(
            model=ModelConfig(init_from=str(folder), allow_pickle=allow_pickle),
            data=DataConfig(groups=tmp_path / "groups.jsonl"),
            training=TrainingConfig(output=tmp_path / "run", steps=1),
        )

    with pytest.raises(InputError, match=r"model\.allow_pickle"):
        load_start(recipe(allow_pickle=False))
    assert load_start(recipe(allow_pickle=True)).config.family == "bert"


@pytest.mark.parametrize(
    ("published", "allow_pickle", "downloads"),
    [
        ("pytorch_model.bin", False, [False]),
        ("pytorch_model.bin", True, [False, True]),
        ("model.safetensors", True, [False]),
    ],
)
def test_a_pickle_is_downloaded_only_where_it_is_allowed_and_needed(
    tmp_path, monkeypatch, published, allow_pickle, downloads
):
    asked = []

    def download(source: str, *, allow_patterns: list[str]) -> str:
        asked.append(any(fnmatch("pytorch_model.bin", pattern) for pattern in allow_patterns))
        if any(fnmatch(published, pattern) for pattern in allow_patterns):
            (tmp_path / published).touch()
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert find_folder("owner/model", allow_pickle=allow_pickle) == tmp_path
    assert asked == downloads
