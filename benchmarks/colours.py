"""What coloured copies of calibration photographs bring: ranges with them and without, on pictures of other folders.

    python -m benchmarks.colours --checkpoint CKPT --calib DIR --images DIR --images DIR [--share 1] [--bits 8] -o DIR

Simulated, estimated rate, on the middle of each picture; never on test images: it is what the copies, and what one
counts (``quant/calibrate.py``), were chosen by.
"""

from itertools import product
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
from licquant.models.trace import trace_model
from licquant.quant import calibrate
from licquant.quant.after_training.reconstruct import reconstruct
from licquant.quant.calibrate import RARE, collect_statistics, to_tensor
from licquant.quant.colours import coloured_copies
from licquant.quant.insert import insert_quantizers
from licquant.quant.network import QuantizedModel, uniform_plan
from licquant.quant.rd import evaluate_float, evaluate_quantized
from licquant.reports import report
from licquant.train.card import lmbda_of, load_checkpoint

SIDE = 256  # of the middles
MOST = 16  # pictures of a folder, evenly spaced


def middle(rgb: RGB) -> Tensor:
    """[1, 3, H, W] in [0, 1], at most ``SIDE`` each way."""
    top, left = (max(0, (n - SIDE) // 2) for n in rgb.shape[:2])
    return to_tensor(rgb[top : top + SIDE, left : left + SIDE])


def increases(quantized: QuantizedModel, pictures: list[Tensor], lmbda: float) -> list[float]:
    """By how much of the FP32 model's loss each picture's grows, in percent."""
    pairs = [(evaluate_quantized(quantized, x), evaluate_float(quantized.traced, x)) for x in pictures]
    return [100 * (ours.loss(lmbda) / reference.loss(lmbda) - 1).item() for ours, reference in pairs]


def main(
    checkpoint: Annotated[Path, typer.Option(help="A trained FP32 checkpoint with its card.")],
    calib: Annotated[Path, typer.Option(help="A folder of photographs.")],
    images: Annotated[list[Path], typer.Option(help="A folder of other pictures; several.")],
    share: Annotated[list[float], typer.Option(help="What a copy's values count; several.")] = [RARE],  # noqa: B006
    bits: Annotated[list[int], typer.Option(help="Of activations, weights have 8; several.")] = [8],  # noqa: B006
    steps: Annotated[int, typer.Option(help="Of reconstruction; 0 rounds to nearest.")] = 0,
    output: Annotated[Path, typer.Option("-o", help="Folder for the JSON result.")] = Path("bench-output"),
) -> None:
    """Increase of the RD loss without copies and with them: mean and worst over the pictures of each folder."""
    lmbda = lmbda_of(checkpoint) or 0.01
    traced = trace_model(load_checkpoint(checkpoint), MSE)
    calibration = [read_image(path) for path in list_images(calib)]
    copies = coloured_copies(calibration)
    ways = {"none": collect_statistics(traced, calibration)}
    for value in share:
        calibrate.RARE = value
        ways[f"{value:g}"] = collect_statistics(traced, calibration, rare=copies)
    folders = {str(f.name): [middle(read_image(path)) for path in evenly(list_images(f), MOST)] for f in images}
    table = Table(title=f"RD loss against FP32, {steps} steps of reconstruction", title_justify="left")
    for heading in ("bits of activations", "a copy counts", "pictures", "mean", "worst"):
        table.add_column(heading, justify="left" if heading == "pictures" else "right")
    found = []
    for width, (way, statistics) in product(bits, ways.items()):
        quantized = insert_quantizers(traced, uniform_plan(traced, 8, width), statistics)
        if steps:
            reconstruct(quantized, calibration, lmbda, steps)
        for name, pictures in folders.items():
            with torch.no_grad():
                losses = increases(quantized, pictures, lmbda)
            table.add_row(str(width), way, name, f"{fmean(losses):+.2f} %", f"{max(losses):+.1f} %")
            found.append({"bits": width, "share": way, "pictures": name, "increase_percent": losses})
    Console().print(table)
    output.mkdir(parents=True, exist_ok=True)
    facts = provenance.collect(checkpoint=checkpoint.name, lmbda=lmbda, steps=steps, calibration=len(calibration))
    report.write_json(output / "colours.json", {"schema": "licquant-colours/2", "results": found, "provenance": facts})


if __name__ == "__main__":
    typer.run(main)
