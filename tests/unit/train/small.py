"""A training run that takes a second: 8 channels, crops of 64×64, a dozen steps."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from licquant.images import write_image
from licquant.train.settings import Recipe, RunOptions

RECIPE = Recipe(
    "bmshj2018-hyperprior",
    0.01,
    N=8,
    M=12,
    steps=12,
    batch=4,
    crop=64,
    large_batch=2,
    large_crop=128,
    warmup=2,
    log_every=5,
)


def recipe(**changes: Any) -> Recipe:
    return replace(RECIPE, **changes)


def write_images(folder: Path, count: int = 5, side: int = 144) -> Path:
    """Smooth colour waves, each image its own."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, columns = np.mgrid[0:side, 0:side]
    for number in range(count):
        waves = [np.sin((number + 2) * rows / 40 + k) + np.cos((k + 1) * columns / 30) for k in range(3)]
        rgb = np.clip(127.5 + 60 * np.stack(waves, axis=-1), 0, 255).astype(np.uint8)
        write_image(folder / f"image{number}.png", rgb)
    return folder


def options(place: Path, **changes: Any) -> RunOptions:
    """Options for a run whose images, cache and output are under ``place``; images are made if need be."""
    data = place / "images"
    if not data.exists():
        write_images(data)
    return replace(
        RunOptions(data, place / "out" / "model.pt", accelerator="cpu", threads=1, cache=place / "cache"),
        **changes,
    )
