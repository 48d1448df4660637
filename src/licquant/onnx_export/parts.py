"""A part of the integer program in ONNX: what ``exact.py`` computes, to the last integer, in any runtime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from licquant.onnx_export.graph import Graph, Value
from licquant.onnx_export.normalization import gdn
from licquant.onnx_export.numbers import Accumulator, centred, joined, rescaled
from licquant.onnx_export.sums import (
    Sums,
    convolution,
    shuffled,
    stored_type,
    transposed_convolution,
    transposed_rows,
)
from licquant.program.arithmetic import Ints
from licquant.program.grid import Grid
from licquant.program.ops import (
    Add,
    Convolution,
    Gdn,
    Gdn1,
    Multiply,
    Operation,
    PixelShuffle,
    Requantize,
    Rescaling,
    Sigmoid,
    TransposedConvolution,
)
from licquant.program.part import INPUT, Part


@dataclass(frozen=True, eq=False)
class _Inputs:
    """What an operation reads; doubles: whether it may be computed in float64, which it is where that is exact."""

    values: Sequence[Value]
    grids: Sequence[Grid]
    doubles: bool


def emit(graph: Graph, part: Part, x: Value, *, doubles: bool) -> Value:
    """Stored integers of the part's input, in the type that ``stored_type`` says, to those of its output.

    doubles: whether float64 may be used where it is exact; else every number is an integer by its type
    """
    tensors = {INPUT: x}
    for op in part.operations:
        inputs = _Inputs([tensors[name] for name in op.inputs], part.input_grids(op), doubles)
        tensors[op.name] = _EMIT[type(op)](graph, op, inputs)
    return tensors[part.output]


def _of_sums(graph: Graph, sums: Sums) -> Accumulator:
    return lambda dtype: joined(graph, sums, dtype)


def _convolution(graph: Graph, op: Convolution, x: _Inputs) -> Value:
    sums, bound = convolution(graph, op, x.values[0], x.grids[0]), op.bound(x.grids)
    return rescaled(graph, _of_sums(graph, sums), op.rescaling, op.grid, sums.constant, bound, x.doubles)


def _transposed_convolution(graph: Graph, op: TransposedConvolution, x: _Inputs) -> Value:
    """All that is done for each channel is done before the pixel shuffle, stride² times as often."""
    sums, bound, own, count = (
        transposed_convolution(graph, op, x.values[0], x.grids[0]),
        op.bound(x.grids),
        op.rescaling,
        op.stride**2,
    )
    rescaling = Rescaling(*(v.repeat(count) for v in (own.positive, own.negative, own.shift)))
    grid = Grid(op.grid.bits, op.grid.scale.repeat(count), op.grid.zero_point.repeat(count))
    stored = rescaled(graph, _of_sums(graph, sums), rescaling, grid, sums.constant, bound, x.doubles)
    return transposed_rows(graph, op, stored)


def _gdn(graph: Graph, op: Gdn, x: _Inputs) -> Value:
    return gdn(graph, op, x.values[0], x.grids[0], x.doubles)


def _elementwise(graph: Graph, op: Add | Requantize | Multiply, x: _Inputs) -> Value:
    def accumulator(dtype: type) -> Value:
        terms = [centred(graph, q, grid, dtype) for q, grid in zip(x.values, x.grids, strict=True)]
        if isinstance(op, Multiply):
            return graph.node("Mul", *terms)
        if isinstance(op, Requantize):
            return terms[0]
        weighted = [graph.node("Mul", q, graph.channels(m, dtype)) for q, m in zip(terms, op.multipliers, strict=True)]
        total = weighted[0]
        for term in weighted[1:]:
            total = graph.node("Add", total, term)
        return total

    nothing: Ints = np.zeros(op.grid.channels, dtype=np.int64)
    return rescaled(graph, accumulator, op.rescaling, op.grid, nothing, op.bound(x.grids), x.doubles)


def _sigmoid(graph: Graph, op: Sigmoid, x: _Inputs) -> Value:
    table = graph.constant(op.table, stored_type(op.grid))
    return graph.node("Gather", table, graph.cast(x.values[0], np.int32))


def _pixel_shuffle(graph: Graph, op: PixelShuffle, x: _Inputs) -> Value:
    return shuffled(graph, x.values[0], op.grid, op.factor)


_EMIT: dict[type[Operation], Callable[..., Value]] = {
    Convolution: _convolution,
    TransposedConvolution: _transposed_convolution,
    Gdn: _gdn,
    Gdn1: _gdn,
    Add: _elementwise,
    Requantize: _elementwise,
    Multiply: _elementwise,
    Sigmoid: _sigmoid,
    PixelShuffle: _pixel_shuffle,
}
