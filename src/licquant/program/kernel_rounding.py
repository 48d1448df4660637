"""How kernels round what they rescale to a grid: the float32 arithmetic of OpenVINO's FakeQuantize, in its own order.

An elementwise kernel rounds x · scale + shift, one rounding of product and sum, and subtracts the zero point after it.
A kernel of a layer rounds the product to float32, then the sum:

    stored  bytes that an INT8 convolution reads: x · scale + shift, with the zero point in the shift
    else    floats, q - zero_point: x · scale + rest, in which next to nothing is left of the shift

Two roundings that differ in the last digit differ in one of some 100,000 values of 8 bits by one. In a deep network
that is enough for a quarter of the values to differ at its end, and a third of the symbols.
"""

from __future__ import annotations

import numpy as np

from licquant.program.arithmetic import Floats, Ints
from licquant.program.grid import Grid

# A channel that is constant has the multiplier 0; its range on the way in only has to be wide.
_SMALLEST_MULTIPLIER = 2.0**-46
# What OpenVINO (2026.4) takes for rounding errors: shifts so near to the first channel's are the same, and a common
# rest of so small a share of the range is none.
_SAME_SHIFT, _NO_REST = np.float32(5e-5), np.float32(1e-5)


def divisible(ratio: Floats) -> Floats:
    """Ratios that can be divided by."""
    return np.maximum(ratio, _SMALLEST_MULTIPLIER)


def outer(grid: Grid) -> tuple[Ints, Ints]:
    """The range of q - zero_point that a FakeQuantize for the grid has."""
    low, high = -grid.zero_point, grid.range[1] - grid.zero_point
    if grid.bits > 8:
        # One level too many: OpenVINO lets INT8 kernels read what has exactly 2^16 of them.
        return low, high + 1
    if low.min() >= -128 and high.max() <= 127:
        return np.full_like(low, -128), np.full_like(low, 127)
    return low, low + 255


def scale_and_shift(grid: Grid, ratio: Floats) -> tuple[Floats, Floats]:
    """(scale, shift), float32[C]: elementwise kernels round x · scale + shift, which lies in 0, 1, …, to the grid."""
    low, high = outer(grid)
    start, end = ((v / divisible(ratio)).astype(np.float32) for v in (low, high))
    steps, span = (high - low).astype(np.float32), end - start
    return np.divide(steps, span), -start * steps / span


def added(grid: Grid, ratio: Floats, stored: bool) -> Floats:
    """What kernels of layers add to sums · scale before they round, float32[C], or [1]: one for all channels.

    grid: of one zero point
    """
    low, high = outer(grid)
    shift = scale_and_shift(grid, ratio)[1]
    if (abs(shift - shift[0]) < _SAME_SHIFT).all():
        shift = shift[:1]
    rest = shift if stored else np.add(shift, low[0], dtype=np.float32)
    rest = rest[:1] if (rest == rest[0]).all() else rest
    return np.zeros_like(rest) if len(rest) == 1 and abs(rest[0]) < (high[0] - low[0]) * _NO_REST else rest
