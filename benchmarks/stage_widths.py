"""What each stage of a model loses at each width: which candidates ``licquant finetune --widths`` should have.

python -m benchmarks.stage_widths --checkpoint CKPT --calib DIR [--widths 4,5,6,7,8] -o DIR

The losses that its selectors are fitted to, before any training: one stage at a width, all others at the widest, on
crops of calibration photographs. Weights rounded to nearest. Simulated, estimated rate.
"""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

from licquant.allocate.sensitivity import draw_crops
from licquant.commands.toolkit import progress
from licquant.dynamic.network import DynamicModel, insert_widest, make_dynamic
from licquant.dynamic.selector_fit import SELECTOR_SIDES, measure_stages
from licquant.dynamic.stages import stage_statistics
from licquant.evaluate import provenance
from licquant.images import list_images, read_image
from licquant.quant.calibrate import calibrate
from licquant.quant.rd import evaluate_float
from licquant.reports import report
from licquant.train.card import load_checkpoint, loss_of, name_of


def losses_of(model: DynamicModel, crops: torch.Tensor, lmbda: float) -> dict[str, dict[int, float]]:
    """Adaptive stage → its narrower widths → the increase of the loss, in percent of the float model's."""
    traced = model.wide.traced
    with torch.no_grad():
        base = sum(float(evaluate_float(traced, x).loss(lmbda)) for x in crops.split(1)) / len(crops)
    with progress() as on_progress:
        found = measure_stages(model, crops, lmbda, traced.metric, partial(on_progress, "measuring stages"))
    return {
        stage.name: dict(zip(stage.widths[:-1], (100 * losses / base).tolist(), strict=True))
        for name, network in model.networks.items()
        for stage, losses in zip(network.adaptive, found[name].losses.mean(0)[:, :-1], strict=True)
    }


def main(
    checkpoint: Annotated[Path, typer.Option(help="A trained FP32 checkpoint with its model card.")],
    calib: Annotated[Path, typer.Option(help="A folder of calibration photographs.")],
    widths: Annotated[str, typer.Option(help="All other stages have the widest.")] = "4,5,6,7,8",
    count: Annotated[int, typer.Option(help="Crops that are measured.")] = 8,
    output: Annotated[Path, typer.Option("-o", help="Folder for the JSON result.")] = Path("bench-output"),
) -> None:
    """Measure, print, keep."""
    bits = tuple(sorted(int(word) for word in widths.split(",")))
    lmbda, metric = loss_of(checkpoint, None, None)
    if lmbda is None:
        raise typer.BadParameter(f"{checkpoint}: no model card beside it says λ")
    photographs = [read_image(path) for path in list_images(calib)]
    traced, statistics = calibrate(load_checkpoint(checkpoint, name_of(checkpoint, None)), photographs, metric)
    statistics = stage_statistics(traced, statistics)
    model = make_dynamic(insert_widest(traced, bits[-1], statistics), bits, statistics)
    found = losses_of(model, draw_crops(photographs, count, SELECTOR_SIDES[metric]), lmbda)
    layers = {stage.name: len(stage.layers) for network in model.networks.values() for stage in network.adaptive}

    table = Table(title=f"RD loss, else {bits[-1]} bits, λ {lmbda:g}", title_justify="left")
    for heading in ("stage", "layers", *(f"{b} bits" for b in bits[:-1])):
        table.add_column(heading, justify="left" if heading == "stage" else "right")
    for stage, losses in found.items():
        table.add_row(stage, str(layers[stage]), *(f"{losses[b]:+.2f} %" for b in bits[:-1]))
    Console().print(table)
    record: dict[str, Any] = {"schema": "licquant-stage-widths/1", "layers": layers, "loss_percent": found}
    record["provenance"] = provenance.collect(checkpoint=checkpoint.name, lmbda=lmbda, count=count)
    output.mkdir(parents=True, exist_ok=True)
    report.write_json(output / "stage-widths.json", record)


if __name__ == "__main__":
    typer.run(main)
