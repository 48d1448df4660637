"""The figures of DynaQuant: BD-rates (to table 1), estimators of rounding (2), ablations (to tables 3 and 4), RD curves
(4), details of a picture (5), the width of each stage (6).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from licquant.errors import DataError
from licquant.evaluate.codec_results import Curve
from licquant.evaluate.widths import Widths, majority
from licquant.images import RGB
from licquant.reports.pictures import DASHES, MARKERS, SERIES, STYLE, VERMILION, line_style, points_of, save

Curves = Mapping[str, NDArray[np.floating]]


def proxies(path: str | Path, x: NDArray[np.floating], g: Curves, slopes: Curves) -> None:
    """g above, g' below, over the same x, one curve for each name; behind g, the rounding that it stands for.

    ``DataError`` if there are no curves, or the two panels do not name the same ones.
    """
    if not g or list(g) != list(slopes):
        raise DataError("every curve needs its derivative, and there must be one")
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 6.4), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True)
        above.step(x, np.floor(x + 0.5), where="post", color="#B0B0B0", linewidth=3, label="round(x)")
        for index, name in enumerate(g):
            style = {"color": SERIES[index % len(SERIES)], "linestyle": DASHES[index % len(DASHES)], "linewidth": 1.8}
            above.plot(x, g[name], label=name, **style)
            below.plot(x, slopes[name], **style)
        for axes, label in ((above, "g(x)"), (below, "g′(x)")):
            axes.set_ylabel(label)
        below.set(xlabel="x", ylim=(0, None))
        above.legend(loc="upper left")
        above.set_title("Distance-aware gradients: rounding, as the backward pass sees it", fontsize=11)
        save(figure, path)


def losses(path: str | Path, rows: Mapping[str, Mapping[float, Sequence[float]]], title: str) -> None:
    """The increase of the RD loss of every row in percent: a mark for each seed, a line at their mean.

    rows: name → λ → a loss for each seed; the same λ in every row. ``DataError`` if there are none.
    """
    if not rows or not all(rows.values()):
        raise DataError("there are no losses to draw")
    lmbdas = list(next(iter(rows.values())))
    with mpl.rc_context({**STYLE, "axes.grid.axis": "x"}):
        figure = Figure(figsize=(7.5, 1.2 + 0.5 * len(rows)), layout="constrained")
        axes = figure.subplots()
        for index, lmbda in enumerate(lmbdas):
            colour, marker = SERIES[index % len(SERIES)], MARKERS[index % len(MARKERS)]
            shift = (index - (len(lmbdas) - 1) / 2) * 0.6 / len(lmbdas)
            for place, of_lmbda in enumerate(rows.values()):
                found = of_lmbda[lmbda]
                label = f"λ = {lmbda:g}" if place == 0 else None
                axes.plot(
                    found, [place + shift] * len(found), marker, color=colour, markerfacecolor="none", label=label
                )
                axes.plot([fmean(found)] * 2, [place + shift - 0.14, place + shift + 0.14], color=colour, linewidth=2)
        axes.axvline(0, color="#808080", linewidth=0.8)
        axes.set_yticks(range(len(rows)), list(rows))
        axes.invert_yaxis()
        axes.set(xlabel="increase of the RD loss / %", title=title)
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
        save(figure, path)


def bd_rates(
    path: str | Path, families: Mapping[str, Mapping[str, float]], published: Mapping[str, Mapping[str, float]]
) -> None:
    """A row for each way, a mark for each family that has a BD-rate there; hollow, what is published.

    families, published: family → way → BD-rate in percent. ``DataError`` if no family has any.
    """
    ways = list(dict.fromkeys(way for of in families.values() for way in of))
    if not ways:
        raise DataError("there are no BD-rates to draw: each takes four checkpoints of different λ")
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.5, 1.2 + 0.45 * len(ways)), layout="constrained")
        axes = figure.subplots()
        for index, (family, rates) in enumerate(families.items()):
            colour, marker = SERIES[index % len(SERIES)], MARKERS[index % len(MARKERS)]
            shift = (index - (len(families) - 1) / 2) * 0.5 / len(families)
            for of, name, fill in (
                (rates, family, colour),
                (published.get(family, {}), f"{family}, published", "none"),
            ):
                known = [way for way in ways if way in of]
                if known:
                    places = [ways.index(way) + shift for way in known]
                    axes.plot(
                        [of[way] for way in known], places, marker, color=colour, markerfacecolor=fill, label=name
                    )
        axes.axvline(0, color="#808080", linewidth=0.8)
        axes.margins(x=0.08)
        axes.set_xscale("symlog", linthresh=1)  # RAQ's 28 % must not flatten the rest
        axes.set_yticks(range(len(ways)), ways)
        axes.invert_yaxis()
        axes.set(xlabel="BD-rate against FP32 / %")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
        save(figure, path)


def rd_panels(path: str | Path, families: Mapping[str, tuple[Curve, Sequence[Curve]]]) -> None:
    """RD curves, a panel for each family: FP32 in black, others in colour. ``DataError`` if there is none."""
    if not families:
        raise DataError("there are no curves to draw")
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.6 * len(families), 4.2), layout="constrained")
        panels = figure.subplots(1, len(families), squeeze=False)[0]
        for axes, (family, (fp32, curves)) in zip(panels, families.items(), strict=True):
            axes.plot(*points_of(fp32), "k-", marker="x", markersize=8, linewidth=1.8, label="FP32")
            for index, curve in enumerate(curves):
                axes.plot(*points_of(curve), label=curve.label, **line_style(index))
            axes.set(xlabel="rate / bits per pixel", ylabel="PSNR (RGB) / dB", title=family)
            axes.legend(loc="lower right", fontsize=8)
        save(figure, path)


def details(path: str | Path, original: RGB, families: Mapping[str, Sequence[tuple[str, RGB]]]) -> None:
    """Pictures whole, with a frame around their middle, and that enlarged below; two rows for each family.

    original: uint8 H×W×3;  families: name → captions with pictures of its size. ``DataError`` if there are none.
    """
    if not families or not all(families.values()):
        raise DataError("there are no pictures to draw")
    height, width = original.shape[:2]
    box = slice(3 * height // 8, 5 * height // 8), slice(3 * width // 8, 5 * width // 8)
    columns = 1 + max(map(len, families.values()))
    with mpl.rc_context({"font.size": 9}):
        size = (3.2 * columns, 2 * len(families) * (3.2 * height / width + 0.4))
        figure = Figure(figsize=size, layout="constrained")
        rows = figure.subplots(2 * len(families), columns, squeeze=False)
        for axes in rows.flat:
            axes.set_axis_off()
        for index, (family, pictures) in enumerate(families.items()):
            for column, (caption, rgb) in enumerate([(f"{family}\noriginal", original), *pictures]):
                whole, middle = rows[2 * index][column], rows[2 * index + 1][column]
                whole.imshow(rgb)
                corner = (box[1].start, box[0].start)
                whole.add_patch(Rectangle(corner, width // 4, height // 4, fill=False, color=VERMILION, linewidth=1.5))
                whole.set_title(caption, fontsize=9)
                middle.imshow(rgb[box], interpolation="nearest")
        save(figure, path)


COLOURS = "YlGnBu"


def chosen(path: str | Path, images: Mapping[str, Widths], title: str = "Bits chosen for each image") -> None:
    """Images × stages, each cell a width; those that differ from what most images have are framed.

    images: name → widths, of the same stages in the same order. ``DataError`` if there are none, or they differ.
    """
    found = list(images.values())
    stages = list(found[0]) if found else []
    if not stages or any(list(widths) != stages for widths in found):
        raise DataError("there are no widths to draw, or not the same stages for every image")
    table = np.array([list(widths.values()) for widths in found])
    most = np.array(list(majority(found).values()))
    with mpl.rc_context({**STYLE, "axes.grid": False, "axes.spines.left": False, "axes.spines.bottom": False}):
        figure = Figure(figsize=(2.4 + 0.7 * len(stages), 1.5 + 0.24 * len(found)), layout="constrained")
        axes = figure.subplots()
        _cells(axes, table, table != most)
        for index in range(1, len(stages)):
            if stages[index].partition(".")[0] != stages[index - 1].partition(".")[0]:
                axes.axvline(index - 0.5, color="white", linewidth=6)
        axes.set_xticks(range(len(stages)), stages)
        axes.set_yticks(range(len(found)), list(images), fontsize=8)
        axes.tick_params(length=0)
        axes.set_title(title, fontsize=11)
        save(figure, path)


def _cells(axes: Axes, table: NDArray[np.integer], framed: NDArray[np.bool_]) -> None:
    """Every cell in the colour of its width, the wider the darker, with the width in it."""
    present = np.unique(table)
    ranks = np.searchsorted(present, table)
    shades = mpl.colormaps[COLOURS](np.linspace(0.15, 0.85, len(present)))
    axes.imshow(shades[ranks], aspect="auto")
    for row, column in np.ndindex(table.shape):
        dark = 2 * ranks[row, column] > len(present) - 1
        text = axes.text(column, row, str(table[row, column]), ha="center", va="center")
        text.set(color="white" if dark else "#303030", weight="bold" if framed[row, column] else "normal")
        if framed[row, column]:
            axes.add_patch(
                Rectangle((column - 0.46, row - 0.42), 0.92, 0.84, fill=False, color=VERMILION, linewidth=1.5)
            )
