"""Figure 2 of DynaQuant: what rounding is taken for in the backward pass, and the derivative of that."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from licquant.errors import DataError
from licquant.reports.drawing import DASHES, SERIES, STYLE, save

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
