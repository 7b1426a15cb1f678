"""What a layer leaves open is refused with its reason, until something after it gives a value."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

from jaxrank.errors import InputError
from jaxrank.options import parse


@dataclass(frozen=True)
class Inner:
    """A section."""

    rate: float = 1.0
    """A number."""
    steps: int | None = None
    """A whole number."""
    betas: tuple[float, float] = (0.5, 0.5)
    """Two numbers."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """Anything."""


@dataclass(frozen=True)
class Outer:
    """What the command does."""

    folder: Path
    """Where."""
    kind: Literal["a", "b"] = "a"
    """Which."""
    project: str = "p"
    """A name."""
    inner: Inner = field(default_factory=Inner)


OPEN: dict[str, Any] = {
    "folder": {"folder": "REQUIRED"},
    "kind": {"kind": "REQUIRED: not known"},
    "project": {"project": "REQUIRED not known"},
    "inner.rate": {"inner": {"rate": "REQUIRED: not known"}},
    "inner.steps": {"inner": {"steps": "REQUIRED: not known"}},
    "inner.betas": {"inner": {"betas": [0.5, "REQUIRED: not known"]}},
    "inner.overrides.layers": {"inner": {"overrides": {"layers": "REQUIRED: not known"}}},
    "inner": {"inner": "REQUIRED: not known"},
}
GIVEN = {
    "folder": ["--folder", "x"],
    "kind": ["--kind=b"],
    "project": ["--project", "q"],
    "inner.rate": ["--inner.rate", "3"],
    "inner.steps": ["--inner.steps=3"],
    "inner.betas": ["--inner.betas", "0.1", "0.2"],
    "inner.overrides.layers": ["--inner.overrides.layers", "3"],
    "inner": ["--inner.rate", "3"],
}


def write(path: Path, **content: Any) -> str:
    path.write_text(yaml.safe_dump({"folder": "here"} | content))
    return str(path)


@pytest.mark.parametrize("key", OPEN)
def test_an_open_key_is_refused_with_file_key_reason_and_how_to_give_it(key: str, tmp_path: Path):
    layer = write(tmp_path / "a.yaml", **OPEN[key])
    with pytest.raises(InputError) as caught:
        parse(Outer, "p", ["--config", layer])
    reason = "" if key == "folder" else ": not known"
    assert str(caught.value) == f"{layer}: {key} is required (give --{key} VALUE){reason}"


@pytest.mark.parametrize("key", OPEN)
def test_the_command_line_gives_an_open_key(key: str, tmp_path: Path):
    layer = write(tmp_path / "a.yaml", **OPEN[key])
    expected = parse(Outer, "p", ["--folder=here", *GIVEN[key]])
    for arguments in (
        ["--config", layer, *GIVEN[key]],
        [*GIVEN[key], f"--config={layer}"],
    ):
        assert parse(Outer, "p", arguments) == expected


def test_a_later_layer_gives_an_open_key_and_an_earlier_one_does_not(tmp_path: Path):
    left_open = write(tmp_path / "a.yaml", inner={"rate": "REQUIRED: not known", "steps": 4})
    given = write(tmp_path / "b.yaml", inner={"rate": 2.0})
    options = parse(Outer, "p", ["--config", left_open, "--config", given])
    assert (options.inner.rate, options.inner.steps) == (2.0, 4)
    with pytest.raises(InputError, match=r"a\.yaml: inner\.rate is required"):
        parse(Outer, "p", ["--config", given, "--config", left_open])


def test_a_number_that_yaml_takes_for_text_stays_a_number_beside_an_open_key(tmp_path: Path):
    (tmp_path / "a.yaml").write_text("folder: x\nkind: REQUIRED\ninner:\n  rate: 1e-5\n")
    options = parse(Outer, "p", ["--config", str(tmp_path / "a.yaml"), "--kind", "b"])
    assert options.inner.rate == 1e-5


def test_all_open_keys_are_named_at_once_in_one_line(tmp_path: Path):
    one = write(
        tmp_path / "a.yaml", kind="REQUIRED", inner={"rate": "REQUIRED:\n  of two\n  lines"}
    )
    two = write(tmp_path / "b.yaml", project="REQUIRED")
    with pytest.raises(InputError) as caught:
        parse(Outer, "p", ["--config", one, "--config", two])
    message = str(caught.value)
    assert "\n" not in message
    assert [key in message for key in ("kind", "rate", "project")] == [True] * 3
    assert ": of two lines" in message


def test_a_misspelt_open_key_is_still_misspelt(tmp_path: Path):
    layer = write(tmp_path / "a.yaml", inner={"ratte": "REQUIRED"})
    with pytest.raises(InputError, match=r"inner\.ratte: unknown key .* 'rate'"):
        parse(Outer, "p", ["--config", layer])


def test_a_text_that_only_begins_alike_is_a_value(tmp_path: Path):
    layer = write(tmp_path / "a.yaml", project="REQUIRED_reading")
    assert parse(Outer, "p", ["--config", layer]).project == "REQUIRED_reading"


def test_help_is_given_although_keys_are_open(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    layer = write(tmp_path / "a.yaml", kind="REQUIRED")
    with pytest.raises(SystemExit):
        parse(Outer, "p", ["--config", layer, "--help"])
    assert "Which." in capsys.readouterr().out
