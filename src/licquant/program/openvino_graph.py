"""A part of a program as an OpenVINO model that the CPU plugin runs in INT8.

The graph works in the program's own units: every activation is a float that holds q - zero_point, every
accumulator a float that holds the integer accumulator (rounded to 24 bits where it is longer). What makes
OpenVINO choose INT8 kernels is its pattern for them: FakeQuantize with 256 levels on the activations, int8
constants behind a Convert as weights. Found by measurement, and asserted in the tests:

    convolution             INT8 with any zero point, per tensor or per channel
    transposed convolution  INT8 only where q - zero_point fits int8 (zero point in mid-range)
    activations > 8 bits, weights > 8 bits   float32

A transposed convolution whose output is exactly once or twice the size of its input runs as such, which is
fastest; every other one as a convolution and a pixel shuffle. With few output channels the latter fills the
vector lanes better too, and for other geometries OpenVINO (2026.4) has float kernels that crashed or, with a
FakeQuantize fused to them, gave wrong channels.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from licquant.errors import LoweringError
from licquant.program.arithmetic import FIXED_POINT_BITS, Floats, Ints
from licquant.program.grid import Grid
from licquant.program.kernel_rounding import added, divisible, outer, scale_and_shift
from licquant.program.lean_openvino import opset, ov
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

Node = Any  # OpenVINO's own node types are not usable as annotations
# Values, the grid that they come to, and the ratio of each channel's values to it.
Quantize = Callable[[Node, Grid, Floats], Node]

# Vector kernels compute this many output channels at least; a pixel shuffle that stays within it is free.
SHUFFLE_CHANNELS = 16
_PIXEL_CHANNELS = 4
LARGEST_STRIDE = 2  # of the transposed convolutions that OpenVINO runs in INT8
RESULT = "/result"  # ends the name of a node that stands for a layer, beside the layer's own
_HALVES = np.float32(2**12 + 1)  # times a float32, it takes apart the upper and the lower half of its digits


def build(part: Part, like: Part | None = None, fused: bool = True) -> ov.Model:
    """The OpenVINO model of a part, for any height and width.

    like:  for kernels that round in another way when they rescale, or cannot do transposed convolutions in INT8: sums
           are rescaled by operations of their own, and such layers run as convolutions. The results are those that
           this part has without it: it is the part as it was before it was laid out
    fused: whether elementwise kernels multiply and add with one rounding; where they do not, that is written out

    Input and output are stored integers in float32 [1, C, H, W]; where ``interleaved``, [1, H, W, C], and uint8 if
    they have at most 8 bits.
    """
    dtype, channels = np.uint8 if in_bytes(part.input_grid) else np.float32, part.input_grid.channels
    shape = [1, -1, -1, channels] if interleaved(part.input_grid) else [1, channels, -1, -1]
    parameter = opset.parameter(shape, dtype, name=INPUT)
    x = opset.convert(parameter, "f32")
    if interleaved(part.input_grid):
        x = opset.transpose(x, _ints([0, 3, 1, 2]))
    tensors, layers, apart = {INPUT: _centre(x, part.input_grid)}, set[str](), like is not None
    quantize = _fake_quantize if fused else _rounded_once
    kernels = _kernels(like, quantize) if like is not None else {}
    for op in part.operations:
        inputs = [tensors[name] for name in op.inputs]
        if isinstance(op, Add | Multiply | Sigmoid | Requantize):
            # Fused to a layer these would read its results before they are rounded (OpenVINO 2026.4).
            inputs = [opset.floor(x) if name in layers else x for name, x in zip(op.inputs, inputs, strict=True)]
        if isinstance(op, Convolution | TransposedConvolution):
            layers.add(op.name)
            acc = opset.add(_sums(op, inputs[0], apart), _channels(op.bias))
            # The floor of an integer: nothing that OpenVINO moves into the layer's kernel.
            acc = opset.floor(acc) if apart else acc
            tensors[op.name] = _rescale(acc, op.rescaling, op.grid, kernels.get(op.name, _fake_quantize))
        else:
            tensors[op.name] = _EMIT[type(op)](op, inputs, part.input_grids(op), quantize)
        if op.grid.bits == FIXED_POINT_BITS:  # OpenVINO folds the scales and drops the layer's own node's name
            tensors[op.name].set_friendly_name(op.name + RESULT)
    return ov.Model([_output(tensors[part.output], part.output_grid)], [parameter], part.name)


def correlation(weight: Ints, stride: int) -> ov.Model:
    """uint8 [1, I, H, W], any H and W, to the sums of its INT8 correlation without padding, float32 [1, O, H', W'].

    weight: [O, I, kh, kw] within int8.
    """
    parameter = opset.parameter([1, weight.shape[1], -1, -1], np.uint8, name=INPUT)
    low, high = np.zeros(1, dtype=np.int64), np.full(1, 255)
    x = _quantize_node(opset.convert(parameter, "f32"), low, high, low, high, 256)
    return ov.Model([opset.convolution(x, _weights(weight, 8), [stride] * 2, [0, 0], [0, 0], [1, 1])], [parameter])


def interleaved(grid: Grid) -> bool:
    """Whether a tensor passes in and out with its channels innermost: pixels, as image files have them.

    For many channels OpenVINO transposes twice: at 128 of them that took longer than the convolution.
    """
    return grid.channels <= _PIXEL_CHANNELS


def in_bytes(grid: Grid) -> bool:
    """Whether a tensor passes in and out as uint8; where it is planar, converting takes longer than float32."""
    return grid.bits <= 8 and interleaved(grid)


def runs_as_convolution(op: TransposedConvolution, apart: bool = False) -> bool:
    """Whether a transposed convolution is run as a convolution and a pixel shuffle (see the top and ``build``)."""
    square = op.kernel[0] == op.kernel[1]
    if square and apart and op.weight_bits <= 8:
        return True
    few = op.weight.shape[1] * op.stride**2 <= SHUFFLE_CHANNELS
    return square and (few or op.stride > LARGEST_STRIDE or _excess(op) != 0)


def _excess(op: TransposedConvolution) -> int:
    """Output size minus stride · input size."""
    return op.kernel[0] + op.output_padding - 2 * op.padding - op.stride


# --- tensors in and out -------------------------------------------------------------------------------------


def _centre(x: Node, grid: Grid) -> Node:
    """Stored integers to q - zero_point, as the FakeQuantize that INT8 kernels want before them."""
    if grid.bits == FIXED_POINT_BITS:
        return x
    if grid.bits > 8:
        return opset.subtract(x, _channels(grid.zero_point))
    shifted = opset.subtract(x, _channels(grid.zero_point)) if (grid.zero_point != 0).any() else x
    return _fake_quantize(shifted, grid, np.ones(grid.channels))


def _output(x: Node, grid: Grid) -> Node:
    if in_bytes(grid):
        # Convert truncates; the values are integers up to float rounding, which the half takes care of.
        x = opset.convert(opset.add(x, _channels(grid.zero_point + 0.5)), "u8")
    elif grid.bits != FIXED_POINT_BITS:
        x = opset.add(x, _channels(grid.zero_point))
    return opset.transpose(x, _ints([0, 2, 3, 1])) if interleaved(grid) else x


def _fake_quantize(x: Node, grid: Grid, ratio: Floats) -> Node:
    """round(x · ratio[c]) clamped to the grid, as q - zero_point."""
    low, high = -grid.zero_point, grid.range[1] - grid.zero_point
    ratio = divisible(ratio)
    outer_low, outer_high = outer(grid)
    if grid.bits > 8:
        return _quantize_node(x, outer_low / ratio, outer_high / ratio, outer_low, outer_high, (1 << grid.bits) + 1)
    # INT8 kernels want 256 levels whatever the width: the narrower range is a clamp before.
    if (high < outer_high).any():
        x = opset.minimum(x, _channels(high / ratio))
    if (low > outer_low).any():
        x = opset.maximum(x, _channels(low / ratio))
    return _quantize_node(x, outer_low / ratio, outer_high / ratio, outer_low, outer_high, 256)


def _quantize_node(
    x: Node, low: Floats | Ints, high: Floats | Ints, out_low: Ints, out_high: Ints, levels: int
) -> Node:
    same = all((v == v[0]).all() for v in (out_low, out_high))
    outer = (out_low[:1], out_high[:1]) if same else (out_low, out_high)
    return opset.fake_quantize(x, _channels(low), _channels(high), _channels(outer[0]), _channels(outer[1]), levels)


def _rescale(acc: Node, rescaling: Rescaling, grid: Grid, quantize: Quantize) -> Node:
    """The piecewise linear rescaling and the output grid."""
    positive = rescaling.ratio
    negative = np.ldexp(rescaling.negative.astype(np.float64), -rescaling.shift)
    unsigned = grid.bits != FIXED_POINT_BITS and not grid.zero_point.any()
    if not rescaling.linear and not (unsigned and not negative.any()):  # a clamp at 0 is a ReLU
        slope = np.divide(negative, positive, out=np.zeros_like(negative), where=positive > 0)
        if (slope == 0).all():
            acc = opset.relu(acc)
        elif (slope == -1).all():
            acc = opset.abs(acc)
        else:
            acc = opset.prelu(acc, opset.constant(slope.astype(np.float32)))
    if grid.bits == FIXED_POINT_BITS:
        return opset.multiply(acc, _channels(positive))
    return quantize(acc, grid, positive)


def _kernels(part: Part, elementwise: Quantize) -> dict[str, Quantize]:
    """Layer → what ``_fake_quantize`` gives in its kernel, without one; or in that of the clamp before it."""
    stored = {part.output} if not interleaved(part.output_grid) else set()
    for op in reversed(part.operations):
        if _reads_bytes(op, part.input_grids(op)[0]) or (isinstance(op, PixelShuffle) and op.name in stored):
            stored |= set(op.inputs)
    return {
        op.name: elementwise if op.grid.bits < 8 else partial(_rounded, op, op.name in stored and op.grid.bits == 8)
        for op in part.operations
        if isinstance(op, Convolution | TransposedConvolution)
    }


def _reads_bytes(op: Operation, grid: Grid) -> bool:
    """Whether OpenVINO keeps what it reads as unsigned bytes: for convolutions, and for a GDN if int8 is too narrow."""
    if isinstance(op, Gdn):
        return bool((outer(grid)[0] != -128).any())
    if isinstance(op, TransposedConvolution) and not runs_as_convolution(op):
        return False
    return isinstance(op, Convolution | TransposedConvolution) and op.weight_bits <= 8


def _rounded(kernel: Convolution | TransposedConvolution, stored: bool, x: Node, grid: Grid, ratio: Floats) -> Node:
    """What ``_fake_quantize`` gives in the kernel of a layer, for grids of one zero point; without a fused product.

    kernel: the layer, in whose order of channels ``grid`` and ``ratio`` need not be;  stored: as in ``added``
    """
    if (grid.zero_point != grid.zero_point[0]).any():
        return _fake_quantize(x, grid, ratio)
    shift = added(kernel.grid, kernel.rescaling.ratio, stored)
    shift = shift if len(shift) == 1 else added(grid, ratio, stored)
    x = opset.multiply(x, _channels(scale_and_shift(grid, ratio)[0]))
    if shift.any():
        x = opset.add(_as_it_is(x), _channels(shift))
    x = opset.round(x, "half_to_even")
    return _clamped(opset.add(x, _channels(outer(grid)[0])) if stored else x, grid)


def _as_it_is(x: Node) -> Node:
    """The same values, in a way that keeps what comes before and what comes after from being made one."""
    return opset.maximum(x, _channels([np.finfo(np.float32).min]))


def _rounded_once(x: Node, grid: Grid, ratio: Floats) -> Node:
    """What ``_fake_quantize`` gives in an elementwise kernel that has a fused product and sum, without one.

    The product's error is found from halves of both factors (Dekker), the sum's from what became of the terms (Knuth).
    No fusing of these operations gives other values, if only the product is what both read.
    """
    scale, shift = scale_and_shift(grid, ratio)
    product = _as_it_is(opset.multiply(x, _channels(scale)))
    spread = opset.multiply(x, _channels([_HALVES]))
    upper = opset.subtract(spread, opset.subtract(spread, x))
    lower = opset.subtract(x, upper)
    scale_upper = (_HALVES * scale) - (_HALVES * scale - scale)
    scale_lower = scale - scale_upper
    error = opset.subtract(opset.multiply(upper, _channels(scale_upper)), product)
    for half, constant in ((upper, scale_lower), (lower, scale_upper), (lower, scale_lower)):
        error = opset.add(error, opset.multiply(half, _channels(constant)))
    total = opset.add(product, _channels(shift))
    added = opset.subtract(total, product)
    lost = opset.subtract(product, opset.subtract(total, added))
    lost = opset.add(lost, opset.subtract(_channels(shift), added))
    total = opset.round(opset.add(total, opset.add(lost, error)), "half_to_even")
    return _clamped(opset.add(total, _channels(outer(grid)[0])), grid)


def _clamped(x: Node, grid: Grid) -> Node:
    """Integers q - zero_point, clamped to the grid."""
    if grid.bits <= 8:
        return _fake_quantize(x, grid, np.ones(grid.channels))
    low, high = outer(grid)
    return opset.minimum(opset.maximum(x, _channels(low)), _channels(high))


# --- operations ---------------------------------------------------------------------------------------------


def _sums(op: Convolution | TransposedConvolution, x: Node, apart: bool) -> Node:
    """The products summed, without the bias."""
    if isinstance(op, TransposedConvolution):
        return (_shuffled_convolution if runs_as_convolution(op, apart) else _transposed_convolution)(op, x)
    stride, pads = [op.stride] * 2, [op.padding] * 2
    if op.groups == 1:
        sums = opset.convolution(x, _weights(op.weight, op.weight_bits), stride, pads, pads, [1, 1])
    else:
        grouped = op.weight.reshape(op.groups, -1, *op.weight.shape[1:])
        sums = opset.group_convolution(x, _weights(grouped, op.weight_bits), stride, pads, pads, [1, 1])
    sums.set_friendly_name(op.name)
    return sums


def _transposed_convolution(op: TransposedConvolution, x: Node) -> Node:
    pads = [op.padding] * 2
    sums = opset.convolution_backprop_data(
        x,
        _weights(op.weight, op.weight_bits),
        [op.stride] * 2,
        pads_begin=pads,
        pads_end=pads,
        dilations=[1, 1],
        output_padding=[op.output_padding] * 2,
    )
    sums.set_friendly_name(op.name)
    return sums


def _shuffled_convolution(op: TransposedConvolution, x: Node) -> Node:
    """Output position stride·j + r gathers x[j + (r + padding - t)/stride] over the taps t that divide."""
    stride, kernel, outputs = op.stride, op.kernel[0], op.weight.shape[1]
    taps = [
        (r, t, (r + op.padding - t) // stride)
        for r in range(stride)
        for t in range(kernel)
        if (r + op.padding - t) % stride == 0
    ]
    low, high = min(o for *_, o in taps), max(o for *_, o in taps)
    size = high - low + 1
    weight = np.zeros((outputs, stride, stride, op.weight.shape[0], size, size), dtype=op.weight.dtype)
    for r, t, o in taps:
        for c, u, p in taps:
            weight[:, r, c, :, o - low, p - low] = op.weight[:, :, t, u].T
    weight = weight.reshape(outputs * stride**2, op.weight.shape[0], size, size)
    # One more or fewer step of the stride than the input has, and then a few rows and columns too many.
    steps = -(-_excess(op) // stride)
    acc = opset.convolution(x, _weights(weight, op.weight_bits), [1, 1], [-low] * 2, [high + steps] * 2, [1, 1])
    acc.set_friendly_name(op.name)
    shuffled = opset.depth_to_space(acc, "depth_first", stride)
    surplus = stride * steps - _excess(op)
    if not surplus:
        return shuffled
    return opset.slice(shuffled, _ints([0, 0]), _ints([-surplus] * 2), _ints([1, 1]), _ints([2, 3]))


def _gdn(op: Gdn, x: Sequence[Node], grids: Sequence[Grid], quantize: Quantize) -> Node:
    channels = len(op.gamma)
    squares = Grid(op.square_bits, np.ones(channels), np.zeros(channels, dtype=np.int64))
    ratio = np.ldexp(op.square_multiplier.astype(np.float64), -op.square_shift)
    first = isinstance(op, Gdn1)
    u = _fake_quantize(opset.abs(x[0]) if first else opset.multiply(x[0], x[0]), squares, ratio)
    norm = opset.convolution(u, _weights(op.gamma[:, :, None, None], op.weight_bits), [1, 1], [0, 0], [0, 0], [1, 1])
    norm.set_friendly_name(op.name)
    norm = opset.add(norm, _channels(np.maximum(op.beta, 1)))
    root = norm if first else opset.sqrt(norm)
    ratio = np.ldexp(op.multiplier.astype(np.float64), -op.shift)
    if op.inverse:
        ratio = np.ldexp(ratio, -10) if first else ratio
        return _quantized_or_scaled(opset.multiply(x[0], root), op.grid, ratio, quantize)
    quotient = opset.divide(x[0], root)
    # OpenVINO would turn the division into a power and a product: one more pass over the largest tensors.
    quotient.get_rt_info()["nonconvertable_divide_0"] = True
    return _quantized_or_scaled(quotient, op.grid, ratio * (2.0**24 if first else 2.0**16), quantize)


def _quantized_or_scaled(x: Node, grid: Grid, ratio: Floats, quantize: Quantize) -> Node:
    return opset.multiply(x, _channels(ratio)) if grid.bits == FIXED_POINT_BITS else quantize(x, grid, ratio)


def _add(op: Add, x: Sequence[Node], grids: Sequence[Grid], quantize: Quantize) -> Node:
    # OpenVINO would take the multipliers for scales of INT8, and multiply the sum by one of them: no longer an integer.
    terms = [_as_it_is(opset.multiply(q, _channels(m))) for q, m in zip(x, op.multipliers, strict=True)]
    acc = terms[0]
    for term in terms[1:]:
        acc = opset.add(acc, term)
    return _rescale(acc, op.rescaling, op.grid, quantize)


def _requantize(op: Requantize, x: Sequence[Node], grids: Sequence[Grid], quantize: Quantize) -> Node:
    return _rescale(x[0], op.rescaling, op.grid, quantize)


def _multiply(op: Multiply, x: Sequence[Node], grids: Sequence[Grid], quantize: Quantize) -> Node:
    return _rescale(opset.multiply(x[0], x[1]), op.rescaling, op.grid, quantize)


def _sigmoid(op: Sigmoid, x: Sequence[Node], grids: Sequence[Grid], quantize: Quantize) -> Node:
    """The function itself: looking it up in a table would take longer."""
    y = opset.sigmoid(opset.multiply(x[0], _channels(grids[0].scale)))
    return _quantized_or_scaled(y, op.grid, 1 / op.grid.scale, quantize)


def _pixel_shuffle(op: PixelShuffle, x: Sequence[Node], grids: Sequence[Grid], quantize: Quantize) -> Node:
    return opset.depth_to_space(x[0], "depth_first", op.factor)


_EMIT: dict[type[Operation], Callable[..., Node]] = {
    Gdn: _gdn,
    Gdn1: _gdn,
    Add: _add,
    Requantize: _requantize,
    Multiply: _multiply,
    Sigmoid: _sigmoid,
    PixelShuffle: _pixel_shuffle,
}


# --- constants ----------------------------------------------------------------------------------------------


def _weights(weight: Ints, bits: int) -> Node:
    if bits > 8:
        return opset.constant(weight.astype(np.float32))
    if abs(weight).max(initial=0) > 127:
        raise LoweringError("weights of 8 bits or less must fit int8")
    scale = np.ones([1] * weight.ndim, dtype=np.float32)
    return opset.multiply(opset.convert(opset.constant(weight.astype(np.int8)), "f32"), opset.constant(scale))


def _channels(values: Any) -> Node:
    return opset.constant(np.asarray(values, dtype=np.float32).reshape(1, -1, 1, 1))


def _ints(values: list[int]) -> Node:
    return opset.constant(np.array(values, dtype=np.int64))
