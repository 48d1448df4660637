"""``licquant reproduce``: figures and tables of the papers, each by one function that writes files into a folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from licquant.commands import OUT, Report
from licquant.errors import LicquantError
from licquant.evaluate import estimator_pictures
from licquant.quant.rounding import DistanceAware

BETAS = (1.0, 2.0, 4.0, 8.0)


def figure2(output: Path) -> Report:
    """DynaQuant, figure 2: the gradient proxy g and its derivative for several beta, over two cells."""
    x = torch.linspace(0, 2, 801, dtype=torch.float64)
    estimators = {f"β = {beta:g}": DistanceAware(beta) for beta in BETAS}
    slopes = {name: estimator.slope(x) for name, estimator in estimators.items()}
    path = output / "fig2.png"
    estimator_pictures.proxies(
        path,
        x.numpy(),
        {name: estimator.proxy(x).numpy() for name, estimator in estimators.items()},
        {name: slope.numpy() for name, slope in slopes.items()},
    )
    extremes = {name: [float(slope.min()), float(slope.max())] for name, slope in slopes.items()}
    return Report({"output": str(path), "slopes": extremes}, lambda: OUT.print(str(path), highlight=False))


# Name on the command line → what makes it.
RESULTS: Mapping[str, Callable[[Path], Report]] = {"fig2": figure2}


def run(name: str, output: Path) -> Report:
    """``LicquantError`` for an unknown name or a folder that cannot be made."""
    if name not in RESULTS:
        raise LicquantError(f"unknown result {name!r}: choose one of {', '.join(RESULTS)}")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LicquantError(f"{output}: cannot be made: {error.strerror}") from error
    return RESULTS[name](output)
