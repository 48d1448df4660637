"""What coloured copies of calibration photographs bring: ranges with them and without, on pictures of other folders.

    python -m benchmarks.colours --checkpoint CKPT --calib DIR --images DIR --images DIR [--steps 60] -o DIR

Simulated, estimated rate, on the middle of each picture; never on test images: it is what the copies were chosen by.
"""

from pathlib import Path
from statistics import fmean
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor

from licquant.evaluate import provenance
from licquant.evaluate.rd import MSE
from licquant.images import RGB, evenly, list_images, read_image
from licquant.models.trace import TracedModel, trace_model
from licquant.quant.after_training.reconstruct import reconstruct
from licquant.quant.calibrate import collect_statistics, to_tensor
from licquant.quant.colours import coloured_copies
from licquant.quant.insert import insert_quantizers
from licquant.quant.network import uniform_plan
from licquant.quant.rd import evaluate_float, evaluate_quantized
from licquant.reports import report
from licquant.train.card import lmbda_of, load_checkpoint

SIDE = 256  # of the middles
MOST = 16  # pictures of a folder, evenly spaced


def middle(rgb: RGB) -> Tensor:
    """[1, 3, H, W] in [0, 1], at most ``SIDE`` each way."""
    top, left = (max(0, (n - SIDE) // 2) for n in rgb.shape[:2])
    return to_tensor(rgb[top : top + SIDE, left : left + SIDE])


def increases(
    traced: TracedModel,
    calibration: list[RGB],
    copies: bool,
    steps: int,
    folders: dict[str, list[Tensor]],
    lmbda: float,
) -> dict[str, list[float]]:
    """Folder → by how much of the FP32 model's loss each picture's grows, in percent, at 8 bits."""
    rare = coloured_copies(calibration) if copies else []
    statistics = collect_statistics(traced, calibration, rare=rare)
    quantized = insert_quantizers(traced, uniform_plan(traced, 8, 8), statistics)
    if steps:
        reconstruct(quantized, calibration, lmbda, steps)
    with torch.no_grad():
        return {
            name: [
                100 * (evaluate_quantized(quantized, x).loss(lmbda) / evaluate_float(traced, x).loss(lmbda) - 1).item()
                for x in pictures
            ]
            for name, pictures in folders.items()
        }


def main(
    checkpoint: Annotated[Path, typer.Option(help="A trained FP32 checkpoint with its card.")],
    calib: Annotated[Path, typer.Option(help="A folder of photographs.")],
    images: Annotated[list[Path], typer.Option(help="A folder of other pictures; several.")],
    steps: Annotated[int, typer.Option(help="Of reconstruction; 0 rounds to nearest.")] = 0,
    output: Annotated[Path, typer.Option("-o", help="Folder for the JSON result.")] = Path("bench-output"),
) -> None:
    """Increase of the RD loss with and without copies: mean and worst over the pictures of each folder."""
    lmbda = lmbda_of(checkpoint) or 0.01
    traced = trace_model(load_checkpoint(checkpoint), MSE)
    calibration = [read_image(path) for path in list_images(calib)]
    folders = {str(f.name): [middle(read_image(path)) for path in evenly(list_images(f), MOST)] for f in images}
    table = Table(title=f"RD loss against FP32 at 8 bits, {steps} steps of reconstruction", title_justify="left")
    for heading in ("pictures", "coloured copies", "mean", "worst"):
        table.add_column(heading, justify="left" if heading == "pictures" else "right")
    found = {}
    for copies in (False, True):
        found["with copies" if copies else "without"] = of_folders = increases(
            traced, calibration, copies, steps, folders, lmbda
        )
        for name, losses in of_folders.items():
            table.add_row(name, "yes" if copies else "no", f"{fmean(losses):+.2f} %", f"{max(losses):+.1f} %")
    Console().print(table)
    output.mkdir(parents=True, exist_ok=True)
    facts = provenance.collect(checkpoint=checkpoint.name, lmbda=lmbda, steps=steps, calibration=len(calibration))
    record = {"schema": "licquant-colours/1", "increase_percent": found, "provenance": facts}
    report.write_json(output / "colours.json", record)


if __name__ == "__main__":
    typer.run(main)
