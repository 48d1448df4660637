"""Tables of a report: plain ones, coloured ones, and bars of shares. A wide one scrolls in a box of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.colors import LogNorm, to_hex

from licquant.reports.allocation_pictures import CEILING, COLOURS, FLOOR, percent
from licquant.reports.html.markup import DASH, Html, figure, join, tag, text

_SHADES = 6  # of a bar of shares, as many as the style sheet has


def table(caption: str, headings: Sequence[object], rows: Sequence[Sequence[object]]) -> Html:
    """The first cell of a row is its heading. A cell that is a ``td`` already stays what it is."""
    head = tag("thead", tag("tr", *(tag("th", heading, scope="col") for heading in headings)))
    body = tag("tbody", *(tag("tr", tag("th", row[0], scope="row"), *map(_cell, row[1:])) for row in rows))
    whole = tag("table", tag("caption", caption), head, body)
    return tag("div", whole, class_="scroll", tabindex=0, role="region", aria_label=caption)


def _cell(value: object) -> Html:
    made = text(value)
    return made if made.startswith("<td") else tag("td", made)


def facts(found: Mapping[str, object]) -> Html:
    """Names and values; a value may be markup."""
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in found.items()))


def folded(summary: object, *children: object, shown: bool = False) -> Html:
    """What is shown when somebody opens it."""
    return tag("details", tag("summary", summary), *children, open=shown)


def byte_bar(share: float, count: int) -> Html:
    """A cell: a number of bytes before a bar of its share, 0 to 1."""
    return tag("td", figure(count, ",d"), class_="bar", style=f"--share:{100 * share:.1f}%")


def shares(name: str, parts: Mapping[str, float]) -> Html:
    """One bar of several parts, and under it what each of them is; parts: name → bytes."""
    whole = sum(parts.values()) or 1
    segments, keys = [], []
    for number, (part, size) in enumerate(parts.items()):
        shade = f"shade{number % _SHADES}"
        segments.append(tag("span", class_=shade, style=f"width:{100 * size / whole:.2f}%"))
        told = join(f"{part} ", figure(size, ",.0f"), " bytes, ", figure(100 * size / whole, ".1f", " %"))
        keys.append(tag("li", tag("span", class_=f"key {shade}", aria_hidden="true"), told))
    bar = tag("div", *segments, class_="shares", aria_hidden="true")
    return tag("figure", tag("figcaption", name), bar, tag("ul", *keys, class_="keys"))


def heat_map(caption: str, layers: Sequence[str], bits: Sequence[int], zeta: Sequence[Sequence[Any]]) -> Html:
    """ζ in percent, a row each layer, a column each width of which something is known.

    zeta: as fractions, None where nothing was measured
    """
    known = [value for row in zeta for value in row if value is not None]
    norm = LogNorm(FLOOR, min(max([10 * FLOOR, *known]), CEILING), clip=True)
    shown = [at for at in range(len(bits)) if any(row[at] is not None for row in zeta)]
    rows = [[layer, *(_heat(row[at], norm) for at in shown)] for layer, row in zip(layers, zeta, strict=True)]
    return table(caption, ["layer", *(f"{bits[at]} bits" for at in shown)], rows)


def _heat(value: float | None, norm: LogNorm) -> Html:
    if value is None or not math.isfinite(value):
        return tag("td", DASH, class_="heat")
    place = float(norm(max(value, FLOOR)))
    colour = to_hex(mpl.colormaps[COLOURS](place))
    letters = "#fff" if place > 0.68 else "#222"
    number = tag("data", percent(value), value=repr(100 * value))
    return tag("td", number, class_="heat", style=f"background:{colour};color:{letters}")
