"""What chose the default activation ranges: every method, per channel and per tensor, calibrated on one half of
a folder of photographs and measured on the other half (simulated, estimated rate; never on test images).

    python -m benchmarks.ranges --checkpoint CKPT --calib DIR [--weight-bits 8 --act-bits 8] -o DIR
"""

from pathlib import Path
from statistics import fmean
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from licquant.evaluate import provenance
from licquant.images import list_images, read_image
from licquant.models import load_model
from licquant.models.trace import trace_model
from licquant.quant.calibrate import collect_statistics, to_tensor
from licquant.quant.insert import QuantizerSettings, insert_quantizers
from licquant.quant.network import uniform_plan
from licquant.quant.ranges import RANGE_METHODS
from licquant.quant.rd import evaluate_float, evaluate_quantized
from licquant.reports import report
from licquant.train.card import lmbda_of


def main(
    checkpoint: Annotated[Path, typer.Option(help="A trained FP32 checkpoint.")],
    calib: Annotated[Path, typer.Option(help="A folder of photographs.")],
    model: str = "bmshj2018-hyperprior",
    weight_bits: int = 8,
    act_bits: int = 8,
    output: Annotated[Path, typer.Option("-o", help="Folder for the JSON result.")] = Path("bench-output"),
) -> None:
    """Increase of the RD loss for each choice, weights rounded to nearest."""
    output.mkdir(parents=True, exist_ok=True)
    lmbda = lmbda_of(checkpoint, None) or 0.01
    images = [read_image(path) for path in list_images(calib)]
    traced = trace_model(load_model(model, checkpoint))
    statistics = collect_statistics(traced, images[::2])
    held_out = [to_tensor(image) for image in images[1::2]]
    plan = uniform_plan(traced, weight_bits, act_bits)
    increase: dict[str, float] = {}
    with torch.no_grad():
        reference = fmean(evaluate_float(traced, x).loss(lmbda).item() for x in held_out)
        for name, method in RANGE_METHODS.items():
            for per_channel in (True, False):
                quantized = insert_quantizers(traced, plan, statistics, QuantizerSettings(method, per_channel))
                loss = fmean(evaluate_quantized(quantized, x).loss(lmbda).item() for x in held_out)
                increase[f"{name}, per {'channel' if per_channel else 'tensor'}"] = 100 * (loss / reference - 1)
    table = Table(
        title=f"RD loss against FP32, weights {weight_bits} bits, activations {act_bits} bits", title_justify="left"
    )
    table.add_column("ranges")
    table.add_column("increase", justify="right")
    for name, value in sorted(increase.items(), key=lambda item: item[1]):
        table.add_row(name, f"{value:+.2f} %")
    Console().print(table)
    facts = provenance.collect(checkpoint=checkpoint.name, lmbda=lmbda, images=len(images))
    report.write_json(
        output / "ranges.json", {"schema": "licquant-ranges/1", "increase_percent": increase, "provenance": facts}
    )


if __name__ == "__main__":
    typer.run(main)
