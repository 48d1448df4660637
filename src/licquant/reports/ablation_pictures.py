"""What each row of an ablation loses, seed by seed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

import matplotlib as mpl
from matplotlib.figure import Figure

from licquant.errors import DataError
from licquant.reports.drawing import MARKERS, SERIES, STYLE, save


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
