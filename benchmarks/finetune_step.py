"""Time of one finetuning step beside one FP32 training step, at the same batch.

    fp32      a step of ``licquant train --precision fp32``
    bf16      a step of ``licquant train``, whose convolutions run in bfloat16
    finetune  a step of ``licquant finetune``: integers in float32 forward, bfloat16 gradients

The kinds run in turn, a step each, so that other load on the machine meets all of them. The ratio is the median of the
ratios of neighbours.
"""

import time
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import typer
from lightning.fabric import Fabric
from rich.console import Console
from rich.table import Table

from licquant.evaluate import provenance
from licquant.models.trace import trace_model
from licquant.quant.calibrate import collect_statistics
from licquant.quant.in_training.finetune import Finetuner, static_task
from licquant.quant.in_training.finetune_settings import FinetuneRecipe
from licquant.quant.insert import QuantizerSettings, insert_quantizers
from licquant.quant.network import uniform_plan
from licquant.quant.synthetic import dead_leaves
from licquant.reports.report import write_json
from licquant.train import architectures
from licquant.train.process import keep_freed_memory
from licquant.train.settings import Recipe
from licquant.train.trainer import Trainer

SCHEMA = "licquant-finetune-step/1"
BAR = 1.5  # times the FP32 step
ROUNDS_TO_WARM_UP = 2


def finetuner(fabric: Fabric, recipe: FinetuneRecipe, bits: int) -> Finetuner:
    """Of an untrained model: what it computes does not change the time of a step."""
    model = architectures.build(recipe.model, architectures.resolve_widths(recipe.model, None, None)).eval()
    traced = trace_model(model)
    statistics = collect_statistics(traced, dead_leaves(1, 128))
    grids = recipe.grids
    settings = QuantizerSettings(per_channel=grids.per_channel, free_zero_points=grids.free_zero_points)
    quantized = insert_quantizers(traced, uniform_plan(traced, bits, bits), statistics, settings)
    return Finetuner(fabric, recipe, static_task(quantized, statistics, recipe))


def measure(model: str, batch: int, crop: int, quantizers: list[str], rounds: int) -> dict[str, list[float]]:
    """Seconds of ``rounds`` steps of each kind."""
    keep_freed_memory()
    fabric = Fabric(accelerator="cpu", devices=1)
    fabric.launch()
    torch.manual_seed(0)
    samples = torch.randint(0, 256, (batch, crop, crop, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    common: dict[str, Any] = {"batch": batch, "crop": crop, "large_from": 1.0, "steps": 10**6, "warmup": 10**6}
    widths = architectures.resolve_widths(model, None, None)
    steppers = {
        precision: Trainer(
            fabric, architectures.build(model, widths), Recipe(model, 0.013, precision=precision, **common)
        )
        for precision in ("fp32", "bf16")
    }
    finetuners = {
        f"finetune {name}": finetuner(fabric, FinetuneRecipe(model, 0.013, quantizer=name, **common), 8)
        for name in quantizers
    }
    kinds = {**steppers, **finetuners}
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    for number in range(-ROUNDS_TO_WARM_UP, rounds):
        for name, stepper in kinds.items():
            with stepper.prepared():
                start = time.perf_counter()
                stepper.advance(samples, 0)
            if number >= 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def main(
    output: Annotated[Path, typer.Option("--output", "-o", help="folder for finetune_step.json")],
    model: Annotated[str, typer.Option(help="CompressAI's registered name")] = "bmshj2018-hyperprior",
    batch_size: Annotated[int, typer.Option(min=1)] = 8,
    crop: Annotated[int, typer.Option(help="pixels a side")] = 128,
    quantizers: Annotated[str, typer.Option(help="separated by commas")] = "dpa,lsq,pams",
    threads: Annotated[int, typer.Option(min=1)] = 2,
    rounds: Annotated[int, typer.Option(min=1)] = 12,
) -> None:
    """Measure the step time and write OUTPUT/finetune_step.json."""
    torch.set_num_threads(threads)
    seconds = measure(model, batch_size, crop, quantizers.split(","), rounds)
    ratios = {name: median(a / b for a, b in zip(s, seconds["fp32"], strict=True)) for name, s in seconds.items()}
    record: dict[str, Any] = {
        "schema": SCHEMA,
        "provenance": provenance.collect(threads=threads, model=model, batch=batch_size, crop=crop),
        "bar": BAR,
        "ratio_to_fp32": ratios,
        "seconds": seconds,
    }
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "finetune_step.json", record)
    table = Table(title=f"{model}, {batch_size} x {crop}x{crop}, {threads} threads; bar: {BAR:g} x fp32")
    for heading in ("", "median", "to fp32"):
        table.add_column(heading, justify="right")
    for name, values in seconds.items():
        table.add_row(name, f"{1000 * median(values):.0f} ms", f"{ratios[name]:.2f}")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
