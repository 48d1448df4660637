"""The padding that a strided network needs."""

import numpy as np

from licquant.images.picture import RGB


def pad_to_multiple(rgb: RGB, multiple: int) -> RGB:
    """``rgb`` extended at the bottom and the right to multiples of ``multiple`` by repeating the edge.

    H×W×3 → ⌈H/m⌉m × ⌈W/m⌉m × 3. The edge is repeated because a step to black would cost bits and ring into
    the image.
    """
    height, width = rgb.shape[:2]
    if not (height % multiple or width % multiple):
        return rgb
    return np.pad(rgb, ((0, -height % multiple), (0, -width % multiple), (0, 0)), mode="edge")


def crop(rgb: RGB, height: int, width: int) -> RGB:
    """The top left ``height``×``width`` of ``rgb``, contiguous: undoes ``pad_to_multiple``."""
    if not (1 <= height <= rgb.shape[0] and 1 <= width <= rgb.shape[1]):
        raise ValueError(f"cannot crop {rgb.shape[0]}x{rgb.shape[1]} to {height}x{width}")
    return np.ascontiguousarray(rgb[:height, :width])
