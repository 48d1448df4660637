"""Make mbt2018 models of trained mbt2018-mean ones: only the context and what reads it are new.

    python -m tools.fit_context --data TRAIN -o FOLDER MEAN.pt …

mbt2018 is mbt2018-mean with two further parts, ``context_prediction`` and ``entropy_parameters``, which predict a
latent value from those decoded before it. Everything else is taken over as it is, so the latents of the training crops
are computed once, and a step costs the two new parts alone: a fifteenth of a whole one. They are trained for the rate;
the picture does not change. Later checkpoints begin with the new parts of the one before. ``licquant train --init``
then trains all together.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from licquant.cache import cache_folder
from licquant.digests import file_sha256
from licquant.models.load import read_state
from licquant.train import architectures, seeds
from licquant.train.batches import Crops
from licquant.train.card import read_card, write_card
from licquant.train.export import finished_state, write_checkpoint
from licquant.train.pixels import open_pixels
from licquant.train.settings import Recipe, learning_rate
from licquant.train.stepper import Average

NEW = ("context_prediction", "entropy_parameters")
CROP, BATCH = 256, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("checkpoints", nargs="+", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=2000, help="of the first checkpoint")
    parser.add_argument("--more-steps", type=int, default=1000, help="of each later one")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    new: dict[str, Tensor] = {}
    for number, checkpoint in enumerate(arguments.checkpoints):
        steps = arguments.more_steps if number else arguments.steps
        new = _make(checkpoint, new, arguments, steps)


def _make(checkpoint: Path, new: dict[str, Tensor], arguments: argparse.Namespace, steps: int) -> dict[str, Tensor]:
    """Fit and write the model that grows out of ``checkpoint``; return its new parts."""
    state, card = read_state(checkpoint), read_card(checkpoint) or {}
    recipe = Recipe(
        "mbt2018", card["lmbda"], steps=steps, batch=BATCH, crop=CROP, large_batch=BATCH, large_crop=CROP,
        learning_rate=arguments.learning_rate,
    )  # fmt: skip
    widths = architectures.widths_of("mbt2018", state, None, None)
    model = architectures.build("mbt2018", widths)
    architectures.start_from(model, state, str(checkpoint))
    nn.Module.load_state_dict(model, new, strict=False)
    model.eval()
    latents = _latents(model, Crops(open_pixels(arguments.data, cache_folder(None)), recipe))
    parts = _fit(model, recipe, latents)
    output = arguments.output / f"mbt2018-lambda{recipe.lmbda:.4f}.pt"
    write_checkpoint(output, finished_state("mbt2018", widths, dict(model.named_parameters()) | parts))
    write_card(output, {
        "model": "mbt2018", **widths, "lmbda": recipe.lmbda, "loss": "bpp + lmbda * 255^2 * MSE", "steps": steps,
        "batch": f"{BATCH} x {CROP}x{CROP}, {' and '.join(NEW)} alone", "init": checkpoint.stem,
        "init_sha256": file_sha256(checkpoint), "sha256": file_sha256(output), "complete": True,
    })  # fmt: skip
    return parts


@torch.no_grad()
def _latents(model: Any, crops: Crops) -> tuple[Tensor, Tensor]:
    """(y, what h_s makes of the rounded z): one crop of each image that is large enough, one after the other."""
    usable = len(crops.usable[CROP])
    found = []
    for step in range(usable // BATCH):
        x = crops.batch(step).float() / 255
        with torch.autocast("cpu", torch.bfloat16):
            y = model.g_a(x).float()
        z_hat, _ = model.entropy_bottleneck(model.h_a(y))
        found.append((y, model.h_s(z_hat)))
    y, params = (torch.cat(parts) for parts in zip(*found, strict=True))
    return y, params


def _fit(model: Any, recipe: Recipe, latents: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    """Train the new parts for the rate of y; return their moving average."""
    named = {name: value for name, value in model.named_parameters() if name.startswith(NEW)}
    optimizer = torch.optim.Adam(named.values(), lr=recipe.learning_rate, fused=True)
    average = Average(named.values(), recipe.average)
    total = 0.0
    for step, (y, params) in enumerate(_batches(*latents, recipe)):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, step)
        y_hat = y + torch.rand_like(y) - 0.5  # noise as wide as rounding: what the decoder has is as far from y
        with torch.autocast("cpu", torch.bfloat16):
            context = model.context_prediction(y_hat)
            gaussian = model.entropy_parameters(torch.cat([params, context], dim=1))
        scales, means = gaussian.float().chunk(2, 1)
        _, likelihoods = model.gaussian_conditional(y, scales, means, training=True)
        bpp = -likelihoods.log2().sum() / (len(y) * CROP * CROP)
        optimizer.zero_grad()
        bpp.backward()
        optimizer.step()
        average.update()
        total += float(bpp.detach())
        if (step + 1) % recipe.log_every == 0:
            print(json.dumps({"lmbda": recipe.lmbda, "step": step + 1, "y_bpp": round(total / recipe.log_every, 5)}))
            total = 0.0
    return dict(zip(named, average.values, strict=True))


def _batches(y: Tensor, params: Tensor, recipe: Recipe) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seeds.mix(seeds.ORDER, recipe.seed))
    torch.manual_seed(seeds.mix(seeds.NOISE, recipe.seed))
    for _ in range(recipe.steps):
        chosen = torch.randint(len(y), (recipe.batch,), generator=generator)
        yield y[chosen], params[chosen]


if __name__ == "__main__":
    main()
