"""What encoding will take is told from the model and a sample, before it begins."""

import doctest
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from jaxrank.errors import InputError
from jaxrank.models.states import StateArray
from jaxrank.state_building import estimate, figures
from jaxrank.state_building.estimate import Sample, check_disk, estimate_line, rows_to_time

FIXED = StateArray("recurrence", (2, 5))
GROWING = StateArray("keys", (2, 5), per_token=True)


def sample_of(*lengths: int, total: int) -> Sample:
    return Sample([(str(length), "") for length in lengths], list(lengths), total)


def test_bytes_are_those_of_all_documents() -> None:
    sample = sample_of(10, 30, total=1000)
    assert sample.num_bytes([FIXED], "float32") == 1000 * 4 * 10
    assert sample.num_bytes([FIXED, GROWING], "bfloat16") == 1000 * 2 * (10 + 20 * 10)


def test_seconds_grow_with_the_tokens_that_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 0.0
    calls: list[list[str]] = []

    def encode(texts: Sequence[tuple[str, str]]) -> None:
        nonlocal clock
        calls.append([name for name, _ in texts])
        # Compiled once, then each document is padded to 32 tokens.
        clock += (10.0 if len(calls) == 1 else 0.0) + 32 * len(texts) * 0.001

    monkeypatch.setattr(estimate, "perf_counter", lambda: clock)
    sample = sample_of(*[3] * 8, *[20] * 8, *[48] * 4, *[7] * 4, total=960)
    seconds = sample.seconds(encode, batch_size=8, document_budget=48)
    # Padded to 16, 32 and 48 tokens: 12, 8 and 4 of the sample's 24 documents. The work's own
    # function is timed, so that two lengths are yet to be compiled.
    computing = 0.001 * 960 * (12 * 16 + 8 * 32 + 4 * 48) / 24
    assert seconds == pytest.approx(computing + 2 * 10.0)
    assert calls[0] == calls[1]
    assert len(calls[0]) == 8
    assert "48" not in calls[0], "documents of middling length are timed"


@pytest.mark.parametrize(
    ("documents", "batch_size", "rows"),
    [(15, 32, 0), (16, 32, 1), (127, 32, 1), (128, 32, 8), (512, 32, 32), (512, 4, 4), (17, 4, 1)],
)
def test_timing_computes_no_more_than_an_eighth_of_the_work(
    documents: int, batch_size: int, rows: int
) -> None:
    assert rows_to_time(documents, batch_size) == rows
    assert 2 * rows <= documents / 8


def test_too_few_documents_are_not_timed() -> None:
    def refuse(_: Sequence[tuple[str, str]]) -> None:
        raise AssertionError("computed")

    assert sample_of(3, 4, total=15).seconds(refuse, batch_size=8, document_budget=48) is None


def test_the_estimate_in_words() -> None:
    size = "2,000 documents to read, 1,409,024 bytes each: 2.8 GB"
    assert estimate_line(2000, 2000 * 1_409_024, None) == f"{size}; too few to estimate the time"
    assert estimate_line(2000, 2000 * 1_409_024, 4000.0) == (
        f"{size}; estimated 67 min, 0.5 documents/s"
    )
    assert "about 1,409,024 bytes each, by their tokens" in estimate_line(
        2000, 2000 * 1_409_024, None, is_exact=False
    )


def test_what_does_not_fit_on_the_disk_is_refused_with_the_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    def usage(path: Path) -> object:
        asked.append(path)
        return real(path)._replace(free=2_000_000)

    real = shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", usage)
    folder = tmp_path / "not" / "there"
    check_disk(folder, 2_000_000, 3)
    with pytest.raises(InputError, match=r"there: the states of 3 documents take 2\.1 MB, and its "
                       r"disk has 2\.0 MB free; make room, choose fewer documents"):  # fmt: skip
        check_disk(folder, 2_100_000, 3)
    assert asked == [tmp_path] * 2


def test_figures_are_as_their_examples_say() -> None:
    assert doctest.testmod(figures) == doctest.TestResults(failed=0, attempted=2)
