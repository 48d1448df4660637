"""A part of the free zone in QDQ form: float32 between ``QuantizeLinear`` and ``DequantizeLinear``.

What chooses INT8 kernels by that pattern reads this form: ONNX Runtime's providers for NPUs and GPUs, and its own CPU
kernels where a layer's output has 8 bits too. Tensors hold q - zero_point with the scale 1, in uint8, or in uint16
where they are wider; the rescaling of a layer is the scale of its weights, int8 and one an output channel. A transposed
convolution is a convolution and DepthToSpace. Rounding may differ from the exact form by one unit of a tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from licquant.onnx_export.graph import Graph, Value
from licquant.onnx_export.sums import as_correlation, cut, stored_type
from licquant.program.arithmetic import FIXED_POINT_BITS, Floats, Ints
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
from licquant.program.saturation import laid_out

FLOAT = np.float32
_LARGEST = 2.0**30  # in fixed point: float32 cannot hold the ends of int32
_LEAST = 2.0**-60  # of a ratio whose square float32 holds


def emit_quantized(graph: Graph, part: Part, x: Value) -> Value:
    """As ``parts.emit``: stored integers of the part's input to those of its output.

    Laid out for kernels that saturate: ONNX Runtime has such ones for processors without VNNI.
    """
    part = laid_out(part)
    first, last = part.input_grid, part.output_grid
    stored = {INPUT: graph.cast(x, _byte_type(first)) if 8 < first.bits < FIXED_POINT_BITS else x}
    centred: dict[str, Value] = {}
    for op in part.operations:
        grids = part.input_grids(op)
        for name, grid in zip(op.inputs, grids, strict=True):
            if name not in centred:
                centred[name] = _centred(graph, stored[name], grid)
        stored[op.name] = _EMIT[type(op)](graph, op, [centred[name] for name in op.inputs], grids)
    found = stored[part.output]
    return graph.cast(found, stored_type(last)) if 8 < last.bits < FIXED_POINT_BITS else found


def _uniform(grid: Grid) -> bool:
    return bool((grid.zero_point == grid.zero_point[0]).all())


def _byte_type(grid: Grid) -> type[np.uint8] | type[np.uint16]:
    return np.uint8 if grid.bits <= 8 else np.uint16


def _centred(graph: Graph, x: Value, grid: Grid) -> Value:
    """Stored integers to q - zero_point, float32. Kernels know one zero point a tensor: others are subtracted."""
    if grid.bits == FIXED_POINT_BITS:
        return graph.cast(x, FLOAT)
    zero_point = int(grid.zero_point[0]) if _uniform(grid) else 0
    scale, zero = graph.constant(1.0, FLOAT), graph.constant(zero_point, _byte_type(grid))
    value = graph.node("DequantizeLinear", x, scale, zero)
    return value if _uniform(grid) else graph.node("Sub", value, graph.channels(grid.zero_point, FLOAT))


def _quantized(graph: Graph, value: Value, grid: Grid) -> Value:
    """float32 q - zero_point before rounding to stored integers: uint8, uint16, or int32 in fixed point."""
    if grid.bits == FIXED_POINT_BITS:
        half = graph.node("Floor", graph.node("Add", value, graph.constant(0.5, FLOAT)))
        return graph.cast(graph.node("Clip", half, *_limits(graph, -_LARGEST, _LARGEST)), np.int32)
    zero_point = int(grid.zero_point[0])
    if not _uniform(grid):
        value, zero_point = graph.node("Add", value, graph.channels(grid.zero_point, FLOAT)), 0
    if grid.bits not in (8, 16):  # else the type's own ends saturate
        value = graph.node("Clip", value, *_limits(graph, -zero_point, grid.range[1] - zero_point))
    return graph.node("QuantizeLinear", value, graph.constant(1.0, FLOAT), graph.constant(zero_point, _byte_type(grid)))


def _limits(graph: Graph, low: float, high: float) -> tuple[Value, Value]:
    return graph.constant(low, FLOAT), graph.constant(high, FLOAT)


def _bent(graph: Graph, value: Value, rescaling: Rescaling, grid: Grid) -> Value:
    """The knee of an accumulator that is scaled already; where the grid ends at 0, its clamp is the ReLU."""
    if rescaling.linear:
        return value
    negative, positive = (v.astype(np.float64) for v in (rescaling.negative, rescaling.positive))
    slope = np.divide(negative, positive, out=np.zeros_like(negative), where=positive > 0)
    if (slope == -1).all():
        return graph.node("Abs", value)
    if (slope == 0).all():
        at_zero = grid.bits != FIXED_POINT_BITS and not grid.zero_point.any()
        return value if at_zero else graph.node("Relu", value)
    return graph.node("PRelu", value, graph.constant(slope.reshape(-1, 1, 1), FLOAT))


def _products(graph: Graph, weight: Ints, bits: int, bias: Ints, ratio: Floats) -> tuple[Value, Value]:
    """Weights [O, I, kh, kw] and bias [O], both times the ratio of their channel."""
    if bits > 8:
        return graph.constant(weight * ratio[:, None, None, None], FLOAT), graph.constant(bias * ratio, FLOAT)
    scale = graph.constant(ratio, FLOAT)
    zero = graph.constant(np.zeros(len(ratio)), np.int8)
    weights = graph.node("DequantizeLinear", graph.constant(weight, np.int8), scale, zero, axis=0)
    return weights, graph.node("DequantizeLinear", graph.constant(bias, np.int32), scale, axis=0)


def _convolution(graph: Graph, op: Convolution, x: Sequence[Value], grids: Sequence[Grid]) -> Value:
    products = _products(graph, op.weight, op.weight_bits, op.bias, op.rescaling.ratio)
    strides, pads = [op.stride] * 2, [op.padding] * 4
    acc = graph.node("Conv", x[0], *products, strides=strides, pads=pads, group=op.groups)
    return _quantized(graph, _bent(graph, acc, op.rescaling, op.grid), op.grid)


def _transposed_convolution(
    graph: Graph, op: TransposedConvolution, x: Sequence[Value], grids: Sequence[Grid]
) -> Value:
    """Bytes are shuffled after they are rounded, so that layer and rounding stay side by side."""
    weight, pads = as_correlation(op)
    count, own = op.stride**2, op.rescaling
    repeated = Rescaling(*(v.repeat(count) for v in (own.positive, own.negative, own.shift)))
    grid = Grid(op.grid.bits, op.grid.scale.repeat(count), op.grid.zero_point.repeat(count))
    products = _products(graph, weight, op.weight_bits, op.bias.repeat(count), repeated.ratio)
    value = x[0]
    if min(pads) < 0:
        value, pads = graph.node("Pad", value, graph.constant([0, 0, *pads[:2], 0, 0, *pads[2:]], np.int64)), (0,) * 4
    acc = _bent(graph, graph.node("Conv", value, *products, pads=list(pads)), repeated, grid)
    if op.grid.bits <= 8:
        return cut(graph, op, _shuffled(graph, _quantized(graph, acc, grid), op.stride))
    return cut(graph, op, _quantized(graph, _shuffled(graph, acc, op.stride), op.grid))


def _shuffled(graph: Graph, x: Value, factor: int) -> Value:
    return graph.node("DepthToSpace", x, blocksize=factor, mode="CRD") if factor > 1 else x


def _gdn(graph: Graph, op: Gdn, x: Sequence[Value], grids: Sequence[Grid]) -> Value:
    """The ratio of the result is that of its norm, whose weights and bias have it for their scale."""
    first, count = isinstance(op, Gdn1), len(op.gamma)
    squares = Grid(op.square_bits, np.ones(count), np.zeros(count, dtype=np.int64))
    ratio = np.ldexp(op.square_multiplier.astype(np.float64), -op.square_shift)
    scaled = graph.node("Mul", x[0], graph.channels(ratio if first else np.sqrt(ratio), FLOAT))
    u = graph.node("Abs", scaled) if first else graph.node("Mul", scaled, scaled)
    read = _centred(graph, _quantized(graph, u, squares), squares)

    ratio = np.ldexp(op.multiplier.astype(np.float64), -op.shift)
    ratio = ratio * (2.0**-10 if first else 1.0) if op.inverse else 1 / np.maximum(ratio, _LEAST)
    ratio = ratio if op.inverse else ratio * (2.0**-24 if first else 2.0**-16)
    gamma = op.gamma[:, :, None, None]
    products = _products(graph, gamma, op.weight_bits, np.maximum(op.beta, 1), ratio if first else ratio**2)
    norm = graph.node("Conv", read, *products)
    root = norm if first else graph.node("Sqrt", norm)
    return _quantized(graph, graph.node("Mul" if op.inverse else "Div", x[0], root), op.grid)


def _rescaled(graph: Graph, op: Add | Multiply | Requantize, x: Sequence[Value], grids: Sequence[Grid]) -> Value:
    """Rounded half up before it is quantized: fixed point has ties, which QuantizeLinear rounds to even."""
    acc = x[0]
    if isinstance(op, Multiply):
        acc = graph.node("Mul", *x)
    elif isinstance(op, Add):
        terms = [graph.node("Mul", q, graph.channels(m, FLOAT)) for q, m in zip(x, op.multipliers, strict=True)]
        acc = terms[0]
        for term in terms[1:]:
            acc = graph.node("Add", acc, term)
    value = graph.node("Mul", acc, graph.channels(op.rescaling.ratio, FLOAT))
    value = _bent(graph, value, op.rescaling, op.grid)
    value = graph.node("Floor", graph.node("Add", value, graph.constant(0.5, FLOAT)))
    return _quantized(graph, value, op.grid)


def _sigmoid(graph: Graph, op: Sigmoid, x: Sequence[Value], grids: Sequence[Grid]) -> Value:
    y = graph.node("Sigmoid", graph.node("Mul", x[0], graph.channels(grids[0].scale, FLOAT)))
    return _quantized(graph, graph.node("Mul", y, graph.channels(1 / op.grid.scale, FLOAT)), op.grid)


def _pixel_shuffle(graph: Graph, op: PixelShuffle, x: Sequence[Value], grids: Sequence[Grid]) -> Value:
    return _quantized(graph, _shuffled(graph, x[0], op.factor), op.grid)


_EMIT: dict[type[Operation], Callable[..., Value]] = {
    Convolution: _convolution,
    TransposedConvolution: _transposed_convolution,
    Gdn: _gdn,
    Gdn1: _gdn,
    Add: _rescaled,
    Requantize: _rescaled,
    Multiply: _rescaled,
    Sigmoid: _sigmoid,
    PixelShuffle: _pixel_shuffle,
}
