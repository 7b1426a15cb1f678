"""Options come from layers and the command line; bad ones are refused in one line."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
import yaml

from jaxrank.errors import InputError
from jaxrank.options import as_yaml, parse


@dataclass(frozen=True)
class Inner:
    """A section."""

    learning_rate: float = 1e-4
    """Peak learning rate."""
    warmup_steps: int | None = None
    """Steps of warm-up."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Two numbers."""


@dataclass(frozen=True)
class Outer:
    """What the command does."""

    collection: Path
    """Where the data is."""
    head: Literal["linear", "classification"] = "linear"
    """Which head."""
    inner: Inner = field(default_factory=Inner)
    runs: tuple[Path, ...] = ()
    """Several files."""
    text: Literal["url-title-body", "body"] | None = None
    """Which of both."""


def write_yaml(path: Path, **content: object) -> str:
    path.write_text(yaml.safe_dump(content))
    return str(path)


def test_later_layers_win_and_the_command_line_wins_over_all(tmp_path: Path) -> None:
    one = write_yaml(tmp_path / "1.yaml", collection="a", inner={"learning_rate": 1.0})
    two = write_yaml(tmp_path / "2.yaml", inner={"learning_rate": 2.0, "warmup_steps": 5})
    layers = ["--config", one, "--config", two]
    assert parse(Outer, "p", layers).inner == Inner(2.0, 5)
    key = ["--inner.learning_rate", "3"]
    for arguments in ([*layers, *key], [*key, *layers], [*key, f"--config={one}", *layers[2:]]):
        assert parse(Outer, "p", arguments) == Outer(Path("a"), inner=Inner(3.0, 5))


def test_several_values_follow_one_option() -> None:
    options = parse(Outer, "p", ["--runs", "a", "b c", "--collection", "d"])
    assert options.runs == (Path("a"), Path("b c"))


def test_several_values_follow_an_option_of_a_section(tmp_path: Path) -> None:
    arguments = ["--collection", "d", "--inner.betas", "0.5", "0.25"]
    assert parse(Outer, "p", arguments).inner.betas == (0.5, 0.25)


def test_dashes_in_names_stand_for_underscores() -> None:
    arguments = ["--collection", "a-b", "--inner.warmup-steps=3", "--inner.learning-rate", "-1"]
    assert parse(Outer, "p", arguments) == Outer(Path("a-b"), inner=Inner(-1.0, 3))


def test_the_resolved_options_read_back(tmp_path: Path) -> None:
    options = Outer(Path("a"), "classification", Inner(0.5, 3), (Path("b"),))
    (tmp_path / "config.yaml").write_text(as_yaml(options))
    assert parse(Outer, "p", ["--config", str(tmp_path / "config.yaml")]) == options


def test_attribute_docstrings_are_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(Outer, "p", ["--help"])
    shown = capsys.readouterr().out
    assert "Peak learning rate." in shown
    assert "Where the data is." in shown


def test_help_names_types_and_choices_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(Outer, "p", ["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "(required, type: a path)" in shown
    assert "Which of both. (type: url-title-body, body or null, default: null)" in shown
    assert "--runs ITEM ... Several files. (type: a list of paths (blanks" in shown
    assert "default: 0.9 0.999)" in shown
    assert "--config CONFIG YAML file with values of these options. May be given several" in shown
    assert not [leak for leak in ("<class", "Optional", "tuple", "[ITEM") if leak in shown]


def test_help_breaks_no_choice_at_its_hyphen(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for width in range(60, 100, 5):
        monkeypatch.setenv("COLUMNS", str(width))
        with pytest.raises(SystemExit):
            parse(Outer, "p", ["--help"])
        assert "url-title-body" in capsys.readouterr().out


def test_a_file_with_a_comma_in_its_name_is_one_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a,b").touch()
    assert parse(Outer, "p", ["--runs", "a,b", "--collection", "d"]).runs == (Path("a,b"),)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--colection", "a"], "--colection: unknown key 'colection'; did you mean 'collection'"),
        (["--inner.lerning_rate=1"], "did you mean 'learning_rate'"),
        (["--collection", "a", "--head", "b"], "head: got b; linear or classification is needed"),
        (["--collection", "a", "--inner.learning_rate", "x"], "learning_rate: got x; a number is"),
        (["--collection", "a", "--inner.warmup_steps", "x"], "got x; a whole number or null is"),
        (["--collection", "a", "--inner", "3"], '"inner"'),
        (
            ["--runs", "x", "--inner.betas", "1"],
            r"inner.betas: got .*; a list of 2 numbers \(blanks",
        ),
        (["--runs", "a,b"], "runs: got a,b; blanks are needed between several, as in --runs a b$"),
        (["--inner.betas", "1,2"], "as in --inner.betas 1 2$"),
        ([], "required.*collection"),
        (["--config", "nowhere.yaml"], "nowhere.yaml: no such file"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(arguments: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        parse(Outer, "p", arguments)
    assert "\n" not in str(caught.value)


def test_a_misspelt_key_in_a_layer_names_file_and_nearest(tmp_path: Path) -> None:
    path = write_yaml(tmp_path / "a.yaml", collection="a", inner={"warmup_step": 1})
    with pytest.raises(InputError, match=r"a\.yaml: inner\.warmup_step: .*'warmup_steps'"):
        parse(Outer, "p", ["--config", path])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1\nb: 2\n", r"a\.yaml:2: not valid YAML \(.*, column 2\)$"),
        ("a: \x01\n", r"a\.yaml: not valid YAML"),
        ("? [a, b]\n: 1\n", r"a\.yaml:1: not valid YAML \(.* unhashable key, column 3\)$"),
        ("collection: a\ncollection: b\n", r"a\.yaml:2: .*'collection' is there twice, column 1\)"),
        ("collection: null\n", r"a\.yaml: collection: got null; a path is needed"),
        ("inner:\n  learning_rate: null\n", r"inner\.learning_rate: got null; a number is needed"),
        ("inner:\n", r"a\.yaml: inner: got null; keys with values are needed"),
        ("inner: 3\n", r"a\.yaml: inner: got 3; keys with values are needed"),
    ],
)
def test_unfit_yaml_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        parse(Outer, "p", ["--config", str(tmp_path / "a.yaml")])
    assert "\n" not in str(caught.value)
