"""python -m jaxrank says which commands there are."""

import importlib
from pathlib import Path

import pytest

from jaxrank import __main__ as jaxrank_main
from jaxrank.errors import InputError

ROOT = Path(__file__).resolve().parents[2]


def test_every_command_is_listed_with_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    jaxrank_main.main([])
    lines = capsys.readouterr().out.splitlines()
    commands = {
        path.stem
        for path in (ROOT / "jaxrank").glob("*.py")
        if path.stem != "__main__" and "    run(main)\n" in path.read_text()
    }
    assert set(jaxrank_main.COMMANDS) == commands
    for name, line in zip(jaxrank_main.COMMANDS, lines, strict=False):
        assert line == str(importlib.import_module(f"jaxrank.{name}").__doc__).splitlines()[0]
        assert line.startswith(f"python -m jaxrank.{name}: ")
    assert lines[len(commands)].startswith("python -m ckpt_convert ")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("serch", r"serch: unknown command; did you mean python -m jaxrank.search\?"),
        ("quux", r"quux: unknown command; see python -m jaxrank"),
        ("search", r"search: write python -m jaxrank.search"),
    ],
)
def test_a_word_behind_it_is_refused_with_what_to_write(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        jaxrank_main.main([name])
