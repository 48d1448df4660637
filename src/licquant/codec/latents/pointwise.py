"""Exact execution of pointwise layers on a few positions at a time: [C, P] → [C', P].

The exact engine is made for images; a context model runs the same few layers hundreds of times on some tens of
positions, where laying out windows would cost more than the products. The products are the exact engine's, the
numbers are the same (a test holds them equal).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from licquant.errors import ArtifactError
from licquant.program.arithmetic import Floats
from licquant.program.exact import FLOAT32_EXACT, exact_product
from licquant.program.grid import Grid
from licquant.program.ops import Convolution, Operation, Requantize, Rescaling
from licquant.program.part import INPUT, Part
from licquant.program.rescaler import Centred, Rescaler


class PointwiseLayers:
    """A chain of 1×1 convolutions and changes of grid, each reading what the one before it wrote."""

    def __init__(self, operations: Sequence[Operation], grid: Grid) -> None:
        """grid: of the chain's input. Raises ``ArtifactError`` if there is another operation in it."""
        self._stages: list[Callable[[Centred], Centred]] = []
        for op in operations:
            if isinstance(op, Convolution) and _is_pointwise(op):
                self._stages += [
                    exact_product(op.weight[:, :, 0, 0], grid.magnitude),
                    rescaler_of(op, op.bound([grid])),
                ]
            elif isinstance(op, Requantize):
                self._stages.append(rescaler_of(op, op.bound([grid])))
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
        self._rescale = rescaler_of(first, self._bound)
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


def rescaler_of(op: Convolution | Requantize, bound: int) -> Rescaler:
    """Accumulators of an operation, without its bias, to its centred output; bound: of |acc + bias|."""
    return Rescaler(op.rescaling, op.grid, bound, op.bias if isinstance(op, Convolution) else None)


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


def chain(part: Part) -> tuple[Operation, ...]:
    """The part's operations, each of which reads the one before it; ``ArtifactError`` if they do not."""
    previous = INPUT
    for op in part.operations:
        if op.inputs != (previous,):
            raise ArtifactError(f"{part.name}: its operations are not a chain")
        previous = op.name
    return part.operations
