"""Sums of products in 32-bit integers, by ConvInteger: exact by its definition, on INT8 kernels.

ConvInteger multiplies bytes. Wider inputs and weights are taken apart into bytes, each with a zero point of its own,

    q - z = Σ 2^(8i) (q_i - z_i)        w = Σ 2^(8j) (w_j - v_j)

and each pair of bytes is a convolution of its own: a *plane* of the sum, worth 2^(8(i + j)). All bytes are unsigned:
kernels for signed weights add pairs of products in 16 bits on some machines, where they saturate.

A transposed convolution is a convolution that gives the stride² output positions of each input position as channels,
and a pixel shuffle after it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from licquant.errors import ExportError
from licquant.onnx_export.graph import Graph, Value
from licquant.program.arithmetic import FIXED_POINT_BITS, Ints
from licquant.program.grid import Grid
from licquant.program.ops import Convolution, TransposedConvolution

# Products of two bytes: as many fit int32.
MAX_PRODUCTS = ((1 << 31) - 1) // 255**2


@dataclass(frozen=True, eq=False)
class Sums:
    """An accumulator [N, C, H, W] in parts: Σ 2^(8·place) · plane + constant, planes in int32, constant int64[C]."""

    planes: tuple[tuple[int, Value], ...]
    constant: Ints


@dataclass(frozen=True, eq=False)
class _Correlation:
    """weight: [O, I/groups, kh, kw];  pads: rows and columns before, rows and columns after; negative ones cut off."""

    name: str
    weight: Ints
    weight_bits: int
    stride: int
    pads: tuple[int, int, int, int]
    groups: int


def stored_type(grid: Grid) -> type[np.uint8] | type[np.int32]:
    """In what type a tensor's stored integers are passed on."""
    return np.uint8 if grid.bits <= 8 else np.int32


def convolution(graph: Graph, op: Convolution, x: Value, grid: Grid) -> Sums:
    """The accumulator of a convolution of stored integers, with its bias."""
    p = op.padding
    same = _Correlation(op.name, op.weight, op.weight_bits, op.stride, (p, p, p, p), op.groups)
    return _correlate(graph, same, x, grid, op.bias)


def matrix(graph: Graph, name: str, weight: Ints, weight_bits: int, x: Value, grid: Grid, bias: Ints) -> Sums:
    """weight [O, I] times the channels of x, plus bias."""
    return _correlate(graph, _Correlation(name, weight[:, :, None, None], weight_bits, 1, (0,) * 4, 1), x, grid, bias)


