"""``licquant reproduce``: figures and tables of the papers, each by one function that writes files into a folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch

from licquant.codec.codec import load
from licquant.commands.base import Report
from licquant.commands.reproduce_tables import (
    DPA_DQ,
    TABLES,
    Interrupted,
    ReproduceOptions,
    check_inputs,
    interrupted,
    make_cells,
    table,
)
from licquant.commands.toolkit import make_folder, progress
from licquant.errors import LicquantError
from licquant.evaluate import widths
from licquant.images import check_places, list_images, read_image
from licquant.quant.gradients import DistanceAware
from licquant.reports import dynaquant_pictures, report
from licquant.terminal import say

BETAS = (1.0, 2.0, 4.0, 8.0)


def figure2(options: ReproduceOptions) -> Report:
    """DynaQuant, figure 2: the gradient proxy g and its derivative for several beta, over two cells."""
    x = torch.linspace(0, 2, 801, dtype=torch.float64)
    estimators = {f"β = {beta:g}": DistanceAware(beta) for beta in BETAS}
    slopes = {name: estimator.slope(x) for name, estimator in estimators.items()}
    path = options.output / "fig2.png"
    dynaquant_pictures.proxies(
        path,
        x.numpy(),
        {name: estimator.proxy(x).numpy() for name, estimator in estimators.items()},
        {name: slope.numpy() for name, slope in slopes.items()},
    )
    extremes = {name: [float(slope.min()), float(slope.max())] for name, slope in slopes.items()}
    return Report({"output": str(path), "slopes": extremes}, lambda: say(str(path)))


def figure6(options: ReproduceOptions) -> Report:
    """DynaQuant, figure 6: the width of every stage for every image, and how many images differ.

    Of a given artifact, else of the DPA-DQ cell of the tables, which is trained if the folder does not hold it.
    """
    if options.images is None:
        raise LicquantError("fig6 needs --images")
    paths = list_images(options.images)
    artifact = options.artifact
    if artifact is None:
        check_inputs(options)
        try:
            artifact = make_cells([DPA_DQ], options)[DPA_DQ, 0][0]
        except Interrupted:
            return interrupted("fig6")
    codec = load(artifact, threads=options.threads)
    if not codec.artifact.dynamic:
        raise LicquantError(f"{artifact}: its widths do not depend on the image")
    chosen = {}
    with progress() as on_progress:
        for number, path in enumerate(paths, 1):
            chosen[path.name] = widths.chosen_widths(codec, read_image(path))
            on_progress("choosing widths", number, len(paths))
    sentence = widths.sentence(list(chosen.values()))
    output = options.output / "fig6.png"
    dynaquant_pictures.chosen(output, chosen, f"{artifact.name}: bits chosen for each image")
    record = {
        "schema": "licquant-fig6/1",
        "artifact": codec.id.hex(),
        "images": chosen,
        "choices": widths.summary(list(chosen.values())),
    }
    report.write_json(options.output / "fig6.json", record)
    return Report({"output": str(output), **record}, lambda: say(f"{output}: {sentence}"))


# Name on the command line → what makes it.
RESULTS: Mapping[str, Callable[[ReproduceOptions], Report]] = {
    "fig2": figure2,
    **{name: partial(table, name) for name in TABLES},
    "fig6": figure6,
}


def run(name: str, options: ReproduceOptions) -> Report:
    """``LicquantError`` for an unknown name or a folder that cannot be made."""
    if name not in RESULTS:
        raise LicquantError(f"unknown result {name!r}: choose one of {', '.join(RESULTS)}")
    make_folder(options.output)
    check_places(options.output / f"{name}.json", options.output / f"{name}.png")
    return RESULTS[name](options)
