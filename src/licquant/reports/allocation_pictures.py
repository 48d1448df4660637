"""Pictures for choosing bit widths: how sensitive every layer is, and what each method loses at which size."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from licquant.errors import DataError
from licquant.reports.pictures import STYLE, line_style, save

COLOURS = "YlOrRd"
# 0.001 %: below, differences are noise of the measurement; and 10: above, every width is unusable.
FLOOR, CEILING = 1e-5, 10.0
LARGE = 0.1  # a loss beside which only a logarithmic axis shows the small ones


# --- sensitivity --------------------------------------------------------------------------------------------


def zeta_heat_map(
    path: str | Path,
    layers: Sequence[str],
    parts: Sequence[str],
    bits: Sequence[int],
    tables: Mapping[str, NDArray[np.floating]],
) -> None:
    """ζ of every layer and width: one panel for each table, on one logarithmic scale of colours.

    layers, parts: names of the L layers and the part that each belongs to
    bits:          the B widths, in the order of the columns
    tables:        name of the panel ("weights", "activations") → ζ as a fraction, [L, B]; NaN where there is
                   nothing to quantize (a product has no weights) or nothing was measured; a width of which nothing
                   is known has no column, a table of which nothing is known no panel

    The cells say ζ in percent. ``DataError`` for no layers or a table of another shape.
    """
    shape = (len(layers), len(bits))
    if 0 in shape or not tables or len(parts) != len(layers):
        raise DataError("there are no layers to draw")
    for name, table in tables.items():
        if np.shape(table) != shape:
            raise DataError(f"the table of {name} has shape {np.shape(table)}, not {shape}")
    tables = {name: table for name, table in tables.items() if not np.isnan(table).all()} or tables
    columns = {name: _columns(table) for name, table in tables.items()}
    counts = [len(kept) for kept in columns.values()]
    with mpl.rc_context({**STYLE, "axes.grid": False, "axes.spines.left": False, "axes.spines.bottom": False}):
        figure = Figure(
            figsize=(2.4 + sum(0.3 + 0.52 * count for count in counts), 1.6 + 0.27 * len(layers)),
            layout="constrained",
        )
        panels = figure.subplots(1, len(tables), sharey=True, squeeze=False, width_ratios=counts)[0]
        largest = max(float(np.nanmax(table, initial=FLOOR)) for table in tables.values())
        norm = LogNorm(FLOOR, min(max(largest, 10 * FLOOR), CEILING))
        for axes, (name, table) in zip(panels, tables.items(), strict=True):
            _heat_map(axes, np.asarray(table, float)[:, columns[name]], [bits[at] for at in columns[name]], norm)
            axes.set_title(name, fontsize=10)
            for index in range(1, len(layers)):
                if parts[index] != parts[index - 1]:
                    axes.axhline(index - 0.5, color="white", linewidth=4)
        panels[0].set_yticks(range(len(layers)), layers)
        bar = figure.colorbar(panels[0].images[0], ax=panels, extend="both", pad=0.02, aspect=35)
        bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda zeta, _: f"{100 * zeta:g} %"))
        bar.ax.minorticks_off()
        figure.suptitle("RD loss added by quantizing one layer alone, in percent", fontsize=11)
        save(figure, path)


def _columns(table: NDArray[np.floating]) -> NDArray[np.integer]:
    """Indices of those of which something is known; all where nothing is."""
    known = np.flatnonzero(~np.isnan(table).all(axis=0))
    return known if known.size else np.arange(table.shape[1])


def _heat_map(axes: Axes, zeta: NDArray[np.floating], bits: Sequence[int], norm: LogNorm) -> None:
    colours = mpl.colormaps[COLOURS].with_extremes(bad="#EDEDED")
    axes.imshow(np.maximum(zeta, FLOOR), cmap=colours, norm=norm, aspect="auto")
    for row, column in np.ndindex(zeta.shape):
        value = float(zeta[row, column])
        if not math.isnan(value):
            colour = "white" if norm(max(value, FLOOR)) > 0.68 else "#303030"
            axes.text(column, row, percent(value), ha="center", va="center", fontsize=7, color=colour)
    axes.set_xticks(range(len(bits)), [str(width) for width in bits])
    axes.set_xlabel("bits")
    axes.tick_params(length=0)


def percent(fraction: float) -> str:
    """A fraction in percent, as short as two digits allow: 0.0123 → "1.2", 0.00004 → ".004", 314.0 → "3e4"."""
    value = 100 * fraction
    if not math.isfinite(value):
        return "∞" if value > 0 else "–"
    if abs(value) < 0.0005:
        return "0"
    if abs(value) >= 9999.5:
        return f"{value:.0e}".replace("e+0", "e").replace("e+", "e")
    exponent = int(f"{value:.1e}".partition("e")[2])
    text = f"{value:.{max(0, min(3, 1 - exponent))}f}"
    return text.replace("0.", ".", 1) if abs(value) < 0.995 else text


# --- loss against bytes -------------------------------------------------------------------------------------


def pareto(
    path: str | Path,
    curves: Mapping[str, Sequence[tuple[float, float]]],
    fp32_bytes: int,
    title: str = "RD loss against the size of the artifact",
) -> None:
    """Loss against bytes: each method's points joined by a line, below them the front of all methods.

    curves:     method → (bytes of the artifact, relative increase of the RD loss as a fraction)
    fp32_bytes: of the model's parameters; a second axis says sizes in percent of it

    The front is what no other point beats in both. The loss axis is logarithmic (linear within ±0.1 %, because losses
    may be negative) if one exceeds ``LARGE`` and others are far smaller. ``DataError`` if there are no points.
    """
    points = [point for curve in curves.values() for point in curve]
    if not points:
        raise DataError("there are no points to draw")
    with mpl.rc_context({**STYLE, "axes.spines.top": True}):
        figure = Figure(figsize=(8, 5))
        axes = figure.subplots()
        axes.plot(*_stairs(points), color="#D8D8D8", linewidth=7, solid_joinstyle="round", label="best of all")
        for index, (name, curve) in enumerate(curves.items()):
            sizes, losses = zip(*sorted(curve), strict=True)
            axes.plot(np.array(sizes) / 1e6, 100 * np.array(losses), label=name, **line_style(index))
        _loss_axis(axes, np.array([loss for _, loss in points]))
        axes.margins(0.08)
        axes.set(xlabel="artifact / MB", ylabel="increase of the RD loss / %")
        megabyte_percent = 1e8 / fp32_bytes
        share = axes.secondary_xaxis(
            "top",
            functions=(
                lambda size: np.asarray(size, float) * megabyte_percent,
                lambda percentage: np.asarray(percentage, float) / megabyte_percent,
            ),
        )
        share.set_xlabel("% of FP32")
        axes.set_title(title, pad=12)
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
        save(figure, path)


def front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points (bytes, loss) that no other one equals or beats in both, by rising bytes."""
    best: list[tuple[float, float]] = []
    for point in sorted(points):
        if not best or point[1] < best[-1][1]:
            best.append(point)
    return best


def _stairs(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """The front as a staircase, in MB and percent: until a better one comes, a point's loss stays the best."""
    sizes, losses = map(list, zip(*front(points), strict=True))
    xs = [size / 1e6 for size in sizes for _ in range(2)][1:]
    ys = [100 * loss for loss in losses for _ in range(2)][:-1]
    return xs, ys


def _loss_axis(axes: Axes, losses: NDArray[np.floating]) -> None:
    if losses.max() > max(LARGE, 10 * losses.min()):  # within one decade, few ticks of a logarithm would show
        axes.set_yscale("symlog", linthresh=0.1)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda loss, _: f"{loss:g}"))
    if losses.min() <= 0 <= losses.max():
        axes.axhline(0, color="#808080", linewidth=0.8)