@dataclass(frozen=True)
class _Axis:
    """A transposed convolution along one axis: output stride·j + r gathers x[j + offset] · w[t].

    taps: (r, t, offset);  surplus: positions too many at the end
    """

    taps: tuple[tuple[int, int, int], ...]
    low: int
    size: int
    pads: tuple[int, int]
    surplus: int

    @classmethod
    def of(cls, op: TransposedConvolution, kernel: int) -> _Axis:
        taps = tuple(
            (r, t, (r + op.padding - t) // op.stride)
            for r in range(op.stride)
            for t in range(kernel)
            if (r + op.padding - t) % op.stride == 0
        )
        low, high = min(o for *_, o in taps), max(o for *_, o in taps)
        excess = kernel + op.output_padding - 2 * op.padding - op.stride  # of the output over stride · input
        steps = -(-excess // op.stride)
        return cls(taps, low, high - low + 1, (-low, high + steps), op.stride * steps - excess)


def transposed_convolution(graph: Graph, op: TransposedConvolution, x: Value, grid: Grid) -> Sums:
    """The accumulator before its ``shuffled``: channel c·stride² + i·stride + j is for row i and column j."""
    weight, pads = as_correlation(op)
    correlation = _Correlation(op.name, weight, op.weight_bits, 1, pads, 1)
    return _correlate(graph, correlation, x, grid, op.bias.repeat(op.stride**2))


def as_correlation(op: TransposedConvolution) -> tuple[Ints, tuple[int, int, int, int]]:
    """(weights [O·stride², I, kh, kw], pads) of the convolution that comes before the shuffle; pads may be negative."""
    rows, columns = (_Axis.of(op, kernel) for kernel in op.kernel)
    inputs, outputs = op.weight.shape[:2]
    weight = np.zeros((outputs, op.stride, op.stride, inputs, rows.size, columns.size), dtype=op.weight.dtype)
    for r, t, o in rows.taps:
        for c, u, p in columns.taps:
            weight[:, r, c, :, o - rows.low, p - columns.low] = op.weight[:, :, t, u].T
    pads = rows.pads[0], columns.pads[0], rows.pads[1], columns.pads[1]
    return weight.reshape(-1, inputs, rows.size, columns.size), pads


def transposed_rows(graph: Graph, op: TransposedConvolution, stored: Value) -> Value:
    """The output of a transposed convolution from the stored integers of all its channels."""
    return cut(graph, op, shuffled(graph, stored, op.grid, op.stride))


def cut(graph: Graph, op: TransposedConvolution, shuffled: Value) -> Value:
    """Without the last rows and columns, where a shuffle gives more than there are."""
    surplus = [_Axis.of(op, kernel).surplus for kernel in op.kernel]
    if not any(surplus):
        return shuffled
    axes = [axis for axis, n in zip((2, 3), surplus, strict=True) if n]
    starts, ends = [0] * len(axes), [-n for n in surplus if n]
    return graph.node("Slice", shuffled, *(graph.constant(v, np.int64) for v in (starts, ends, axes)))


def shuffled(graph: Graph, x: Value, grid: Grid, factor: int) -> Value:
    """Stored integers [N, C·factor², H, W] to [N, C, factor·H, factor·W]."""
    if factor == 1:
        return x
    # Not DepthToSpace, which runtimes have for few types.
    r, height, width = graph.constant([factor], np.int64), graph.size(x, 2), graph.size(x, 3)
    head = [graph.size(x, 0), graph.constant([grid.channels], np.int64)]
    apart = graph.node("Concat", *head, r, r, height, width, axis=0)
    moved = graph.node("Transpose", graph.node("Reshape", x, apart), perm=[0, 1, 4, 2, 5, 3])
    sides = [graph.node("Mul", side, r) for side in (height, width)]
    return graph.node("Reshape", moved, graph.node("Concat", *head, *sides, axis=0))


def _correlate(graph: Graph, op: _Correlation, x: Value, grid: Grid, bias: Ints) -> Sums:
    """Raises ``ExportError`` if the products are so many that sums of bytes would not fit int32."""
    products = op.weight[0].size
    if products > MAX_PRODUCTS:
        raise ExportError(f"{op.name}: sums of {products} products do not fit ConvInteger: at most {MAX_PRODUCTS} do")
    constant = bias.astype(np.int64)
    if (grid.zero_point != grid.zero_point[0]).any():
        x, op = _padded_channels(graph, op, x, grid), _without_pads(op)
        constant = constant - _zero_point_sums(op, grid)
        grid = Grid(grid.bits, grid.scale, np.zeros_like(grid.zero_point))
    planes = []
    for i, (q, z) in enumerate(_bytes(graph, x, grid)):
        q, pads = _within_bounds(graph, q, z, op.pads)
        for j, (w, v) in enumerate(_weight_bytes(op)):
            inputs = q, *(graph.constant(one, np.uint8) for one in (w, z, v))
            strides = [op.stride, op.stride]
            sums = graph.node("ConvInteger", *inputs, pads=list(pads), strides=strides, group=op.groups)
            planes.append((i + j, sums))
    return Sums(tuple(planes), constant)


def _weight_bytes(op: _Correlation) -> Iterator[tuple[Ints, int]]:
    """(bytes, zero point) of the weights, the lowest first."""
    if op.weight_bits <= 8:
        yield op.weight.astype(np.int16) + 128, 128
    else:
        stored = op.weight.astype(np.int64) + (1 << 15)
        yield stored & 255, 0
        yield stored >> 8, 128


def _bytes(graph: Graph, x: Value, grid: Grid) -> Iterator[tuple[Value, int]]:
    """(bytes, zero point) of stored integers of one zero point, the lowest first."""
    zero_point = int(grid.zero_point[0])
    if grid.bits <= 8:
        yield x, zero_point
        return
    step, rest, count = graph.constant(256, np.int64), graph.cast(x, np.int64), 2
    if grid.bits == FIXED_POINT_BITS:
        count, zero_point = 4, 1 << 31
        rest = graph.node("Add", rest, graph.constant(zero_point, np.int64))
    for place in range(count):
        last = place == count - 1
        low = rest if last else graph.node("Mod", rest, step)
        yield graph.cast(low, np.uint8), zero_point >> 8 * place & 255
        rest = rest if last else graph.node("Div", rest, step)  # of numbers that are not negative


def _within_bounds(
    graph: Graph, x: Value, zero_point: int, pads: tuple[int, int, int, int]
) -> tuple[Value, Sequence[int]]:
    """(bytes, padding left to do): a convolution cannot cut off, which a negative padding means."""
    if min(pads) >= 0:
        return x, pads
    around = graph.constant([0, 0, *pads[:2], 0, 0, *pads[2:]], np.int64)
    return graph.node("Pad", x, around, graph.constant(zero_point, np.uint8)), (0,) * 4


def _padded_channels(graph: Graph, op: _Correlation, x: Value, grid: Grid) -> Value:
    """Stored integers with each channel's own zero point around them, in their stored type."""
    if not any(op.pads):
        return x
    zero_point = graph.channels(grid.zero_point, np.int32)
    centred = graph.node("Sub", graph.cast(x, np.int32), zero_point)
    around = graph.constant([0, 0, *op.pads[:2], 0, 0, *op.pads[2:]], np.int64)
    stored = graph.node("Add", graph.node("Pad", centred, around), zero_point)
    return graph.cast(stored, stored_type(grid))


def _without_pads(op: _Correlation) -> _Correlation:
    return _Correlation(op.name, op.weight, op.weight_bits, op.stride, (0,) * 4, op.groups)


def _zero_point_sums(op: _Correlation, grid: Grid) -> Ints:
    """Σ w · zero_point for each output, int64[O]."""
    weight = op.weight.sum(axis=(2, 3), dtype=np.int64).reshape(op.groups, -1, op.weight.shape[1])
    return (weight @ grid.zero_point.reshape(op.groups, -1, 1)).ravel()
