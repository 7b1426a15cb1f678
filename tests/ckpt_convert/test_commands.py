import json
import re

import pytest

from ckpt_convert import parity
from ckpt_convert.__main__ import main
from ckpt_convert.load import load
from jaxrank.errors import InputError


def test_import_writes_a_folder_and_says_what_is_next(checkpoint, tmp_path, capsys):
    target = tmp_path / "model"
    main(["import", str(checkpoint("bert-bare")), str(target), "--max-length", "48"])
    lines = capsys.readouterr().out.splitlines()
    assert "bert, 3 layers" in lines[0]
    assert "note: score head started at random (seed 0): head.score" in lines
    assert lines[-1] == f"next: train it, with --model.init_from {target}"
    loaded = load(target)
    assert loaded.text.max_length == 48
    # The folder remembers that its head is a random start.
    assert loaded.fresh == (
        "head.dense.bias",
        "head.dense.kernel",
        "head.score.bias",
        "head.score.kernel",
    )


def test_import_takes_head_template_and_tokenizer(checkpoint, tmp_path, neox_tokenizer_folder):
    folder, target = checkpoint("mamba-state-spaces"), tmp_path / "model"
    options = ["--head", "linear", "--template", "ssm-rerankers", "--max-length", "100"]
    main(["import", str(folder), str(target), "--tokenizer", str(neox_tokenizer_folder), *options])
    assert load(target).text.template == "ssm-rerankers-decoder"


def test_an_unknown_template_writes_nothing(checkpoint, tmp_path):
    with pytest.raises(InputError, match="did you mean 'pair'"):
        arguments = ["--template", "pairs"]
        main(["import", str(checkpoint("bert-bare")), str(tmp_path / "model"), *arguments])
    assert not (tmp_path / "model").exists()


def test_export_says_how_pytorch_reads_it_and_replaces_only_when_told(checkpoint, tmp_path, capsys):
    source, target = str(checkpoint("bert-classifier")), tmp_path / "model"
    main(["export", source, str(target)])
    reader = f'sentence_transformers.CrossEncoder("{target}")'
    assert capsys.readouterr().out.splitlines()[-1] == f"next, in PyTorch: {reader}"
    with pytest.raises(InputError, match="holds a model already; choose another, or pass --repl"):
        main(["export", source, str(target)])
    main(["export", source, str(target), "--replace"])


def test_check_prints_a_line_a_layer_and_writes_the_certificate(
    checkpoint, medquad_mini, tmp_path, capsys
):
    path = tmp_path / "certificate.json"
    texts = ["--texts", str(medquad_mini), "--pairs", "4", "--json", str(path)]
    main(["check", str(checkpoint("bert-classifier")), *texts])
    output = capsys.readouterr().out
    assert re.findall(r"^(embeddings|layer \d|scores) ", output, re.MULTILINE) == [
        "embeddings",
        "layer 1",
        "layer 2",
        "layer 3",
        "scores",
    ]
    assert "PASSED: 4 pairs" in output
    written = json.loads(path.read_text())
    assert written["has_passed"]
    assert len(written["layers"]) == 4


def test_check_leaves_its_certificate_in_the_folder(checkpoint, medquad_mini, monkeypatch, capsys):
    folder = checkpoint("bert-classifier")
    arguments = ["check", str(folder), "--texts", str(medquad_mini), "--pairs", "2"]
    main([*arguments, "--max-length", "32"])
    assert f"wrote {folder / 'parity.json'}" in capsys.readouterr().out
    written = json.loads((folder / "parity.json").read_text())
    assert (written["texts"], written["pairs"]) == (str(medquad_mini), 2)
    monkeypatch.setattr(parity, "MOST_PARAMETERS", 1)
    with pytest.raises(InputError, match="pass --full"):
        main(arguments)
    main([*arguments, "--max-length", "32", "--full"])


def test_check_that_fails_exits_with_one(checkpoint, medquad_mini, capsys):
    texts = ["--texts", str(medquad_mini), "--pairs", "2", "--tolerance", "1e-12"]
    with pytest.raises(SystemExit) as stopped:
        main(["check", str(checkpoint("bert-classifier")), *texts])
    assert stopped.value.code == 1
    assert "FAILED" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["frob"],
        ["import", "a"],
        ["check", "a", "--odd"],
        ["check", "a", "--pairs", "0"],
        ["check", "a", "--pairs", "few"],
        ["import", "a", "b", "--replac"],
        ["import", "a", "b", "--seed", "-1"],
        ["import", "a", "b", "--seed", "4294967296"],
    ],
)
def test_a_wrong_command_line_is_an_input_error(arguments):
    with pytest.raises(InputError, match="--help"):
        main(arguments)
