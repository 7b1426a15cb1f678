from pathlib import Path

import pytest

from jaxrank.evaluation.measures import parse_measures, relevance_level
from jaxrank.evaluation.tracks import TRACKS, TrackName, track_notes


@pytest.mark.parametrize("name", TRACKS)
def test_every_track_has_measures_that_can_be_computed_and_a_source(name: TrackName) -> None:
    track = TRACKS[name]
    assert [str(measure) for measure in parse_measures(track.measures)] == list(track.measures)
    assert track.source


@pytest.mark.parametrize("name", ["dl19-passage", "dl20-passage"])
def test_binary_measures_of_dl_passage_begin_at_grade_2(name: TrackName) -> None:
    graded = ("nDCG@10", "Judged@10")
    levels = {m: relevance_level(m) for m in TRACKS[name].measures if m not in graded}
    assert levels
    assert set(levels.values()) == {2}


@pytest.mark.parametrize("name", ["dl19-document", "dl20-document", "msmarco-document-dev"])
def test_binary_measures_of_documents_begin_at_grade_1(name: TrackName) -> None:
    assert {relevance_level(measure) for measure in TRACKS[name].measures} == {1}


def test_the_first_measure_is_the_one_that_the_papers_report() -> None:
    first = {name: track.measures[0] for name, track in TRACKS.items()}
    assert first["msmarco-document-dev"] == "RR@100"
    assert first["msmarco-passage-dev"] == "RR@10"
    assert {first[name] for name in first if not name.startswith("msmarco")} == {"nDCG@10"}


@pytest.mark.parametrize(
    ("name", "num_queries"),
    [
        ("msmarco-document-dev", 5193), ("msmarco-passage-dev", 6980), ("dl19-document", 43),
        ("dl20-document", 45), ("dl19-passage", 43), ("dl20-passage", 54),
    ],
)  # fmt: skip
def test_another_number_of_queries_than_the_official_one_is_noted(
    name: TrackName, num_queries: int
) -> None:
    document = "123" if "passage" in name else "D123"

    def notes(count: int) -> list[str]:
        return track_notes(name, {f"q{i}": {document: 1} for i in range(count)})

    assert notes(num_queries) == []
    fewer = f"{name}: {num_queries - 1} of {num_queries} queries: not the official set"
    assert notes(num_queries - 1) == [fewer]
    more = f"{name}: {num_queries + 1} queries instead of {num_queries}: not the official set"
    assert notes(num_queries + 1) == [more]


def test_judgements_of_passages_are_not_taken_for_those_of_documents() -> None:
    passages = {f"q{i}": {"1017759": 1} for i in range(43)}
    (note,) = track_notes("dl19-document", passages)
    assert note.startswith("dl19-document: document ids such as '1017759': not the official set")
    assert track_notes("dl19-passage", passages) == []


def test_beir_has_sets_of_any_size() -> None:
    assert track_notes("beir", {"q": {"any-id": 1}}) == []


def test_the_guide_names_every_track_with_its_measures() -> None:
    guide = Path(__file__).resolve().parents[2] / "docs" / "evaluation.md"
    rows = [line for line in guide.read_text().splitlines() if line.startswith("| `")]
    for name, track in TRACKS.items():
        row = next(line for line in rows if line.startswith(f"| `{name}` "))
        if "as `" in row:  # the same as the year before
            row = next(line for line in rows if line.startswith(f"| `{name.replace('20', '19')}` "))
        assert " ".join(f"`{measure}`" for measure in track.measures) in row
