"""scripts/results_table.py: Table 3 from run folders, ours beside the paper's."""

import json
from pathlib import Path
from typing import Any

import pytest

from jaxrank.errors import InputError
from scripts import results_table
from scripts.reproduction.papers import BEIR_SETS, BM25, TABLE_3

MEASURES = {"dev": "RR@100", "dl19": "nDCG@10", "dl20": "nDCG@10"}
FIRST_STAGE = {"dev": 0.2767, "dl19": 0.5233, "dl20": 0.5061}


def write_run(
    folder: Path,
    values: dict[str, float],
    *,
    first_stage: dict[str, float] | None = None,
    measures: dict[str, str] | None = None,
) -> Path:
    """A run folder with evaluations as `jaxrank.evaluate` writes them."""
    (folder / "evaluation").mkdir(parents=True)
    for name, value in values.items():
        measure = (measures or MEASURES)[name]
        candidates = (first_stage or FIRST_STAGE)[name]
        runs = {"bm25": about(measure, candidates), "reranked": about(measure, value)}
        content = {"queries": 43, "baseline": "bm25", "runs": runs}
        (folder / "evaluation" / f"{name}.json").write_text(json.dumps(content))
    return folder


def about(measure: str, value: float) -> dict[str, Any]:
    return {"means": {measure: value}, "intervals": {measure: [value - 0.01, value + 0.02]}}


def make(*arguments: object) -> None:
    results_table.main(list(map(str, arguments)))


def test_ours_stands_beside_the_papers_with_the_difference_and_its_interval(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    run = write_run(tmp_path / "mamba-130m", {"dev": 0.41, "dl19": 0.66, "dl20": 0.65})
    make(run)
    lines = capsys.readouterr().out.splitlines()
    cells = [cell.strip() for cell in lines[3].strip("|").split("|")]
    assert cells == [
        *("state-spaces/mamba-130m", "130M"),
        *("0.4100", "0.4089", "+0.0011 (-0.0089 +0.0211)"),
        *("0.6600", "0.6652", "-0.0052 (-0.0152 +0.0148)"),
        *("0.6500", "0.6443", "+0.0057 (-0.0043 +0.0257)"),
    ]
    assert lines[2].split("|")[3:6] == [" 0.2767 ", " 0.2767 ", " +0.0000 (-0.0100 +0.0200) "]
    assert "the paper's own noise is unknown" in lines[-1]


def test_sets_that_were_not_measured_are_dashes_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    make(write_run(tmp_path / "roberta-base", {"dev": 0.4}))
    printed = capsys.readouterr().out
    assert "| 0.4000 | 0.4006 | -0.0006 (-0.0106 +0.0194) | - | 0.6591 | - | - |" in printed
    assert "- roberta-base: not measured: DL19 nDCG@10, DL20 nDCG@10" in printed


def test_a_folder_of_run_folders_stands_for_those_in_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    write_run(tmp_path / "mamba-130m", {"dl19": 0.66})
    write_run(tmp_path / "opt-125m", {"dev": 0.38})
    (tmp_path / "t5-base" / "evaluation").mkdir(parents=True)  # killed in its first evaluation
    make(tmp_path, "--sets", "dev")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:4]] == [BM25.title, "facebook/opt-125m"]
    assert lines[5:7] == ["- left out, with no evaluation of dev: mamba-130m t5-base", lines[-1]]


def test_a_misprint_of_the_paper_is_shown_and_not_compared_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    make(write_run(tmp_path / "bert-large-uncased", {"dev": 0.42, "dl19": 0.66, "dl20": 0.65}))
    printed = capsys.readouterr().out
    assert "| 0.4200 | 0.4006 | - | 0.6600 | 0.6591 | - | 0.6500 | 0.6140 | - |" in printed
    assert "bert-large-uncased: the paper repeats roberta-base's row here, a misprint" in printed
    assert TABLE_3["bert-large-uncased"].values == TABLE_3["roberta-base"].values


def test_rows_are_in_the_papers_order_and_models_of_ones_own_come_last(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    names = ("ours", "t5-base", "bert-base-uncased")
    folders = [write_run(tmp_path / name, {"dev": 0.4}) for name in names]
    make(*folders, "--sets", "dev")
    titles = [line.split("|")[1].strip() for line in capsys.readouterr().out.splitlines()[2:6]]
    assert titles == [BM25.title, "bert-base-uncased", "T5-base", "ours"]


def test_latex_and_json_hold_the_same_values(tmp_path: Path):
    run = write_run(tmp_path / "opt-125m", {"dev": 0.38, "dl19": 0.63, "dl20": 0.61})
    outputs = [tmp_path / name for name in ("table.md", "table.tex", "table.json")]
    make(run, "--output", outputs[0], "--latex", outputs[1], "--json", outputs[2])
    latex = outputs[1].read_text()
    row = r"facebook/opt-125m & 125M & 0.3800 (0.3878) & 0.6300 (0.6377) & 0.6100 (0.6176) \\"
    assert row in latex
    assert latex.count("&") % 4 == 0
    value = json.loads(outputs[2].read_text())["rows"][1]["values"]["DL19 nDCG@10"]
    assert value["difference"] == pytest.approx(0.63 - 0.6377)
    assert value["difference_interval"] == pytest.approx([0.62 - 0.6377, 0.65 - 0.6377])
    assert "facebook/opt-125m" in outputs[0].read_text()


def test_the_mean_of_beir_is_over_all_sets_or_not_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    values = {name: index / 20 for index, name in enumerate(BEIR_SETS)}
    options = {"first_stage": values, "measures": dict.fromkeys(values, "nDCG@10")}
    whole = write_run(tmp_path / "whole", values, **options)
    part = write_run(tmp_path / "part", dict(list(values.items())[:12]), **options)
    make(part, whole, "--table", "beir")
    lines = capsys.readouterr().out.splitlines()
    last = [line.split("|")[-2].strip() for line in lines[2:5]]
    assert last == ["0.3000", "-", "0.3000"]
    assert "- part: not measured: scifact nDCG@10, mean nDCG@10" in lines


@pytest.mark.parametrize(
    ("names", "values", "message"),
    [
        (["a"], [{}], "a: holds no evaluation of dev dl19 dl20"),
        (["a", "b"], [{"dev": 0.2}, {"dev": 0.3}], "first stage differs: 0.2000 in .*a, 0.3000"),
    ],
)
def test_what_cannot_stand_in_one_table_is_refused(
    tmp_path: Path, names: list[str], values: list[dict[str, float]], message: str
):
    folders = [
        write_run(tmp_path / name, dict.fromkeys(of_first, 0.4), first_stage=of_first)
        for name, of_first in zip(names, values, strict=True)
    ]
    with pytest.raises(InputError, match=message) as error:
        make(*folders)
    assert "\n" not in str(error.value)
