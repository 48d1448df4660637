"""Calibration images without photographs: for demonstrations and tests, where no data may be shipped."""

import numpy as np

from licquant.images import RGB

_SMALLEST_RADIUS, _LARGEST_RADIUS = 2.0, 96.0


def dead_leaves(count: int, size: int = 256, seed: int = 0) -> list[RGB]:
    """``count`` images uint8 size×size×3 of opaque discs that cover one another.

    The dead leaves model (Lee, Mumford and Huang 2001): radii with density r^-3 give the scale invariance, edges
    and contrasts of natural images; each disc has a flat colour, a shading and a grain of its own.
    """
    rng = np.random.default_rng(seed)
    return [_image(rng, size) for _ in range(count)]


def _image(rng: np.random.Generator, size: int) -> RGB:
    image = np.full((size, size, 3), rng.uniform(0, 1, 3))
    low, high = _SMALLEST_RADIUS**-2, _LARGEST_RADIUS**-2
    for _ in range(size * 12):
        radius = (low + rng.uniform() * (high - low)) ** -0.5  # the inverse of the cumulative function of r^-3
        _draw_disc(image, rng, radius)
    return np.floor(np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


def _draw_disc(image: np.ndarray, rng: np.random.Generator, radius: float) -> None:
    size = len(image)
    row, column = rng.uniform(-radius, size + radius, 2)
    rows = np.arange(max(0, int(row - radius)), min(size, int(row + radius) + 1))
    columns = np.arange(max(0, int(column - radius)), min(size, int(column + radius) + 1))
    y, x = rows[:, None] - row, columns[None, :] - column
    inside = y * y + x * x < radius * radius
    grey, tint = rng.beta(0.7, 0.7), rng.normal(0, 0.12, 3)
    slope = rng.normal(0, 0.12 / radius, 2)
    shade = (slope[0] * y + slope[1] * x)[..., None]
    grain = rng.normal(0, abs(rng.normal(0, 0.05)), (len(rows), len(columns), 1))
    patch = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] if len(rows) and len(columns) else None
    if patch is not None:
        patch[inside] = (grey + tint + shade + grain)[inside]
