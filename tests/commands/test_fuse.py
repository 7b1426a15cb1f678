from pathlib import Path

import pytest

from jaxrank import evaluate, fuse
from jaxrank.errors import InputError
from jaxrank.evaluation.runs import read_run


@pytest.fixture
def runs(tmp_path: Path) -> list[str]:
    """Two runs that each find one of two relevant documents first."""
    for name, order in (("a", "xyz"), ("b", "zyx")):
        lines = [f"q{i} Q0 {d} 1 {3 - rank} t\n" for i in range(4) for rank, d in enumerate(order)]
        (tmp_path / f"{name}.run").write_text("".join(lines))
    return [str(tmp_path / "a.run"), str(tmp_path / "b.run")]


def test_the_fused_run_is_a_run(
    tmp_path: Path, runs: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "fused.run"
    fuse.main(["--runs", *runs, "--output", str(out), "--depth", "2"])
    assert "4 queries, 12 documents for them\n" in capsys.readouterr().out
    assert read_run(out)["q0"].keys() == {"x", "z"}
    assert out.read_text().splitlines()[0].startswith("q0 Q0 x 1 0.0322")
    assert out.read_text().splitlines()[0].endswith(" rrf")
    (tmp_path / "qrels.txt").write_text("q0 0 x 1\nq1 0 z 1\n")
    evaluate.main(["--qrels", str(tmp_path / "qrels.txt"), "--runs", str(out)])
    assert "0.7500" in capsys.readouterr().out


def test_weights_decide_an_interpolation(tmp_path: Path, runs: list[str]) -> None:
    for weights, first in ((["0.9", "0.1"], "x"), (["0.1", "0.9"], "z")):
        out = tmp_path / f"{first}.run"
        method = ["--method", "interpolation", "--weights", *weights, "--tag", "mine"]
        fuse.main(["--runs", *runs, "--output", str(out), *method])
        line = out.read_text().splitlines()[0].split()
        assert (line[2], line[5]) == (first, "mine")


def test_the_same_runs_give_the_same_bytes(tmp_path: Path, runs: list[str]) -> None:
    for name in ("one", "two"):
        fuse.main(["--runs", *runs, "--output", str(tmp_path / name)])
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--weights", "1"], "weights: 1 given for 2 runs"),
        (["--method", "borda"], "method: got borda; rrf or interpolation is needed"),
        (["--tag", "two words"], "tag 'two words'"),
        (["--runs", "absent.run", "b.run"], "absent.run: no such file"),
    ],
)
def test_bad_options_are_named_and_nothing_is_written(
    tmp_path: Path, runs: list[str], options: list[str], words: str
) -> None:
    out = tmp_path / "fused.run"
    with pytest.raises(InputError) as error:
        fuse.main(["--runs", *runs, "--output", str(out), *options])
    assert words in str(error.value)
    assert not out.exists()
