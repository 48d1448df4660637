"""Exact execution of pointwise layers on a few positions at a time: [C, P] → [C', P].

The exact engine is made for images; a context model runs the same few layers hundreds of times on some tens of
positions, where laying out windows would cost more than the products. The products are the exact engine's, the
numbers are the same (a test holds them equal).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from licquant.errors import ArtifactError
from licquant.program.arithmetic import MAX_BITS, Floats
from licquant.program.exact import FLOAT32_EXACT, FLOAT64_RESCALE, exact_product
from licquant.program.grid import Grid
from licquant.program.ops import Convolution, Operation, Requantize, Rescaling
from licquant.program.part import INPUT, Part

# q - zero_point [C, P]: integers that their float type holds exactly.
Centred = Floats
_CACHED = 1 << 15  # accumulators at a time


class Rescale:
    """Accumulator [O, P] to the centred output of one operation: bias, rescaling and clamp.

    While |acc + bias| < 2^36, (acc + bias) · m · 2^-s + 1/2 fits float64's 53 bits in any order of evaluation, so
    that bias and rounding are one constant. A knee with negative <= positive is the larger of both lines.
    """

    def __init__(self, op: Convolution | Requantize, bound: int) -> None:
        rescaling, grid = op.rescaling, op.grid
        self.op = op
        self.bias = (op.bias if isinstance(op, Convolution) else np.zeros(grid.channels, np.int64))[:, None]
        positive, negative = rescaling.positive, rescaling.negative
        self.in_floats = bound < FLOAT64_RESCALE and bool((negative <= positive).all())
        # A clamp at 0 is a ReLU.
        linear = rescaling.linear or not (negative.any() or (grid.range[0] - grid.zero_point).any())
        lines = [positive] if linear else [positive, negative]
        slopes = [np.ldexp(m.astype(np.float64), -rescaling.shift)[:, None] for m in lines]
        self.lines = [(slope, self.bias * slope + 0.5) for slope in slopes]
        self.dtype = exact_dtype(grid)  # what leaves float32 on its way to an activation grid is clamped anyway
        zero_point, (low, high) = grid.zero_point[:, None], grid.range
        self.low: Floats = (low - zero_point).astype(self.dtype)
        self.high: Floats = (high - zero_point).astype(self.dtype)

    def __call__(self, acc: Floats) -> Centred:
        """acc: without the bias, integers that their float type holds exactly."""
        if not self.in_floats:
            total = acc.astype(np.int64) + self.bias
            stored = self.op.rescaling.apply(total[:, None], self.op.grid)[:, 0]
            return (stored - self.op.grid.zero_point[:, None]).astype(self.dtype)
        centred: Centred = np.empty(acc.shape, dtype=self.dtype)
        rows = max(1, _CACHED // max(acc.shape[1], 1))
        for first in range(0, len(acc), rows):
            chosen = slice(first, first + rows)
            self._in_floats(acc[chosen], chosen, centred[chosen])
        return centred

    def _in_floats(self, acc: Floats, chosen: slice, centred: Floats) -> None:
        """Some channels, few enough that all passes over them stay in the cache."""
        acc = acc.astype(np.float64, copy=False)
        slope, constant = self.lines[0]
        y = acc * slope[chosen]
        y += constant[chosen]
        for slope, constant in self.lines[1:]:
            other = acc * slope[chosen]
            other += constant[chosen]
            np.maximum(y, other, out=y)
        np.floor(y, out=y)
        centred[...] = y
        np.maximum(centred, self.low[chosen], out=centred)
        np.minimum(centred, self.high[chosen], out=centred)


class PointwiseLayers:
    """A chain of 1×1 convolutions and changes of grid, each reading what the one before it wrote."""

    def __init__(self, operations: Sequence[Operation], grid: Grid) -> None:
        """grid: of the chain's input. Raises ``ArtifactError`` if there is another operation in it."""
        self._stages: list[Callable[[Centred], Centred]] = []
        for op in operations:
            if isinstance(op, Convolution) and _is_pointwise(op):
                self._stages += [exact_product(op.weight[:, :, 0, 0], grid.magnitude), Rescale(op, op.bound([grid]))]
            elif isinstance(op, Requantize):
                self._stages.append(Rescale(op, op.bound([grid])))
            else:
                raise ArtifactError(f"{op.name}: not a layer that reads one position at a time")
            grid = op.grid

    def __call__(self, x: Centred) -> Centred:
        """Centred input [C, P] to centred output [C', P]."""
        for stage in self._stages:
            x = stage(x)
        return x


class SplitLayers:
    """A chain of pointwise layers whose input channels come from several sources.

    The first convolution is linear: its accumulator is the sum of what each source adds (:meth:`share`), so that
    what is known of all positions is multiplied once, and the rest (:meth:`finish`) is done pass by pass.
    """

    def __init__(self, operations: Sequence[Operation], grid: Grid) -> None:
        """grid: of the chain's input. Raises ``ArtifactError`` if the chain is not pointwise."""
        at = next((i for i, op in enumerate(operations) if not isinstance(op, Requantize)), 0)
        first = operations[at]
        if not (isinstance(first, Convolution) and _is_pointwise(first)):
            raise ArtifactError(f"{first.name}: not a layer that reads one position at a time")
        self._grid, self._leading, self._first = grid, operations[:at], first
        self._read = operations[at - 1].grid if at else grid
        self._bound = first.bound([self._read])
        self._rescale = Rescale(first, self._bound)
        self._rest = PointwiseLayers(operations[at + 1 :], first.grid)

    def share(self, channels: slice) -> Callable[[Centred], Floats]:
        """What these input channels, centred [c, P], add to the first accumulator, [O, P]; exact, also the sum."""
        leading = PointwiseLayers([_only(op, channels) for op in self._leading], _sliced(self._grid, channels))
        product = exact_product(self._first.weight[:, channels, 0, 0], self._read.magnitude[channels])
        dtype = np.float32 if self._bound < FLOAT32_EXACT else np.float64
        return lambda x: product(leading(x)).astype(dtype, copy=False)

    def finish(self, acc: Floats) -> Centred:
        """The chain's centred output [C', P] for the sum of all shares."""
        return self._rest(self._rescale(acc))


def _is_pointwise(op: Convolution) -> bool:
    return (op.kernel, op.stride, op.padding, op.groups) == ((1, 1), 1, 0, 1)


def _sliced(grid: Grid, channels: slice) -> Grid:
    return Grid(grid.bits, grid.scale[channels], grid.zero_point[channels])


def _only(op: Operation, channels: slice) -> Requantize:
    """A change of grid for some of its channels."""
    assert isinstance(op, Requantize)
    own = op.rescaling
    rescaling = Rescaling(own.positive[channels], own.negative[channels], own.shift[channels])
    return Requantize(op.name, op.inputs, _sliced(op.grid, channels), rescaling)


def exact_dtype(grid: Grid) -> type:
    """The narrowest float that holds every centred integer of a grid."""
    return np.float32 if grid.bits <= MAX_BITS else np.float64


def chain(part: Part) -> tuple[Operation, ...]:
    """The part's operations, each of which reads the one before it; ``ArtifactError`` if they do not."""
    previous = INPUT
    for op in part.operations:
        if op.inputs != (previous,):
            raise ArtifactError(f"{part.name}: its operations are not a chain")
        previous = op.name
    return part.operations
