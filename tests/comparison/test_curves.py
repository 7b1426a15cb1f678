"""Curves: where points lie, what they tell, and how many are drawn."""

import doctest
import math
import re

import pytest

from jaxrank.comparison import curves
from jaxrank.comparison.curves import HEIGHT, WIDTH, Curve, chart, round_numbers, smooth, thin


def test_each_point_tells_its_value_and_lies_at_its_height():
    svg = chart("Loss", [Curve("a", "c0", {10: 2.0, 20: 1.0, 40: 0.5})])
    dots = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="4"><title>([^<]*)', svg)
    assert [text for *_, text in dots] == ["a, step 10: 2", "a, step 20: 1", "a, step 40: 0.5"]
    x, y = ([float(dot[axis]) for dot in dots] for axis in (0, 1))
    assert x[2] - x[1] == pytest.approx(2 * (x[1] - x[0]), abs=0.02)
    assert y[1] - y[0] == pytest.approx(2 * (y[2] - y[1]), abs=0.02)
    assert all(0 < value < WIDTH for value in x)
    assert all(0 < value < HEIGHT for value in y)


def test_a_value_that_was_not_finite_is_a_gap():
    svg = chart("Loss", [Curve("a", "c0", {1: 1.0, 2: 2.0, 3: None, 4: 1.0, 5: 2.0})])
    (path,) = re.findall(r'<path d="([^"]*)"', svg)
    assert [letter for letter in path if letter.isalpha()] == ["M", "L", "M", "L"]


@pytest.mark.parametrize("value", [0.0, 1.0, -3.0, 1e-9, 1e12])
def test_a_single_value_has_a_chart(value: float):
    svg = chart("x", [Curve("a", "c0", {0: value}), Curve("first", "shared", {0: value}, "level")])
    assert "nan" not in svg
    assert svg.count("<circle") == 1


def test_many_points_become_means_of_neighbours():
    values = {step: float(step) for step in range(1, 1001)}
    thinned = thin(values, most=100)
    assert len(thinned) == 100
    assert thinned[10] == 5.5
    assert thinned[1000] == 995.5
    assert thin(values, most=1000) == values
    assert thin({1: None, 2: None, 3: 1.0, 4: None}, most=2) == {2: None, 4: 1.0}


def test_smoothing_keeps_a_constant_and_halves_a_jump_after_its_half_life():
    constant = smooth(dict.fromkeys(range(40), 3.0) | {40: None})
    assert constant.pop(40) is None
    assert list(constant.values()) == pytest.approx([3.0] * 40)
    # 2,000 points: what is 40 of them away counts half.
    jump = smooth({step: float(step >= 1000) for step in range(2000)})
    assert jump[999] + jump[1000] == pytest.approx(1)
    assert jump[999 - 40] == pytest.approx(jump[999] / 2, rel=1e-3)
    line = smooth({step: 3.0 * step for step in range(2000)})
    assert line[1000] == pytest.approx(3000.0)


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 1.0), (0.5024, 0.5939), (-3.0, 1200.0), (1e-6, 2e-5)]
)
def test_ticks_are_few_round_and_inside(low: float, high: float):
    ticks = round_numbers(low, high)
    assert 3 <= len(ticks) <= 7
    assert low <= ticks[0] <= ticks[-1] <= high
    distance = ticks[1] - ticks[0]
    first_digit = distance / 10 ** math.floor(math.log10(distance) + 1e-9)
    assert min(abs(first_digit - digit) for digit in (1, 2, 5)) < 1e-6
    assert doctest.testmod(curves).failed == 0
