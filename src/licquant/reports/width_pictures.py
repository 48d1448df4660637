"""Figure 6 of DynaQuant: the width that each stage gets, image by image."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from licquant.errors import DataError
from licquant.evaluate.widths import Widths, majority
from licquant.reports.drawing import STYLE, VERMILION, save

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
