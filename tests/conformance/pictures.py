"""The pictures of the conformance corpus, made from integers alone so that they are the same everywhere: RGB uint8."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Picture = np.ndarray  # uint8 H×W×3


def draws(seed: int, *shape: int) -> np.ndarray:
    """int64 of that shape in 0..255: the numbers 0, 1, 2, … through the finalizer of SplitMix64."""
    x = np.arange(int(np.prod(shape)), dtype=np.uint64) + np.uint64(seed << 32)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)  # modulo 2^64
    return (x >> np.uint64(56)).astype(np.int64).reshape(shape)


def scene() -> Picture:
    """91×131: smooth shading, discs that cover one another, and grain."""
    rows, columns = np.indices((91, 131), dtype=np.int64)
    picture = np.stack([rows + columns // 2, 160 - rows, 60 + columns], axis=-1)
    for row, column, size, *colour in draws(1, 30, 6).tolist():
        inside = (rows - row * 91 // 256) ** 2 + (columns - column * 131 // 256) ** 2 < (4 + size // 12) ** 2
        picture[inside] = np.array(colour) + (rows + columns)[inside, None] // 4 - 28
    return _pixels(picture + draws(2, 91, 131, 1) // 16 - 8)


def pixel() -> Picture:
    """1×1."""
    return _pixels(np.array([[[200, 90, 30]]]))


def noise() -> Picture:
    """33×47, every sample by itself."""
    return _pixels(draws(3, 33, 47, 3))


def checker() -> Picture:
    """17×65, black and white by turns."""
    rows, columns = np.indices((17, 65))
    return _pixels(np.repeat(((rows + columns) % 2 * 255)[..., None], 3, axis=-1))


def saturated() -> Picture:
    """64×19: stripes of the six colours that have nothing between 0 and 255."""
    colours = np.array([[255, 0, 0], [0, 255, 255], [0, 255, 0], [255, 0, 255], [0, 0, 255], [255, 255, 0]])
    return _pixels(np.repeat(colours[np.arange(64) // 5 % 6][:, None], 19, axis=1))


def black() -> Picture:
    """1×40."""
    return _pixels(np.zeros((1, 40, 3)))


def white() -> Picture:
    """40×1."""
    return _pixels(np.full((40, 1, 3), 255))


def strip() -> Picture:
    """5×1100: more than one region of the smallest side."""
    rows, columns = np.indices((5, 1100), dtype=np.int64)
    return _pixels(np.stack([columns // 5, 40 * rows, 220 - columns // 6], axis=-1) + draws(4, 5, 1100, 1) // 8)


PICTURES: dict[str, Callable[[], Picture]] = {
    made.__name__: made for made in (scene, pixel, noise, checker, saturated, black, white, strip)
}


def _pixels(values: np.ndarray) -> Picture:
    return np.clip(values, 0, 255).astype(np.uint8)
