import pytest

from jaxrank.errors import InputError
from jaxrank.ranking.fusion import fuse_runs

A = {"q": {"x": 10.0, "y": 5.0, "z": 0.0}}
B = {"q": {"z": 1.0, "y": 0.5, "w": 0.0}}


def test_reciprocal_ranks_by_hand() -> None:
    fused = fuse_runs([A, B]).run["q"]
    expected = {"z": 1 / 63 + 1 / 61, "y": 2 / 62, "x": 1 / 61, "w": 1 / 63}
    assert fused == pytest.approx(expected)
    assert list(fused) == ["z", "y", "x", "w"]


def test_weights_multiply_each_runs_share() -> None:
    fused = fuse_runs([A, B], weights=[3.0, 0.0]).run["q"]
    assert fused == pytest.approx({"x": 3 / 61, "y": 3 / 62, "z": 3 / 63, "w": 0.0})


def test_interpolated_scores_by_hand() -> None:
    fused = fuse_runs([A, B], method="interpolation", weights=[0.25, 0.75]).run["q"]
    assert fused == pytest.approx({"z": 0.75, "y": 0.125 + 0.375, "x": 0.25, "w": 0.0})


def test_interpolation_sees_neither_scale_nor_offset_of_a_run() -> None:
    other = {"q": {document: 1000 * score - 7 for document, score in A["q"].items()}}
    first = fuse_runs([A, B], method="interpolation").run["q"]
    assert fuse_runs([other, B], method="interpolation").run["q"] == pytest.approx(first)


def test_equal_scores_count_as_the_highest() -> None:
    flat = {"q": {"x": 2.0, "y": 2.0}}
    fused = fuse_runs([flat, {"q": {"x": 1.0}}], method="interpolation").run["q"]
    assert fused == {"x": 2.0, "y": 1.0}


@pytest.mark.parametrize("scores", [(5e-324, 0.0), (1.7e308, -1.7e308)])
def test_scores_at_the_ends_of_the_range_stay_finite(scores: tuple[float, float]) -> None:
    run = {"q": {"x": scores[0], "y": scores[1]}}
    fused = fuse_runs([run, run], method="interpolation").run["q"]
    assert all(0 <= value <= 2 for value in fused.values())
    assert fused["x"] == 2.0


def test_tied_documents_rank_by_their_ids_whatever_the_order_of_lines() -> None:
    tied = {"q": {"b": 1.0, "a": 1.0, "c": 1.0}}
    turned = {"q": dict(reversed(tied["q"].items()))}
    assert list(fuse_runs([tied, tied]).run["q"]) == ["a", "b", "c"]
    assert list(fuse_runs([turned, tied]).run["q"].items()) == list(
        fuse_runs([tied, turned]).run["q"].items()
    )


def test_queries_and_documents_of_some_runs_only_are_kept_and_counted() -> None:
    fusion = fuse_runs([A | {"only": {"x": 1.0}}, B])
    assert fusion.run["only"] == pytest.approx({"x": 1 / 61})
    assert (fusion.num_queries, fusion.partial_queries) == (2, 1)
    assert (fusion.num_documents, fusion.partial_documents) == (5, 2)
    assert fusion.lines() == [
        "2 queries, 5 documents for them",
        "1 queries are in some of the runs only",
        "2 documents are in some only of the runs that have their query",
    ]
    assert len(fuse_runs([A, A]).lines()) == 1


def test_the_depth_keeps_the_best() -> None:
    fusion = fuse_runs([A, B], depth=2)
    assert list(fusion.run["q"]) == ["z", "y"]
    assert fusion.num_documents == 4


def test_three_runs_are_fused_alike() -> None:
    fused = fuse_runs([A, B, A]).run["q"]
    assert fused["x"] == pytest.approx(2 / 61)


@pytest.mark.parametrize(
    ("count", "weights", "depth", "words"),
    [
        (1, [], None, "runs: 1 given; fusion needs at least two"),
        (2, [1.0], None, "weights: 1 given for 2 runs"),
        (2, [1.0, -1.0], None, "weights: got 1.0, -1.0"),
        (2, [0.0, 0.0], None, "one of them above 0"),
        (2, [1.0, float("nan")], None, "weights: got 1.0, nan"),
        (2, [], 0, "depth: got 0"),
    ],
)
def test_bad_arguments_are_named(
    count: int, weights: list[float], depth: int | None, words: str
) -> None:
    with pytest.raises(InputError) as error:
        fuse_runs([A, B][:count], weights=weights, depth=depth)
    assert words in str(error.value)


def test_runs_of_different_splits_are_refused() -> None:
    with pytest.raises(InputError, match="no query is in all of them"):
        fuse_runs([A, {"other": {"x": 1.0}}])
