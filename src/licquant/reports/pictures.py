"""Pictures of results: RD curves, bits and bytes of every layer, and images side by side.

And what all pictures share: colours, markers, style, and how a figure becomes a file.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.container import BarContainer
from matplotlib.figure import Figure

from licquant.errors import DataError
from licquant.evaluate.codec_results import Curve
from licquant.evaluate.metrics import psnr
from licquant.images import RGB, write_atomically

BLUE, ORANGE, GREEN, PINK, SKY, VERMILION = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00"
SERIES = (BLUE, VERMILION, GREEN, PINK, ORANGE, SKY)
MARKERS = ("o", "s", "D", "^", "v", "P")
DASHES = ("-", "--", ":", "-.")
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E3E3E3",
    "legend.frameon": False,
    "svg.hashsalt": "licquant",  # equal input, equal file
}


def line_style(index: int) -> dict[str, Any]:
    """Colour, marker and dash of the curve of this index: 24 curves before any two look alike."""
    return {
        "color": SERIES[index % len(SERIES)],
        "marker": MARKERS[index % len(MARKERS)],
        "linestyle": DASHES[index // len(SERIES) % len(DASHES)],
        "linewidth": 1.8,
        "markersize": 6,
        "markerfacecolor": "none",  # a marker under another one stays visible
        "markeredgewidth": 1.5,
    }


def save(figure: Figure, path: str | Path) -> None:
    """Write the figure; ``DataError`` for a suffix that is none of .png, .svg, .pdf."""
    FigureCanvasAgg(figure)
    buffer = BytesIO()
    suffix = Path(path).suffix.lstrip(".").lower()
    try:
        figure.savefig(buffer, format=suffix, dpi=150, bbox_inches="tight")
    except ValueError as error:
        raise DataError(f"{path}: pictures are written as .png, .svg or .pdf") from error
    write_atomically(path, buffer.getvalue())


DIFFERENCE_GAIN = 8


@dataclass(frozen=True)
class LayerSize:
    """What quantization did to one layer; bits are 32 where it was left in floating point."""

    name: str
    part: str
    weight_bits: int
    activation_bits: int
    stored_bytes: int
    fp32_bytes: int


# --- RD curves ----------------------------------------------------------------------------------------------


def rd_curves(
    path: str | Path,
    curves: Sequence[Curve],
    reference: Curve | None = None,
) -> None:
    """PSNR over bits per pixel: the reference in black, each codec in colour. ``DataError`` if there is no curve."""
    measured = [*curves, *([reference] if reference else [])]
    if not measured:
        raise DataError("there are no curves to draw")
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 5))
        axes = figure.subplots()
        if reference:
            axes.plot(*points_of(reference), "k-", marker="x", markersize=8, linewidth=1.8, label=reference.label)
        for index, curve in enumerate(curves):
            axes.plot(*points_of(curve), label=curve.label, **line_style(index))
        _limits(axes, measured)
        title = "Rate and distortion, averages over the images"
        axes.set(xlabel="rate / bits per pixel", ylabel="PSNR (RGB) / dB", title=title)
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
        save(figure, path)


def points_of(curve: Curve) -> tuple[list[float], list[float]]:
    """Rates and PSNR of a curve, in order of rate."""
    points = sorted(curve.points, key=lambda point: point.bpp)
    return [point.bpp for point in points], [point.psnr for point in points]


def _limits(axes: Axes, curves: Sequence[Curve]) -> None:
    """Axes that hold the given curves with a margin of 15 % and at least 0.05 bpp and 0.5 dB."""
    rates, quality = (np.concatenate(values) for values in zip(*map(points_of, curves), strict=True))
    for values, margin, set_limits in ((rates, 0.05, axes.set_xlim), (quality, 0.5, axes.set_ylim)):
        if np.isfinite(values).all():
            margin = max(margin, 0.15 * float(np.ptp(values)))
            set_limits(float(values.min()) - margin, float(values.max()) + margin)


# --- layers -------------------------------------------------------------------------------------------------


def layer_bars(path: str | Path, layers: Sequence[LayerSize], title: str = "Bits and bytes of every layer") -> None:
    """A plan: bits of weights and activations of every layer, and its bytes, with its share of all stored bytes.

    Two bar charts over the same layers; the second is logarithmic, because the layers of one model differ by
    three orders of magnitude. ``DataError`` if there are no layers.
    """
    if not layers:
        raise DataError("there are no layers to draw")
    with mpl.rc_context({**STYLE, "axes.grid.axis": "y"}):
        figure = Figure(figsize=(max(7.0, 0.5 * len(layers) + 2.5), 6.5), layout="constrained")
        bits, sizes = figure.subplots(2, 1, sharex=True)
        at = np.arange(len(layers))
        width = 0.4
        for offset, widths, colour, label in (
            (-width / 2, [layer.weight_bits for layer in layers], BLUE, "weights"),
            (width / 2, [layer.activation_bits for layer in layers], ORANGE, "activations"),
        ):
            _write_above(bits, bits.bar(at + offset, widths, width, color=colour, label=label), map(str, widths))
        bits.set(ylabel="bits", title=title)
        stored = np.array([layer.stored_bytes for layer in layers])
        fp32 = np.array([layer.fp32_bytes for layer in layers])
        sizes.bar(at - width / 2, fp32 / 1000, width, color="#B0B0B0", label="FP32")
        bars = sizes.bar(at + width / 2, stored / 1000, width, color=GREEN, label="stored, and\nits share")
        _write_above(sizes, bars, (_percent(share) for share in stored / max(stored.sum(), 1)))
        sizes.set_yscale("log")
        sizes.set(ylabel="size / kB")
        sizes.set_xlim(-0.7, len(layers) - 0.3)
        sizes.set_xticks(at, [layer.name for layer in layers], rotation=90)
        for axes in (bits, sizes):
            axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
            _part_borders(axes, layers)
        save(figure, path)


def _write_above(axes: Axes, bars: BarContainer, texts: Iterable[str]) -> None:
    axes.bar_label(bars, list(texts), fontsize=7, padding=1)


def _percent(share: float) -> str:
    """Two digits are enough to see which layers matter."""
    return f"{100 * share:.0f}%" if share >= 0.095 else f"{100 * share:.1f}%"


def _part_borders(axes: Axes, layers: Sequence[LayerSize]) -> None:
    """A thin line between the parts of the model (g_a, g_s, ...)."""
    for index in range(1, len(layers)):
        if layers[index].part != layers[index - 1].part:
            axes.axvline(index - 0.5, color="#808080", linewidth=0.8)


# --- side by side -------------------------------------------------------------------------------------------


def side_by_side(path: str | Path, original: RGB, fp32: RGB, quantized: RGB) -> None:
    """Original, FP32 and quantized result, and 8 × the difference of the two results around mid-grey.

    Arrays are uint8 H×W×3 of one shape.
    """
    difference = np.clip((quantized.astype(np.int32) - fp32) * DIFFERENCE_GAIN + 128, 0, 255).astype(np.uint8)
    panels = (
        ("original\n", original),
        (f"FP32, {psnr(original, fp32):.2f} dB", fp32),
        (f"quantized, {psnr(original, quantized):.2f} dB", quantized),
        (f"{DIFFERENCE_GAIN} × (quantized - FP32)\n{psnr(fp32, quantized):.2f} dB apart", difference),
    )
    height, width = original.shape[:2]
    columns = 4 if height > width else 2
    rows = 4 // columns
    panel_width = 4.5 if columns == 2 else 3.2
    size = (columns * panel_width, rows * (panel_width * height / width + 0.6))
    with mpl.rc_context({"font.size": 10}):
        figure = Figure(figsize=size, layout="constrained")
        for axes, (caption, image) in zip(figure.subplots(rows, columns).flat, panels, strict=True):
            axes.imshow(image)
            axes.set_title(caption.rstrip("\n"), fontsize=10)
            axes.set_axis_off()
        save(figure, path)
