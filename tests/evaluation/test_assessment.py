from pathlib import Path

import pytest

from jaxrank.errors import InputError
from jaxrank.evaluation import assessment
from jaxrank.evaluation.assessment import assess
from jaxrank.evaluation.options import AssessmentOptions


def write(folder: Path, name: str, lines: list[str]) -> Path:
    (folder / name).write_text("".join(f"{line}\n" for line in lines))
    return folder / name


def lines_of(run: dict[str, dict[str, float]]) -> list[str]:
    return [f"{q} Q0 {d} 1 {score} t" for q, docs in run.items() for d, score in docs.items()]


def test_a_run_whose_lines_are_mixed_gives_the_same_measures(tmp_path: Path) -> None:
    qrels = write(tmp_path, "qrels.txt", [f"q{i} 0 d{i % 3} 1" for i in range(9)])
    lines = lines_of({f"q{i}": {f"d{j}": float(-j) for j in range(3)} for i in range(9)})
    tidy = write(tmp_path, "tidy.run", lines)
    mixed = write(tmp_path, "mixed.run", lines[::2] + lines[1::2])
    report = assess(AssessmentOptions(qrels, (tidy, mixed))).report
    assert report.evaluations["mixed"] == report.evaluations["tidy"]
    assert report.evaluations["tidy"].means["RR@10"] == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)


@pytest.mark.parametrize("fault", ["q8 Q0 d9 1", "q0 Q0 d0 1 5 t"])
def test_a_run_with_a_faulty_line_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    qrels = write(tmp_path, "qrels.txt", ["q0 0 d0 1"])
    path = write(tmp_path, "a.run", [*lines_of({"q0": {"d0": 1.0}}), fault])
    monkeypatch.setattr(assessment, "read_run", lambda _: pytest.fail("read as a whole"))
    with pytest.raises(InputError, match=r"a\.run:2: "):
        assess(AssessmentOptions(qrels, (path,)))


def test_beir_leaves_out_the_document_that_is_the_query(tmp_path: Path) -> None:
    qrels = write(tmp_path, "qrels.txt", ["a 0 b 1", "c 0 d 1", "e 0 f 1"])
    run = {"a": {"a": 9.0, "b": 1.0}, "c": {"d": 2.0, "x": 1.0}, "e": {"e": 1.0}}
    path = write(tmp_path, "a.run", lines_of(run))
    beir = assess(AssessmentOptions(qrels, (path,), track="beir")).report
    assert beir.evaluations["a"].per_query["nDCG@10"] == {"a": 1.0, "c": 1.0, "e": 0.0}
    assert beir.evaluations["a"].missing_queries == ("e",)
    assert "a: 2 documents with their query's own id are left out" in beir.notes()
    plain = assess(AssessmentOptions(qrels, (path,), measures="nDCG@10")).report
    assert plain.evaluations["a"].per_query["nDCG@10"]["a"] < 1.0


def test_a_track_brings_its_measures_and_notes_another_size(tmp_path: Path) -> None:
    qrels = write(tmp_path, "qrels.txt", ["q1 0 d1 1", "q1 0 d2 2", "q2 0 d1 3"])
    run = write(tmp_path, "a.run", lines_of({"q1": {"d1": 2.0, "d2": 1.0}, "q2": {"d1": 1.0}}))
    report = assess(AssessmentOptions(qrels, (run,), track="dl19-passage")).report
    assert report.evaluations["a"].means["RR(rel=2)@10"] == pytest.approx(0.75)
    assert report.evaluations["a"].means["Judged@10"] == 1.0
    assert report.notes()[0] == "dl19-passage: 2 of 43 queries: not the official set"
    document = assess(AssessmentOptions(qrels, (run,), track="dl19-document")).report
    assert document.evaluations["a"].means["RR"] == 1.0


def test_measures_and_a_track_exclude_each_other(tmp_path: Path) -> None:
    options = AssessmentOptions(tmp_path / "q", (tmp_path / "r",), measures="RR", track="beir")
    with pytest.raises(InputError, match="the track beir has its own; give --measures or --track"):
        assess(options)


def test_two_outputs_in_one_file_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = AssessmentOptions(tmp_path / "q", (tmp_path / "r",), json=out, csv=out)
    with pytest.raises(InputError, match="two outputs are to be written here"):
        assess(options)


def test_an_error_of_a_shared_split_names_the_run(tmp_path: Path) -> None:
    qrels = write(tmp_path, "qrels.txt", ["q1 0 d1 1"])
    run = write(tmp_path, "other.run", ["x Q0 d1 1 1.0 t"])
    with pytest.raises(
        InputError, match=r"run other: the run and the qrels share no query \(run: x"
    ):
        assess(AssessmentOptions(qrels, (run,)))


def test_an_error_of_a_run_file_names_the_file_once(tmp_path: Path) -> None:
    qrels = write(tmp_path, "qrels.txt", ["q1 0 d1 1"])
    run = write(tmp_path, "empty.run", [])
    with pytest.raises(InputError, match=rf"^{run}: no results"):
        assess(AssessmentOptions(qrels, (run,)))
