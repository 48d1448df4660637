"""A part without the channels that nothing reads: whose weights are all zero in every layer that reads the tensor.

Training with a rate in the loss leaves many such channels in hyper analyses (up to 118 of 128 in the embedded models),
and those of zero weight need not be computed. The output is the same for every input, as only zeros leave its sums.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from licquant.program.arithmetic import Ints
from licquant.program.grid import Grid
from licquant.program.ops import Convolution, Operation, Rescaling, TransposedConvolution
from licquant.program.part import Part

_Layer = Convolution | TransposedConvolution


def without_unread(part: Part) -> Part:
    """The same function; of a tensor that nothing is read of, one channel stays."""
    operations = list(part.operations)
    for index in reversed(range(len(operations))):  # what a dropped channel alone has read is unread, too
        op = operations[index]
        readers = [at for at, other in enumerate(operations) if op.name in other.inputs]
        if op.name == part.output or not _whole(op) or not all(_whole(operations[at]) for at in readers):
            continue
        read = np.logical_or.reduce([_reads(operations[at]) for at in readers] or [np.zeros(1, bool)])
        if read.all():
            continue
        kept = np.flatnonzero(read) if read.any() else np.zeros(1, dtype=np.int64)
        operations[index] = _writing(op, kept)
        for at in readers:
            operations[at] = _reading(operations[at], kept)
    return Part(part.name, part.input_grid, tuple(operations))


def _whole(op: Operation) -> bool:
    """Whether each output channel of an operation has weights for each input channel."""
    return isinstance(op, TransposedConvolution) or (isinstance(op, Convolution) and op.groups == 1)


def _axes(op: Operation) -> tuple[int, int]:
    """Those of the output and input channels of its weights."""
    return (0, 1) if isinstance(op, Convolution) else (1, 0)


def _reads(op: Operation) -> np.ndarray:
    """bool[input channel]"""
    assert isinstance(op, _Layer)
    inputs = _axes(op)[1]
    found: np.ndarray = op.weight.any(axis=tuple(axis for axis in range(4) if axis != inputs))
    return found


def _reading(op: Operation, kept: Ints) -> Operation:
    assert isinstance(op, _Layer)
    return replace(op, weight=op.weight.take(kept, axis=_axes(op)[1]))


def _writing(op: Operation, kept: Ints) -> Operation:
    assert isinstance(op, _Layer)
    rescaling = Rescaling(*(v[kept] for v in (op.rescaling.positive, op.rescaling.negative, op.rescaling.shift)))
    grid = Grid(op.grid.bits, op.grid.scale[kept], op.grid.zero_point[kept])
    weight = op.weight.take(kept, axis=_axes(op)[0])
    return replace(op, grid=grid, weight=weight, bias=op.bias[kept], rescaling=rescaling)
