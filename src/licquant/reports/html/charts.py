"""Charts as inline SVG: readable without a script, which only adds the hover and the choice of curves.

Coordinates are those of the view, ``WIDTH`` × ``HEIGHT``; colours and the size of letters are the style sheet's, so
that they follow the reader's scheme and the width of the window.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from matplotlib.ticker import MaxNLocator

from licquant.reports.html.markup import Html, join, tag, text

WIDTH, HEIGHT = 640, 400
LEFT, RIGHT, TOP, BOTTOM = 96, 14, 38, 58
COLOURS, DASHES = 6, 4  # as many as the style sheet has
# Markers differ too: not everybody tells the colours apart.
_MARKERS = (
    "M-5,0a5,5 0 1,0 10,0a5,5 0 1,0 -10,0z",
    "M-4.5,-4.5h9v9h-9z",
    "M0,-6l6,6l-6,6l-6,-6z",
    "M0,-6l6,10h-12z",
    "M0,6l6,-10h-12z",
    "M-2,-6h4v4h4v4h-4v4h-4v-4h-4v-4h4z",
)
_REFERENCE_MARKER = "M-5,-5l10,10M-5,5l10,-10"
_LINEAR_BELOW = 0.1  # of an axis that is logarithmic beyond


@dataclass(frozen=True)
class Mark:
    """A point of a curve, and what is told of it."""

    x: float
    y: float
    told: str


@dataclass(frozen=True)
class Series:
    """A curve of a chart; reference: what others are compared with."""

    label: str
    marks: Sequence[Mark]
    reference: bool = False


@dataclass(frozen=True)
class Axis:
    """label: what it counts;  logarithmic: symmetrically, and linear within ±``_LINEAR_BELOW``."""

    label: str
    logarithmic: bool = False

    def at(self, value: float) -> float:
        """Where the value lies on the axis, in pixels."""
        if not self.logarithmic:
            return value
        return math.copysign(math.log10(1 + abs(value) / _LINEAR_BELOW), value)

    def ticks(self, low: float, high: float) -> list[float]:
        """Round values between the two."""
        if self.logarithmic:
            decades = [10.0**power for power in range(-1, 9)]
            return [v for v in (*(-d for d in reversed(decades)), 0.0, *decades) if low <= v <= high]
        return [float(value) for value in MaxNLocator(6).tick_values(low, high) if low <= value <= high]


def chart(series: Sequence[Series], x: Axis, y: Axis, name: str) -> Html:
    """Curves with their legend. name: what the chart shows, also for those who do not see it.

    A point whose coordinates are not finite is left out; without any other there is a sentence in the chart's place.
    """
    drawn = [Series(one.label, sorted(_finite(one.marks), key=lambda mark: mark.x), one.reference) for one in series]
    marks = [mark for one in drawn for mark in one.marks]
    if not marks:
        return tag("p", "There is no point to draw.")
    bounds_x, bounds_y = _bounds([mark.x for mark in marks], x), _bounds([mark.y for mark in marks], y)
    to_x = _scale(x, bounds_x, LEFT, WIDTH - RIGHT)
    to_y = _scale(y, bounds_y, HEIGHT - BOTTOM, TOP)
    picture = tag(
        "svg",
        _grid(x, bounds_x, to_x, y, bounds_y, to_y),
        *(_curve(one, style, to_x, to_y) for one, style in zip(drawn, _styles(drawn), strict=True)),
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="group",
        aria_label=f"{name}. Arrow keys go from point to point.",
    )
    return tag("figure", tag("figcaption", name), picture, _legend(drawn), class_="chart")


def _finite(marks: Sequence[Mark]) -> list[Mark]:
    return [mark for mark in marks if math.isfinite(mark.x) and math.isfinite(mark.y)]


def _bounds(values: Sequence[float], axis: Axis) -> tuple[float, float]:
    """Those of the values with a margin of 8 %; for equal values, what makes them the middle."""
    low, high = min(values), max(values)
    if axis.logarithmic:
        return min(2 * low, low / 2, -_LINEAR_BELOW / 4), max(2 * high, high / 2, _LINEAR_BELOW / 4)
    margin = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
    return low - margin, high + margin


def _scale(axis: Axis, bounds: tuple[float, float], start: float, end: float) -> Callable[[float], float]:
    low, high = map(axis.at, bounds)
    return lambda value: round(start + (end - start) * (axis.at(value) - low) / (high - low), 2)


def _grid(
    x: Axis,
    bounds_x: tuple[float, float],
    to_x: Callable[[float], float],
    y: Axis,
    bounds_y: tuple[float, float],
    to_y: Callable[[float], float],
) -> Html:
    parts = []
    for value in x.ticks(*bounds_x):
        at = to_x(value)
        parts += [tag("line", x1=at, x2=at, y1=TOP, y2=HEIGHT - BOTTOM)]
        parts += [tag("text", f"{value:g}", x=at, y=HEIGHT - BOTTOM + 22, text_anchor="middle")]
    for value in y.ticks(*bounds_y):
        at = to_y(value)
        parts += [tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=at, y2=at)]
        parts += [tag("text", f"{value:g}", x=LEFT - 8, y=at, dy="0.35em", text_anchor="end")]
    parts += [tag("text", x.label, x=(LEFT + WIDTH - RIGHT) / 2, y=HEIGHT - 8, text_anchor="middle")]
    parts += [tag("text", y.label, x=4, y=20)]  # above its axis, where no number is too long for it
    return tag("g", *parts, class_="grid", aria_hidden="true")


def _styles(series: Sequence[Series]) -> list[tuple[str, str]]:
    """(classes, marker) of each."""
    found, number = [], 0
    for one in series:
        if one.reference:
            found.append(("reference", _REFERENCE_MARKER))
        else:
            classes = f"colour{number % COLOURS} dash{number // COLOURS % DASHES}"
            found.append((classes, _MARKERS[number % len(_MARKERS)]))
            number += 1
    return found


def _curve(
    series: Series, style: tuple[str, str], to_x: Callable[[float], float], to_y: Callable[[float], float]
) -> Html:
    classes, marker = style
    places = [(to_x(mark.x), to_y(mark.y)) for mark in series.marks]
    lines = [tag("line", x1=a, y1=b, x2=c, y2=d, class_="curve") for (a, b), (c, d) in pairwise(places)]
    marks = [
        tag("g", tag("title", mark.told), tag("path", d=marker), class_="mark", transform=f"translate({a} {b})")
        for mark, (a, b) in zip(series.marks, places, strict=True)
    ]
    return tag("g", *lines, *marks, class_=f"series {classes}")


def _legend(series: Sequence[Series]) -> Html:
    """One line a curve, which the script can hide."""
    lines = []
    for one, (classes, marker) in zip(series, _styles(series), strict=True):
        sample = join(tag("line", x1=-14, x2=14, y1=0, y2=0, class_="curve"), tag("path", d=marker))
        swatch = tag("svg", sample, viewBox="-16 -8 32 16", class_=f"swatch series {classes}", aria_hidden="true")
        lines.append(tag("li", tag("label", tag("input", type="checkbox", checked=True), swatch, text(one.label))))
    return tag("ul", *lines, class_="legend")
