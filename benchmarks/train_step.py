"""Time of one training step on this machine, beside the bare loop that has nothing of licquant in it.

    bare      CompressAI's model, autocast, Adam, clipping; one constant batch
    step      ``Trainer.advance`` on a constant batch: adds float32 likelihoods, the auxiliary loss and its
              optimizer, noise by sample, the moving average
    loaded    the same with crops from decoded images, as ``licquant train`` takes it

The three run in turn, a few steps each, so that other load on the machine meets all of them. Medians count;
beside them stand the smallest figures: what the machine does when nothing disturbs it. The floor is what no code
can go below: the operations of the step's convolutions, at the rate of a large matrix product.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import torch
import typer
from lightning.fabric import Fabric
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from licquant.evaluate import provenance
from licquant.evaluate.rd import rd_loss
from licquant.images import write_image
from licquant.models.kernels import channels_innermost
from licquant.reports.report import write_json
from licquant.train import architectures
from licquant.train.batches import Crops, ahead
from licquant.train.pixels import open_pixels
from licquant.train.process import keep_freed_memory
from licquant.train.settings import Recipe
from licquant.train.trainer import Trainer

SCHEMA = "licquant-train-step/1"
BAR_SECONDS = 0.15
ROUNDS_TO_WARM_UP = 2


def bare_step(recipe: Recipe, widths: dict[str, int], samples: torch.Tensor) -> Callable[[], object]:
    """A function that takes one step of the plainest training loop there is."""
    model = architectures.build(recipe.model, widths).train()
    channels_innermost(model)
    weights = [value for name, value in model.named_parameters() if not name.endswith("quantiles")]
    optimizer = torch.optim.Adam(weights, lr=recipe.learning_rate)
    x = samples.float() / 255

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.precision == "bf16"):
            out = model(x)
            bits = sum(-values.float().log2().sum() for values in out["likelihoods"].values())
            bpp = bits / (x.shape[0] * x.shape[2] * x.shape[3])
            loss = rd_loss(bpp, (out["x_hat"].float() - x).square().mean(), recipe.lmbda)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, recipe.clip)
        optimizer.step()

    return step


def measure(recipe: Recipe, folder: Path, rounds: int, steps: int) -> tuple[dict[str, list[float]], float]:
    """Seconds of ``rounds`` × ``steps`` steps of each kind, on images in ``folder``, and the floor."""
    keep_freed_memory()
    fabric = Fabric(accelerator="cpu", devices=1)
    fabric.launch()
    widths = architectures.resolve_widths(recipe.model, recipe.N, recipe.M)
    with tempfile.TemporaryDirectory() as cache:
        crops = Crops(open_pixels(folder, Path(cache)), recipe)
        constant = crops.batch(0)
        trainers = [Trainer(fabric, architectures.build(recipe.model, widths), recipe) for _ in range(2)]
        coming = ahead(crops, 0, recipe.steps)
        kinds: dict[str, Callable[[], object]] = {
            "bare": bare_step(recipe, widths, constant),
            "step": lambda: trainers[0].advance(constant, 0),
            "loaded": lambda: trainers[1].advance(next(coming)[1], 0),
        }
        seconds: dict[str, list[float]] = {name: [] for name in kinds}
        with trainers[0].prepared(), trainers[1].prepared():
            for number in range(-ROUNDS_TO_WARM_UP, rounds):
                for name, take_step in kinds.items():
                    for _ in range(steps):
                        start = time.perf_counter()
                        take_step()
                        if number >= 0:
                            seconds[name].append(time.perf_counter() - start)
        coming.close()
    return seconds, floor_seconds(recipe, widths, constant)


def floor_seconds(recipe: Recipe, widths: dict[str, int], samples: torch.Tensor) -> float:
    """The operations of a bare step's matrix products and convolutions over the machine's rate of them."""
    step = bare_step(recipe, widths, samples)
    with FlopCounterMode(display=False) as counter:
        step()
    side = 2048
    dtype = torch.bfloat16 if recipe.precision == "bf16" else torch.float32
    a, b = torch.randn(2, side, side).to(dtype)
    seconds = []
    for _ in range(8):
        start = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - start)
    return counter.get_total_flops() * min(seconds) / (2 * side**3)


def write_noise_images(folder: Path, count: int = 16, side: int = 384) -> None:
    """Stand-ins for training images: what they show does not change the time of a step."""
    random = np.random.default_rng(0)
    for number in range(count):
        rgb = random.integers(0, 256, (side, side, 3), dtype=np.uint8)
        write_image(folder / f"{number:02d}.png", rgb)


def main(
    output: Annotated[Path, typer.Option("--output", "-o", help="folder for train_step.json")],
    data: Annotated[Path | None, typer.Option(help="folder of images; default: noise")] = None,
    model: Annotated[str, typer.Option(help="CompressAI's registered name")] = "bmshj2018-hyperprior",
    batch_size: Annotated[int, typer.Option(min=1)] = 8,
    crop: Annotated[int, typer.Option(help="pixels a side")] = 128,
    precision: Annotated[str, typer.Option(help="bf16 or fp32")] = "bf16",
    threads: Annotated[int, typer.Option(min=1)] = 2,
    rounds: Annotated[int, typer.Option(min=1)] = 12,
    steps: Annotated[int, typer.Option(min=1, help="of each kind in a round")] = 5,
) -> None:
    """Measure the step time and write OUTPUT/train_step.json."""
    torch.set_num_threads(threads)
    many = 10 * (rounds + ROUNDS_TO_WARM_UP) * steps
    recipe = Recipe(
        model,
        0.013,
        batch=batch_size,
        crop=crop,
        precision=precision,
        steps=many,
        large_from=1.0,
        warmup=many,
    )
    with tempfile.TemporaryDirectory() as noise:
        if data is None:
            write_noise_images(Path(noise))
        seconds, floor = measure(recipe, data or Path(noise), rounds, steps)
    results: dict[str, Any] = {
        name: {"median_s": median(values), "min_s": min(values)} for name, values in seconds.items()
    }
    record: dict[str, Any] = {
        "schema": SCHEMA,
        "provenance": provenance.collect(threads=threads, recipe=recipe.to_mapping()),
        "bar_s": BAR_SECONDS,
        "floor_s": floor,
        "results": results,
        "seconds": seconds,
    }
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "train_step.json", record)
    table = Table(title=f"{model}, {batch_size} x {crop}x{crop}, {precision}, {threads} threads")
    for heading in ("", "median", "smallest"):
        table.add_column(heading, justify="right")
    for name, result in results.items():
        table.add_row(name, f"{1000 * result['median_s']:.0f} ms", f"{1000 * result['min_s']:.0f} ms")
    table.add_row("floor", "", f"{1000 * floor:.0f} ms")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
