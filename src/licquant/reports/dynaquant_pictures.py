"""The figures of DynaQuant: estimators of rounding (2), ablations (to tables 3 and 4), the width of each stage (6)."""

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
from licquant.evaluate.widths import Widths, majority
from licquant.reports.pictures import DASHES, MARKERS, SERIES, STYLE, VERMILION, save

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
