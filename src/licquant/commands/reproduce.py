"""``licquant reproduce``: figures and tables of the papers, each by one function that writes files into a folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch

from licquant.codec.codec import load
from licquant.commands.base import Report
from licquant.commands.reproduce_cells import (
    DPA_DQ,
    Interrupted,
    ReproduceOptions,
    check_inputs,
    interrupted,
    make_cells,
)
from licquant.commands.reproduce_families import figure4, figure5, table1
from licquant.commands.reproduce_tables import TABLES, table
from licquant.commands.toolkit import make_folder, progress
from licquant.errors import LicquantError
from licquant.evaluate import widths
from licquant.images import check_places, list_images, read_image
from licquant.quant.gradients import DistanceAware
from licquant.reports import dynaquant_pictures, report
from licquant.terminal import say
from licquant.train.progress import INTERRUPTED

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


# Name on the command line → what makes it: of all families together, or of one or none.
_TOGETHER: Mapping[str, Callable[[ReproduceOptions], Report]] = {"table1": table1, "fig4": figure4, "fig5": figure5}
_ALONE: Mapping[str, Callable[[ReproduceOptions], Report]] = {
    **{name: partial(table, name) for name in TABLES},
    "fig2": figure2,
    "fig6": figure6,
}
RESULTS = {**_TOGETHER, **_ALONE}


def run(name: str, options: ReproduceOptions) -> Report:
    """What is of one family is made of each that the checkpoints are of, in folders of their names.

    ``LicquantError`` for an unknown name or a folder that cannot be made.
    """
    if name not in RESULTS:
        raise LicquantError(f"unknown result {name!r}: choose one of {', '.join(sorted(RESULTS))}")
    families = options.families
    if name in _ALONE and len(families) > 1:
        return _each(name, [replace(options, model=model, checkpoints=paths) for model, paths in families.items()])
    make_folder(options.output)
    check_places(options.output / f"{name}.json", options.output / f"{name}.png")
    return RESULTS[name](options)


def _each(name: str, families: Sequence[ReproduceOptions]) -> Report:
    """One after the other; the whole is interrupted where one is."""
    made = dict[str, Report]()
    for options in families:
        model = str(options.model)
        made[model] = run(name, replace(options, output=options.output / model))
        if made[model].record.get("status") == INTERRUPTED:
            return made[model]

    def show() -> None:
        for of_family in made.values():
            of_family.show()

    return Report({"families": {model: of_family.record for model, of_family in made.items()}}, show)
