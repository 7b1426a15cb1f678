"""Curves over steps as SVG: axes with round numbers, and the value of every point on hovering."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

from jaxrank.comparison.markup import Markup, element
from jaxrank.comparison.read import Series

WIDTH, HEIGHT = 440, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 12, 36
MOST_POINTS = 200
_TICKS = 5
_MOST_DIGITS = 4
# In a smoothed curve, a neighbour that is this share of the points away counts half.
_HALF_LIFE = 0.02

Point = tuple[float, float]
Style = Literal["plain", "faint", "marked", "level"]


@dataclass(frozen=True)
class Curve:
    """One curve of a chart.

    Attributes:
        name: told on hovering.
        color: CSS class that sets the colour, see page.css.
        values: step -> value.
        style: plain; faint, behind another one; marked, with a dot at each point; or level, a
            dashed line at the height of the only value.
    """

    name: str
    color: str
    values: Series
    style: Style = "plain"


def chart(title: str, curves: Sequence[Curve]) -> Markup:
    """A chart of curves that have at least one finite value together; they are thinned."""
    curves = [replace(curve, values=thin(curve.values)) for curve in curves]
    finite = [
        (step, value)
        for curve in curves
        for step, value in curve.values.items()
        if value is not None
    ]
    scale = _Scale.fit([float(step) for step, _ in finite], [value for _, value in finite])
    return element(
        "svg",
        element("title", title),
        scale.grid(),
        *(_draw(curve, scale) for curve in curves),
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=title,
    )


def smooth(values: Series) -> Series:
    """Means over neighbours on both sides, which count the less the further away they are."""
    keep = 0.5 ** (1 / max(1.0, _HALF_LIFE * len(values)))
    before = _fading_sums(values, keep)
    after = _fading_sums(dict(reversed(values.items())), keep)
    result: Series = {}
    for step, value in values.items():
        if value is None:
            result[step] = None
        else:
            # The value itself is in both sums.
            total = before[step][0] + after[step][0] - value
            result[step] = total / (before[step][1] + after[step][1] - 1)
    return result


def thin(values: Series, *, most: int = MOST_POINTS) -> Series:
    """At most `most` points: the means of neighbours, each at the last step of its own."""
    if len(values) <= most:
        return values
    items = list(values.items())
    edges = [round(index * len(items) / most) for index in range(most + 1)]
    return {items[end - 1][0]: _mean(items[start:end]) for start, end in pairwise(edges)}


def round_numbers(low: float, high: float, *, most: int = _TICKS) -> list[float]:
    """About `most` numbers from `low` to `high` that are 1, 2 or 5 times a power of ten apart.

    >>> round_numbers(0.0, 1.0)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    distance = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.99)
    first, last = math.ceil(low / distance - 1e-6), math.floor(high / distance + 1e-6)
    return [round(number * distance, 12) for number in range(first, last + 1)]


@dataclass(frozen=True)
class _Scale:
    """From steps and values to places in the picture."""

    steps: tuple[float, float]
    values: tuple[float, float]

    @classmethod
    def fit(cls, steps: Sequence[float], values: Sequence[float]) -> "_Scale":
        low, high = min(values), max(values)
        if 0 <= low < 0.4 * high:
            low = 0.0
        margin = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
        return cls((0.0, max(*steps, 1.0)), (low if low == 0 else low - margin, high + margin))

    def x(self, step: float | int) -> float:
        low, high = self.steps
        return round(_LEFT + (WIDTH - _LEFT - _RIGHT) * (step - low) / (high - low), 2)

    def y(self, value: float) -> float:
        low, high = self.values
        return round(HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * (value - low) / (high - low), 2)

    def grid(self) -> Markup:
        parts = []
        values = round_numbers(*self.values)
        for value, label in zip(values, _labels(values), strict=True):
            y = self.y(value)
            parts.append(element("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=y, y2=y))
            parts.append(element("text", label, x=_LEFT - 7, y=y + 4, class_="end"))
        for step in round_numbers(*self.steps):
            if step == int(step):
                x = self.x(step)
                parts.append(element("text", f"{int(step):,}", x=x, y=HEIGHT - 16, class_="mid"))
        middle = (_LEFT + WIDTH - _RIGHT) / 2
        parts.append(element("text", "step", x=middle, y=HEIGHT - 2, class_="mid"))
        return element("g", *parts, class_="grid")


def _fading_sums(values: Series, keep: float) -> dict[int, tuple[float, float]]:
    """Step -> sum of the values so far and of their weights, each `keep` of the next one's."""
    total = weight = 0.0
    sums = {}
    for step, value in values.items():
        total, weight = keep * total, keep * weight
        if value is not None:
            total, weight = total + value, weight + 1
        sums[step] = (total, weight)
    return sums


def _labels(values: Sequence[float]) -> list[str]:
    """Numbers at equal distances, with the digits that tell them apart."""
    distance = min((after - before for before, after in pairwise(values)), default=1.0)
    digits = max(0, -math.floor(math.log10(distance) + 1e-9))
    if digits > _MOST_DIGITS:
        return [f"{value:.3g}".replace("e-0", "e-") for value in values]
    return [f"{value:,.{digits}f}" for value in values]


def _draw(curve: Curve, scale: _Scale) -> Markup:
    parts: list[Markup] = []
    if curve.style == "level":
        ((_, value),) = curve.values.items()
        assert value is not None, "a level has a value"
        y = scale.y(value)
        title = element("title", f"{curve.name}: {value:.4g}")
        right = WIDTH - _RIGHT
        parts.append(element("line", title, x1=_LEFT, x2=right, y1=y, y2=y))
        parts.append(element("text", curve.name, x=right, y=y - 5))
    else:
        parts.append(element("path", d=_path(curve.values, scale)))
        parts += [
            _dot(curve, step, value, scale)
            for step, value in curve.values.items()
            if value is not None
        ]
    return element("g", *parts, class_=f"curve {curve.style} {curve.color}")


def _path(values: Series, scale: _Scale) -> str:
    """Line segments; a value that was not finite leaves a gap."""
    words, pen = [], "M"
    for step, value in values.items():
        if value is None:
            pen = "M"
        else:
            words.append(f"{pen}{scale.x(step):g} {scale.y(value):g}")
            pen = "L"
    return "".join(words)


def _dot(curve: Curve, step: int, value: float, scale: _Scale) -> Markup:
    """A dot that tells its value; except under `marked` it is seen on hovering only."""
    if curve.style == "faint":
        return Markup()
    title = element("title", f"{curve.name}, step {step:,}: {value:.4g}")
    return element("circle", title, cx=scale.x(step), cy=scale.y(value), r=4)


def _mean(items: Sequence[tuple[int, float | None]]) -> float | None:
    values = [value for _, value in items if value is not None]
    return sum(values) / len(values) if values else None
