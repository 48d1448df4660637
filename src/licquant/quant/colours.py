"""Strongly coloured copies of calibration photographs: what users have is more colourful than what one calibrates on.

Ranges that are found on photographs of landscapes clip what a screen-filling red flower or a turquoise sea puts into
the first GDNs (``python -m benchmarks.colours``, ``results/coloured-copies.json``).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import numpy as np

from licquant.images import RGB

EVERY = 3  # photographs that one coloured copy is made of: of each costs ordinary photographs more than it gives others
SATURATION = 2.5  # times the distance from grey: most photographs then reach the corners of RGB, where they are clipped
_ORDERS = list(permutations(range(3)))[1:]  # of the channels; not the one that changes nothing
ORDERS = len(_ORDERS)


def coloured_copies(images: Sequence[RGB]) -> list[RGB]:
    """One copy of every ``EVERY``-th image, uint8 H×W×3, each with other colours than the one before."""
    return [strongly_coloured(rgb, number) for number, rgb in enumerate(images[::EVERY])]


def strongly_coloured(rgb: RGB, number: int) -> RGB:
    """The image, uint8 H×W×3, ``SATURATION`` times as far from grey, its channels exchanged in the number-th way."""
    values = rgb.astype(np.float32)
    grey = values.mean(axis=2, keepdims=True)
    stretched = np.clip(np.rint(grey + SATURATION * (values - grey)), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(stretched[..., _ORDERS[number % ORDERS]])
