"""The measurement of scale at a few hundred documents, and its arithmetic."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scripts.scale import __main__ as scale
from scripts.scale.process import measure
from scripts.scale.report import checks, extrapolate, extrapolate_mining, per_document
from scripts.scale.source import (
    RUN_FILE,
    read_articles,
    write_documents,
    write_part_of_run,
    write_training_files,
)

MIB = 2**20


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """Two articles, of three and of two passages, and one that stands alone."""
    passages = {
        "a-1": "one two",
        "a-2": "three",
        "b-1": " four\tfive ",
        "b-2": "six\n",
        "c": "seven",
    }
    rows = [json.dumps({"_id": name, "text": text}) for name, text in passages.items()]
    (tmp_path / "corpus.jsonl").write_text("\n".join(rows) + "\n")
    return tmp_path


def test_passages_are_joined_into_articles_by_the_beginning_of_their_ids(collection: Path) -> None:
    articles = read_articles(collection)
    assert articles.lengths.tolist() == [3, 3, 1]
    assert articles.words(0, 7) == b"one two three four five six seven"
    assert articles.words(2, 2) == b"three four"


def test_documents_are_stretches_of_real_text_as_long_as_real_articles(
    tmp_path: Path, medquad_mini: Path
) -> None:
    articles = read_articles(medquad_mini)
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        write_documents(tmp_path / folder, articles, documents=500, seed=3)
    text = (tmp_path / "one" / "msmarco-docs.tsv").read_bytes()
    assert text == (tmp_path / "two" / "msmarco-docs.tsv").read_bytes()
    rows = [line.split(b"\t") for line in text.splitlines()]
    assert [row[0].decode() for row in rows] == [f"D{n}" for n in range(500)]
    bodies = [row[3] for row in rows]
    assert all(body in articles.text for body in bodies)
    assert all(body.startswith(row[2]) for row, body in zip(rows, bodies, strict=True))
    lengths = np.array([len(body.split()) for body in bodies])
    assert set(lengths.tolist()) <= set(articles.lengths.tolist())
    assert lengths.mean() == pytest.approx(articles.lengths.mean(), rel=0.1)


def test_a_run_has_a_hundred_different_documents_a_query_with_the_judged_one(
    tmp_path: Path, medquad_mini: Path
) -> None:
    articles = read_articles(medquad_mini)
    write_training_files(tmp_path, articles, documents=130, queries=20, seed=0)
    run: dict[str, list[str]] = {}
    for line in (tmp_path / RUN_FILE).read_text().splitlines():
        run.setdefault(line.split()[0], []).append(line.split()[2])
    assert {len(set(found)) for found in run.values()} == {100}
    judged = [
        line.split() for line in (tmp_path / "msmarco-doctrain-qrels.tsv").read_text().splitlines()
    ]
    assert [row[0] for row in judged] == list(run)
    assert all(row[2] in run[row[0]] for row in judged)
    part = write_part_of_run(tmp_path, "part", queries=3).read_text()
    assert (tmp_path / RUN_FILE).read_text().startswith(part)
    assert len(part.splitlines()) == 300


def test_memory_of_a_command_is_its_own_and_not_that_of_the_process_that_starts_it() -> None:
    held = np.ones(100 * MIB, np.uint8)
    code = "import time; held = bytearray(40 << 20); time.sleep(0.3)"
    found = measure([sys.executable, "-c", code], folder=Path.cwd())
    assert 40 * MIB < found.peak_anonymous <= found.peak_rss < len(held)
    assert found.seconds > 0.3


def test_a_command_that_fails_is_shown_with_its_output() -> None:
    with pytest.raises(RuntimeError, match=r"status 3:\nits last words"):
        measure([sys.executable, "-c", "print('its last words'); exit(3)"], folder=Path.cwd())


def row(documents: int, seconds: float, anonymous: int = 0, rss: int = 0) -> dict[str, Any]:
    return {
        "documents": documents,
        "source_bytes": documents * 4000,
        "build_s": seconds,
        "build_cpu_s": seconds / 2,
        "build_peak_rss": rss,
        "build_peak_anonymous": anonymous,
        "store_bytes": documents * 5012,
        "index_bytes": documents * 12,
        "mining": [
            {"groups": n, "seconds": 1 + n / 1000, "peak_rss": rss, "peak_anonymous": n}
            for n in (100, 200)
        ],
    }


START = row(100, 1.0)


def test_bounds_that_are_not_kept_are_named() -> None:
    sizes = [row(1000, 2.0, rss=100 * MIB), row(10_000, 21.0, rss=2049 * MIB)]
    found = checks(START, sizes, flat_within=1.5)
    assert [check.kept for check in found] == [True, False, True, True, False, False, False]
    assert found[1].line() == ("FAIL peak RSS of building 10,000 documents, MiB: 2,049.00 of 1024")
    assert found[-1].value == pytest.approx(2.0)
    assert per_document(sizes[0], START) == pytest.approx(1e-3)


def test_a_size_between_the_smallest_and_the_largest_is_held_to_the_bound_too() -> None:
    sizes = [row(1000, 2.0), row(3000, 5.0), row(10_000, 11.0)]
    *_, middle, largest = checks(START, sizes, flat_within=1.2)
    assert (middle.kept, largest.kept) == (False, True)
    assert middle.value == pytest.approx(4 / 3)
    assert "at 3,000 documents, relative to 1,000" in middle.name


def test_larger_sets_grow_in_time_with_text_and_in_memory_with_the_index() -> None:
    sizes = [row(1000, 2.0, anonymous=500), row(10_000, 11.0, anonymous=1500)]
    msmarco, many = extrapolate(START, sizes)
    assert many["build_s"] == pytest.approx(1 + 1e-3 * 10**8)
    assert many["store_bytes"] == pytest.approx(5012 * 10**8)
    assert many["build_peak_anonymous"] == pytest.approx(1500 + 29 * (10**8 - 10_000))
    assert msmarco["build_s"] == pytest.approx(1 + 22e9 / 4e6)
    assert msmarco["index_bytes"] == pytest.approx(12 * 3_213_835)
    mining = extrapolate_mining(sizes[-1])
    assert mining is not None
    assert mining["seconds"] == pytest.approx(1 + 734.008)
    assert mining["peak_anonymous"] == pytest.approx(734_008)


def test_the_whole_script_measures_and_leaves_nothing_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    status = scale.main(
        [
            "--documents=300",
            "--groups=40",
            f"--scratch={scratch}",
            "--reads=50",
            f"--json={tmp_path / 'scale.json'}",
        ]
    )
    printed = capsys.readouterr().out
    assert status == 0, printed
    assert not list(scratch.iterdir())
    report = json.loads((tmp_path / "scale.json").read_text())
    (measured,) = report["sizes"]
    assert measured["documents"] == 300
    assert measured["store_bytes"] > measured["source_bytes"] > 300 * 1000
    assert measured["reads"]["warm"]["characters"] == measured["reads"]["cold"]["characters"] > 1000
    assert [mined["groups"] for mined in measured["mining"]] == [40]
    assert all(check["kept"] for check in report["checks"])
    assert "ok   peak RSS of building 300 documents, MiB" in printed
