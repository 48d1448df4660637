"""What layers sum, as OpenVINO nodes: convolutions and transposed ones, also with a factor that is wider than 8 bits.

A wide factor is taken apart into an upper and a lower half, each of which INT8 kernels read: twice the INT8 time, where
float32 takes three times as much and more. Where both factors are wide, or one is wider than both halves together, the
layer runs in float32.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from licquant.errors import LoweringError
from licquant.program.arithmetic import Floats, Ints
from licquant.program.grid import Grid
from licquant.program.lean_openvino import opset
from licquant.program.ops import Convolution, Gdn, TransposedConvolution
from licquant.program.saturation import BYTE_BITS

Node = Any  # OpenVINO's own node types are not usable as annotations
Layer = Convolution | TransposedConvolution | Gdn
Convolve = Callable[[Node, Ints, int, str], Node]  # values, weights and their bits, a name for the node → sums

HALVED_BITS = 14  # the widest factor that is taken apart; layers that must run in float32 are given wider weights
UPPER = "/upper"  # ends the name of the node that computes the upper half of a layer's sums
# Vector kernels compute this many output channels at least; a pixel shuffle that stays within it is free.
SHUFFLE_CHANNELS = 16
LARGEST_STRIDE = 2  # of the transposed convolutions that OpenVINO runs in INT8
_VALUES, _WEIGHTS = 256, 128  # what the upper half counts: -128 is no weight


def in_halves(op: Layer, grid: Grid) -> bool:
    """Whether a layer that reads such a grid is run as two INT8 products, where kernels sum exactly."""
    read = op.square_bits if isinstance(op, Gdn) else grid.bits
    narrow, wide = sorted((read, op.weight_bits))
    return narrow <= BYTE_BITS < wide <= HALVED_BITS


def sums(op: Convolution | TransposedConvolution, x: Node, grid: Grid, apart: bool) -> Node:
    """The products summed, without the bias; x: q - zero_point of that grid."""
    convolve: Convolve
    if isinstance(op, Convolution):
        convolve = partial(_convolution, op)
    else:
        convolve = partial(_shuffled_convolution if runs_as_convolution(op, apart) else _transposed_convolution, op)
    return _summed(op, convolve, x, op.weight, halves=not apart and in_halves(op, grid))


def norms(op: Gdn, squares: Node, grid: Grid, apart: bool) -> Node:
    """gamma times the squares, without beta; grid: of what the layer reads."""
    return _summed(op, _pointwise, squares, op.gamma[:, :, None, None], halves=not apart and in_halves(op, grid))


def _summed(op: Layer, convolve: Convolve, x: Node, weight: Ints, halves: bool) -> Node:
    """halves: the wider factor is unit · upper + lower, and so are the sums.

    Both are kept from becoming part of the addition: OpenVINO 2026.4 lets one convolution add to what the other has
    written, which gives wrong sums where a layer has one position.
    """
    if not halves:
        return convolve(x, weight, op.weight_bits, op.name)
    if op.weight_bits > BYTE_BITS:
        unit, factors = _WEIGHTS, [(x, half) for half in _halves_of_weights(weight)]
    else:
        unit, factors = _VALUES, [(half, weight) for half in _halves_of_values(x)]
    names = (op.name + UPPER, op.name)
    upper, lower = (as_it_is(convolve(x, w, BYTE_BITS, n)) for (x, w), n in zip(factors, names, strict=True))
    return opset.add(opset.multiply(upper, opset.constant(np.float32(unit))), lower)


def _halves_of_weights(weight: Ints) -> tuple[Ints, Ints]:
    upper = (weight + _WEIGHTS // 2) // _WEIGHTS
    return upper, weight - _WEIGHTS * upper


def _halves_of_values(x: Node) -> tuple[Node, Node]:
    number = lambda value: opset.constant(np.float32(value))  # noqa: E731
    upper = opset.floor(opset.add(opset.multiply(x, number(1 / _VALUES)), number(0.5)))
    lower = opset.subtract(x, opset.multiply(upper, number(_VALUES)))
    low, high = np.full(1, -_VALUES // 2), np.full(1, _VALUES // 2 - 1)
    return quantize_node(upper, low, high, low, high, _VALUES), quantize_node(lower, low, high, low, high, _VALUES)


def runs_as_convolution(op: TransposedConvolution, apart: bool = False) -> bool:
    """Whether a transposed convolution is run as a convolution and a pixel shuffle (see ``openvino_graph.build``)."""
    square = op.kernel[0] == op.kernel[1]
    if square and apart and op.weight_bits <= BYTE_BITS:
        return True
    few = op.weight.shape[1] * op.stride**2 <= SHUFFLE_CHANNELS
    return square and (few or op.stride > LARGEST_STRIDE or _excess(op) != 0)


def _excess(op: TransposedConvolution) -> int:
    """Output size minus stride · input size."""
    return op.kernel[0] + op.output_padding - 2 * op.padding - op.stride


def _convolution(op: Convolution, x: Node, weight: Ints, bits: int, name: str) -> Node:
    stride, pads = [op.stride] * 2, [op.padding] * 2
    if op.groups == 1:
        found = opset.convolution(x, weights_node(weight, bits), stride, pads, pads, [1, 1])
    else:
        grouped = weight.reshape(op.groups, -1, *weight.shape[1:])
        found = opset.group_convolution(x, weights_node(grouped, bits), stride, pads, pads, [1, 1])
    found.set_friendly_name(name)
    return found


def _pointwise(x: Node, weight: Ints, bits: int, name: str) -> Node:
    found = opset.convolution(x, weights_node(weight, bits), [1, 1], [0, 0], [0, 0], [1, 1])
    found.set_friendly_name(name)
    return found


def _transposed_convolution(op: TransposedConvolution, x: Node, weight: Ints, bits: int, name: str) -> Node:
    pads = [op.padding] * 2
    found = opset.convolution_backprop_data(
        x,
        weights_node(weight, bits),
        [op.stride] * 2,
        pads_begin=pads,
        pads_end=pads,
        dilations=[1, 1],
        output_padding=[op.output_padding] * 2,
    )
    found.set_friendly_name(name)
    return found


def _shuffled_convolution(op: TransposedConvolution, x: Node, weight: Ints, bits: int, name: str) -> Node:
    """Output position stride·j + r gathers x[j + (r + padding - t)/stride] over the taps t that divide."""
    (inputs, outputs), stride, kernel = weight.shape[:2], op.stride, op.kernel[0]
    taps = [
        (r, t, (r + op.padding - t) // stride)
        for r in range(stride)
        for t in range(kernel)
        if (r + op.padding - t) % stride == 0
    ]
    low, high = min(o for *_, o in taps), max(o for *_, o in taps)
    size = high - low + 1
    phases = np.zeros((outputs, stride, stride, inputs, size, size), dtype=weight.dtype)
    for r, t, o in taps:
        for c, u, p in taps:
            phases[:, r, c, :, o - low, p - low] = weight[:, :, t, u].T
    kernels = weights_node(phases.reshape(outputs * stride**2, inputs, size, size), bits)
    # One more or fewer step of the stride than the input has, and then a few rows and columns too many.
    steps = -(-_excess(op) // stride)
    acc = opset.convolution(x, kernels, [1, 1], [-low] * 2, [high + steps] * 2, [1, 1])
    acc.set_friendly_name(name)
    shuffled = opset.depth_to_space(acc, "depth_first", stride)
    surplus = stride * steps - _excess(op)
    if not surplus:
        return shuffled
    return opset.slice(shuffled, vector([0, 0]), vector([-surplus] * 2), vector([1, 1]), vector([2, 3]))


# --- constants, grids and barriers --------------------------------------------------------------------------


def as_it_is(x: Node) -> Node:
    """The same values, in a way that keeps what comes before and what comes after from being made one."""
    return opset.maximum(x, by_channel([np.finfo(np.float32).min]))


def quantize_node(x: Node, low: Floats | Ints, high: Floats | Ints, out_low: Ints, out_high: Ints, levels: int) -> Node:
    """A FakeQuantize from the range low to high, one value or [C] each, to the levels of the other range."""
    same = all((v == v[0]).all() for v in (out_low, out_high))
    outer = (out_low[:1], out_high[:1]) if same else (out_low, out_high)
    return opset.fake_quantize(x, by_channel(low), by_channel(high), by_channel(outer[0]), by_channel(outer[1]), levels)


def weights_node(weight: Ints, bits: int) -> Node:
    """As INT8 kernels want them, or float32 above 8 bits; ``LoweringError`` for what does not fit in its bits."""
    if bits > BYTE_BITS:
        return opset.constant(weight.astype(np.float32))
    if abs(weight).max(initial=0) > 127:
        raise LoweringError("weights of 8 bits or less must fit int8")
    scale = np.ones([1] * weight.ndim, dtype=np.float32)
    return opset.multiply(opset.convert(opset.constant(weight.astype(np.int8)), "f32"), opset.constant(scale))


def by_channel(values: Any) -> Node:
    """float32 [1, C, 1, 1] of C values."""
    return opset.constant(np.asarray(values, dtype=np.float32).reshape(1, -1, 1, 1))


def vector(values: list[int]) -> Node:
    """int64 [n]."""
    return opset.constant(np.array(values, dtype=np.int64))
