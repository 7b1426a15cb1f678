import numpy as np
import pytest

from jaxrank.data.packing import balance, pack, packing_arrays, round_up_rows, texts_per_row


def lengths_of(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


@pytest.fixture(scope="module")
def natural() -> np.ndarray:
    """Lengths like those of passages: most short, some cut at 512."""
    draw = np.random.default_rng(0)
    return np.minimum(draw.lognormal(5.0, 0.7, size=300).astype(np.int64) + 8, 512)


def test_texts_neither_overlap_nor_leave_their_row(natural: np.ndarray):
    places = pack(natural, 512)
    taken = np.zeros((places.num_rows, 512), int)
    for row, start, length in zip(places.row, places.start, natural, strict=True):
        assert start + length <= 512
        taken[row, start : start + length] += 1
    assert taken.max() == 1
    assert taken.sum() == natural.sum()
    # Texts follow one another without a gap.
    assert (np.diff(taken, axis=1) <= 0).all()


def test_texts_of_a_row_are_numbered_in_the_order_in_which_they_stand(natural: np.ndarray):
    places = pack(natural, 512)
    for row in range(places.num_rows):
        inside = np.flatnonzero(places.row == row)
        inside = inside[np.argsort(places.start[inside])]
        assert places.number[inside].tolist() == list(range(len(inside)))


def test_rows_are_hardly_more_than_tokens_need(natural: np.ndarray):
    fewest = -(-natural.sum() // 512)
    assert fewest <= pack(natural, 512).num_rows <= fewest + 1


def test_the_longest_text_goes_first_and_each_into_the_first_row_with_room():
    places = pack(lengths_of(4, 7, 3, 6, 10), 10)
    # 10 | 7 3 | 6 4
    assert places.row.tolist() == [2, 1, 1, 2, 0]
    assert places.number.tolist() == [1, 0, 1, 0, 0]
    assert places.start.tolist() == [6, 0, 7, 0, 0]


def test_equal_lengths_keep_their_order():
    assert pack(lengths_of(5, 5, 5, 5), 10).row.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("length", [1, 512])
def test_a_text_alone_takes_one_row(length: int):
    assert pack(lengths_of(length), 512).num_rows == 1


def test_nothing_takes_no_row():
    assert pack(lengths_of(), 512).num_rows == 0


def test_a_text_longer_than_a_row_is_refused():
    with pytest.raises(ValueError, match="513 tokens does not fit into rows of 512"):
        pack(lengths_of(3, 513), 512)


def test_row_counts_grow_by_an_eighth_at_most_and_are_few():
    rounded = [round_up_rows(rows) for rows in range(1, 1000)]
    for rows, result in enumerate(rounded, start=1):
        assert rows <= result < rows * 9 / 8 + 1e-9
        assert round_up_rows(result) == result
    assert len(set(rounded)) < 70
    assert set(rounded[89:110]) == {96, 104, 112}


@pytest.mark.parametrize("multiple", [1, 3, 8])
def test_row_counts_are_multiples(multiple: int):
    for rows in (0, 1, 7, 8, 9, 100):
        result = round_up_rows(rows, multiple)
        assert result % multiple == 0
        assert result >= max(rows, 1)


def test_a_row_takes_no_more_texts_than_it_has_places_for():
    lengths = lengths_of(*[2] * 40, 90)
    places = pack(lengths, 100)
    assert texts_per_row(100) == 6
    assert np.bincount(places.row).tolist() == [6] * 6 + [5]
    assert places.number.max() == 5
    assert pack(lengths, 100, texts=41).num_rows == 2


def test_arrays_say_where_texts_stand():
    lengths = lengths_of(2, 5, 3)
    arrays = packing_arrays(pack(lengths, 6), lengths, rows=3, row_length=6, texts=4)
    assert arrays["segment_ids"].tolist() == [[1] * 5 + [0], [1, 1, 1, 2, 2, 0], [0] * 6]
    assert arrays["positions"].tolist() == [[0, 1, 2, 3, 4, 0], [0, 1, 2, 0, 1, 0], [0] * 6]
    assert arrays["first"].tolist() == [[0, 0, 0, 0], [0, 3, 0, 0], [0] * 4]
    assert arrays["last"].tolist() == [[4, 0, 0, 0], [2, 4, 0, 0], [0] * 4]
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.int32)}


def test_shares_hold_equally_many_groups_and_about_equal_tokens(natural: np.ndarray):
    tokens = natural[:64]
    order = balance(tokens, 8)
    assert sorted(order) == list(range(64))
    sums = tokens[order].reshape(8, 8).sum(axis=1)
    assert sums.max() < 1.01 * sums.mean()
    # As they came, the fullest share has far more.
    assert tokens.reshape(8, 8).sum(axis=1).max() > 1.2 * sums.mean()
    for share in np.reshape(order, (8, 8)).tolist():
        assert share == sorted(share)


def test_one_share_keeps_the_order(natural: np.ndarray):
    assert balance(natural, 1) == list(range(len(natural)))
