"""Accumulators to the output of an operation: bias, rescaling and clamp, in floats where those are exact."""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter

import numpy as np

from licquant.program.arithmetic import MAX_BITS, Floats, Ints
from licquant.program.grid import Grid
from licquant.program.ops import Rescaling

# q - zero_point [C, ...]: integers that their float type (``exact_dtype``) holds exactly.
Centred = Floats
_FLOAT64_RESCALE = 1 << 36
_CACHED = 1 << 15  # accumulators at a time
_FEW = 64  # of a channel: NumPy's inner loops are over positions, so for these they are turned


class Rescaler:
    """Accumulators [O, ...] to the centred output of one operation.

    While |acc + bias| < 2^36, (acc + bias) · m · 2^-s + 1/2 fits float64's 53 bits in any order of evaluation: so bias
    and rounding are one constant, and the floor is the one that shifting integers gives. Wider accumulators take the
    integer way. A knee with negative <= positive is the larger of both lines.
    """

    def __init__(self, rescaling: Rescaling, grid: Grid, bound: int, bias: Ints | None = None) -> None:
        """bound: of |acc + bias|"""
        self._rescaling, self._grid = rescaling, grid
        self._bias = np.zeros((grid.channels, 1)) if bias is None else bias.astype(np.float64)[:, None]
        positive, negative = rescaling.positive, rescaling.negative
        self._in_floats = bound < _FLOAT64_RESCALE and bool((negative <= positive).all())
        # A clamp at 0 is a ReLU.
        linear = rescaling.linear or not (negative.any() or (grid.range[0] - grid.zero_point).any())
        self._relu = not linear and not negative.any()  # its lower line is 0, and 1/2 for the rounding
        lines = [positive] if linear or self._relu else [positive, negative]
        slopes = [np.ldexp(m.astype(np.float64), -rescaling.shift)[:, None] for m in lines]
        self._lines = [(slope, self._bias * slope + 0.5) for slope in slopes]
        self._dtype = exact_dtype(grid)  # what leaves float32 on its way to an activation grid is clamped anyway
        zero_point, (low, high) = grid.zero_point[:, None], grid.range
        self._low: Floats = (low - zero_point).astype(self._dtype)
        self._high: Floats = (high - zero_point).astype(self._dtype)

    def __call__(self, acc: Floats) -> Centred:
        """acc: without the bias, integers that their float type holds exactly."""
        flat = acc.reshape(len(acc), -1)
        if not self._in_floats:
            total = flat.astype(np.int64) + self._bias.astype(np.int64)
            stored = self._rescaling.apply(total[:, None], self._grid)[:, 0]
            return (stored - self._grid.zero_point[:, None]).astype(self._dtype).reshape(acc.shape)
        if flat.shape[1] <= _FEW:
            return self._rescale(flat.T.astype(np.float64, order="C"), np.transpose).T.reshape(acc.shape)
        centred: Centred = np.empty(flat.shape, dtype=self._dtype)
        rows = max(1, _CACHED // flat.shape[1])
        for first in range(0, len(flat), rows):
            chosen = slice(first, first + rows)
            centred[chosen] = self._rescale(flat[chosen].astype(np.float64), itemgetter(chosen))
        return centred.reshape(acc.shape)

    def _rescale(self, y: Floats, fitting: Callable[[Floats], Floats]) -> Centred:
        """y: few enough that all passes over them stay in the cache, written over; fitting: of constants [O, 1]."""
        others = [y * fitting(slope) + fitting(constant) for slope, constant in self._lines[1:]]
        slope, constant = self._lines[0]
        y *= fitting(slope)
        y += fitting(constant)
        for other in [0.5] if self._relu else others:
            np.maximum(y, other, out=y)
        np.floor(y, out=y)
        centred: Centred = y.astype(self._dtype, copy=False)
        np.maximum(centred, fitting(self._low), out=centred)
        return np.minimum(centred, fitting(self._high), out=centred)


def exact_dtype(grid: Grid) -> type:
    """The narrowest float that holds every centred integer of a grid."""
    return np.float32 if grid.bits <= MAX_BITS else np.float64
