"""What all pictures share: colours, markers, style, and how a figure becomes a file.

Colours are Okabe and Ito's, which people with any colour vision tell apart; curves also differ in their
markers. Every picture is written whole or not at all, in the format of its suffix (.png, .svg, .pdf).
"""

from io import BytesIO
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from licquant.errors import DataError
from licquant.images import write_atomically

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
