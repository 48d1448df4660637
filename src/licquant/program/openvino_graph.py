"""A part of a program as an OpenVINO model that the CPU plugin runs in INT8.

The graph works in the program's own units: every activation is a float that holds q - zero_point, every
accumulator a float that holds the integer accumulator (rounded to 24 bits where it is longer). What makes
OpenVINO choose INT8 kernels is its pattern for them: FakeQuantize with 256 levels on the activations, int8
constants behind a Convert as weights. Found by measurement, and asserted in the tests:

    convolution             INT8 with any zero point, per tensor or per channel
    transposed convolution  INT8 only where q - zero_point fits int8 (zero point in mid-range)
    activations or weights of 9 to 14 bits   two INT8 products (``openvino_layers.py``)
    both, or one of more bits                float32

A transposed convolution whose output is exactly once or twice the size of its input runs as such, which is
fastest; every other one as a convolution and a pixel shuffle. With few output channels the latter fills the
vector lanes better too, and for other geometries OpenVINO (2026.4) has float kernels that crashed or, with a
FakeQuantize fused to them, gave wrong channels.
"""

from collections.abc import Callable, Sequence
from functools import partial, reduce

import numpy as np

from licquant.program.arithmetic import FIXED_POINT_BITS, Floats, Ints
from licquant.program.grid import Grid
from licquant.program.kernel_rounding import added, divisible, outer, scale_and_shift
from licquant.program.lean_openvino import opset, ov
from licquant.program.openvino_layers import (
    Node,
    as_it_is,
    by_channel,
    norms,
    quantize_node,
    runs_as_convolution,
    sums,
    vector,
    weights_node,
)
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
from licquant.program.saturation import BYTE_BITS

# Values, the grid that they come to, and the ratio of each channel's values to it.
Quantize = Callable[[Node, Grid, Floats], Node]

_PIXEL_CHANNELS = 4
RESULT = "/result"  # ends the name of a node that stands for a layer, beside the layer's own
_HALVES = np.float32(2**12 + 1)  # times a float32, it takes apart the upper and the lower half of its digits


def build(part: Part, like: Part | None = None, fused: bool = True, rescaled_apart: bool = False) -> ov.Model:
    """The OpenVINO model of a part, for any height and width.

    like:  for kernels that round in another way when they rescale, or cannot do transposed convolutions in INT8: sums
           are rescaled by operations of their own, and such layers run as convolutions. The results are those that
           this part has without it: it is the part as it was before it was laid out
    fused: whether elementwise kernels multiply and add with one rounding; where they do not, that is written out
    rescaled_apart: for kernels that round in another way though their sums are right: only the rescaling by operations
           of their own

    Input and output are stored integers in float32 [1, C, H, W]; where ``interleaved``, [1, H, W, C], and uint8 if
    they have at most 8 bits.
    """
    dtype, channels = np.uint8 if in_bytes(part.input_grid) else np.float32, part.input_grid.channels
    shape = [1, -1, -1, channels] if interleaved(part.input_grid) else [1, channels, -1, -1]
    parameter = opset.parameter(shape, dtype, name=INPUT)
    x = opset.convert(parameter, "f32")
    if interleaved(part.input_grid):
        x = opset.transpose(x, vector([0, 3, 1, 2]))
    tensors, layers, apart = {INPUT: _centre(x, part.input_grid)}, set[str](), like is not None
    quantize = _fake_quantize if fused else _rounded_once
    kernels = _kernels(like or part, quantize) if apart or rescaled_apart else {}
    for op in part.operations:
        inputs = [tensors[name] for name in op.inputs]
        if isinstance(op, Add | Multiply | Sigmoid | Requantize):
            # Fused to a layer these would read its results before they are rounded (OpenVINO 2026.4).
            inputs = [opset.floor(x) if name in layers else x for name, x in zip(op.inputs, inputs, strict=True)]
        if isinstance(op, Convolution | TransposedConvolution):
            layers.add(op.name)
            acc = opset.add(sums(op, inputs[0], part.input_grids(op)[0], apart), by_channel(op.bias))
            # The floor of an integer: nothing that OpenVINO moves into the layer's kernel.
            acc = opset.floor(acc) if op.name in kernels else acc
            tensors[op.name] = _rescale(acc, op.rescaling, op.grid, kernels.get(op.name, _fake_quantize))
        else:
            emit = partial(_gdn, apart=apart) if isinstance(op, Gdn) else _EMIT[type(op)]
            tensors[op.name] = emit(op, inputs, part.input_grids(op), quantize)
        if op.grid.bits == FIXED_POINT_BITS:  # OpenVINO folds the scales and drops the layer's own node's name
            tensors[op.name].set_friendly_name(op.name + RESULT)
    return ov.Model([_output(tensors[part.output], part.output_grid)], [parameter], part.name)


def correlation(weight: Ints, stride: int) -> ov.Model:
    """uint8 [1, I, H, W], any H and W, to the sums of its INT8 correlation without padding, float32 [1, O, H', W'].

    weight: [O, I, kh, kw] within int8.
    """
    parameter = opset.parameter([1, weight.shape[1], -1, -1], np.uint8, name=INPUT)
    low, high = np.zeros(1, dtype=np.int64), np.full(1, 255)
    x = quantize_node(opset.convert(parameter, "f32"), low, high, low, high, 256)
    return ov.Model(
        [opset.convolution(x, weights_node(weight, BYTE_BITS), [stride] * 2, [0, 0], [0, 0], [1, 1])], [parameter]
    )


def interleaved(grid: Grid) -> bool:
    """Whether a tensor passes in and out with its channels innermost: pixels, as image files have them.

    For many channels OpenVINO transposes twice: at 128 of them that took longer than the convolution.
    """
    return grid.channels <= _PIXEL_CHANNELS


def in_bytes(grid: Grid) -> bool:
    """Whether a tensor passes in and out as uint8; where it is planar, converting takes longer than float32."""
    return grid.bits <= 8 and interleaved(grid)


# --- tensors in and out -------------------------------------------------------------------------------------


def _centre(x: Node, grid: Grid) -> Node:
    """Stored integers to q - zero_point, as the FakeQuantize that INT8 kernels want before them."""
    if grid.bits == FIXED_POINT_BITS:
        return x
    if grid.bits > 8:
        return opset.subtract(x, by_channel(grid.zero_point))
    shifted = opset.subtract(x, by_channel(grid.zero_point)) if (grid.zero_point != 0).any() else x
    return _fake_quantize(shifted, grid, np.ones(grid.channels))


def _output(x: Node, grid: Grid) -> Node:
    if in_bytes(grid):
        # Convert truncates; the values are integers up to float rounding, which the half takes care of.
        x = opset.convert(opset.add(x, by_channel(grid.zero_point + 0.5)), "u8")
    elif grid.bits != FIXED_POINT_BITS:
        x = opset.add(x, by_channel(grid.zero_point))
    return opset.transpose(x, vector([0, 2, 3, 1])) if interleaved(grid) else x


def _fake_quantize(x: Node, grid: Grid, ratio: Floats) -> Node:
    """round(x · ratio[c]) clamped to the grid, as q - zero_point."""
    low, high = -grid.zero_point, grid.range[1] - grid.zero_point
    ratio = divisible(ratio)
    outer_low, outer_high = outer(grid)
    if grid.bits > 8:
        return quantize_node(x, outer_low / ratio, outer_high / ratio, outer_low, outer_high, (1 << grid.bits) + 1)
    # INT8 kernels want 256 levels whatever the width: the narrower range is a clamp before.
    if (high < outer_high).any():
        x = opset.minimum(x, by_channel(high / ratio))
    if (low > outer_low).any():
        x = opset.maximum(x, by_channel(low / ratio))
    return quantize_node(x, outer_low / ratio, outer_high / ratio, outer_low, outer_high, 256)


def _rescale(acc: Node, rescaling: Rescaling, grid: Grid, quantize: Quantize, unit: float = 1.0) -> Node:
    """The piecewise linear rescaling and the output grid, of accumulators that count multiples of ``unit``."""
    positive = unit * rescaling.ratio
    negative = unit * np.ldexp(rescaling.negative.astype(np.float64), -rescaling.shift)
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
        return opset.multiply(acc, by_channel(positive))
    return quantize(acc, grid, positive)


def _kernels(part: Part, elementwise: Quantize) -> dict[str, Quantize]:
    """Layer → what ``_fake_quantize`` gives in its kernel, without one; or in that of the clamp before it."""
    stored = _stored(part)
    return {
        op.name: elementwise if op.grid.bits < 8 else partial(_rounded, op, op.name in stored and op.grid.bits == 8)
        for op in part.operations
        if isinstance(op, Convolution | TransposedConvolution)
    }


def _stored(part: Part) -> set[str]:
    """What kernels write as bytes: what INT8 layers read."""
    stored = {part.output} if not interleaved(part.output_grid) else set()
    for op in reversed(part.operations):
        if _reads_bytes(op, part.input_grids(op)[0]) or (isinstance(op, PixelShuffle) and op.name in stored):
            stored |= set(op.inputs)
    return stored


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
    x = opset.multiply(x, by_channel(scale_and_shift(grid, ratio)[0]))
    if shift.any():
        x = opset.add(as_it_is(x), by_channel(shift))
    x = opset.round(x, "half_to_even")
    return _clamped(opset.add(x, by_channel(outer(grid)[0])) if stored else x, grid)


def _rounded_once(x: Node, grid: Grid, ratio: Floats) -> Node:
    """What ``_fake_quantize`` gives in an elementwise kernel that has a fused product and sum, without one.

    The product's error is found from halves of both factors (Dekker), the sum's from what became of the terms (Knuth).
    No fusing of these operations gives other values, if only the product is what both read.
    """
    scale, shift = scale_and_shift(grid, ratio)
    product = as_it_is(opset.multiply(x, by_channel(scale)))
    spread = opset.multiply(x, by_channel([_HALVES]))
    upper = opset.subtract(spread, opset.subtract(spread, x))
    lower = opset.subtract(x, upper)
    scale_upper = (_HALVES * scale) - (_HALVES * scale - scale)
    scale_lower = scale - scale_upper
    error = opset.subtract(opset.multiply(upper, by_channel(scale_upper)), product)
    for half, constant in ((upper, scale_lower), (lower, scale_upper), (lower, scale_lower)):
        error = opset.add(error, opset.multiply(half, by_channel(constant)))
    total = opset.add(product, by_channel(shift))
    added = opset.subtract(total, product)
    lost = opset.subtract(product, opset.subtract(total, added))
    lost = opset.add(lost, opset.subtract(by_channel(shift), added))
    total = opset.round(opset.add(total, opset.add(lost, error)), "half_to_even")
    return _clamped(opset.add(total, by_channel(outer(grid)[0])), grid)


def _clamped(x: Node, grid: Grid) -> Node:
    """Integers q - zero_point, clamped to the grid."""
    if grid.bits <= 8:
        return _fake_quantize(x, grid, np.ones(grid.channels))
    low, high = outer(grid)
    return opset.minimum(opset.maximum(x, by_channel(low)), by_channel(high))


# --- operations ---------------------------------------------------------------------------------------------


def _gdn(op: Gdn, x: Sequence[Node], grids: Sequence[Grid], quantize: Quantize, apart: bool) -> Node:
    channels = len(op.gamma)
    squares = Grid(op.square_bits, np.ones(channels), np.zeros(channels, dtype=np.int64))
    ratio = np.ldexp(op.square_multiplier.astype(np.float64), -op.square_shift)
    first = isinstance(op, Gdn1)
    u = _fake_quantize(opset.abs(x[0]) if first else opset.multiply(x[0], x[0]), squares, ratio)
    norm = opset.add(norms(op, u, grids[0], apart), by_channel(np.maximum(op.beta, 1)))
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
    return opset.multiply(x, by_channel(ratio)) if grid.bits == FIXED_POINT_BITS else quantize(x, grid, ratio)


def _add(op: Add, x: Sequence[Node], grids: Sequence[Grid], quantize: Quantize) -> Node:
    multiplier = op.multipliers[0][0]
    if all((m == multiplier).all() for m in op.multipliers):
        return _rescale(_sum(x), op.rescaling, op.grid, quantize, unit=float(multiplier))
    # OpenVINO would take the multipliers for scales of INT8, and multiply the sum by one of them: no longer an integer.
    terms = [as_it_is(opset.multiply(q, by_channel(m))) for q, m in zip(x, op.multipliers, strict=True)]
    return _rescale(_sum(terms), op.rescaling, op.grid, quantize)


def _sum(terms: Sequence[Node]) -> Node:
    return reduce(opset.add, terms)


def _requantize(op: Requantize, x: Sequence[Node], grids: Sequence[Grid], quantize: Quantize) -> Node:
    return _rescale(x[0], op.rescaling, op.grid, quantize)


def _multiply(op: Multiply, x: Sequence[Node], grids: Sequence[Grid], quantize: Quantize) -> Node:
    return _rescale(opset.multiply(x[0], x[1]), op.rescaling, op.grid, quantize)


def _sigmoid(op: Sigmoid, x: Sequence[Node], grids: Sequence[Grid], quantize: Quantize) -> Node:
    """The function itself: looking it up in a table would take longer."""
    y = opset.sigmoid(opset.multiply(x[0], by_channel(grids[0].scale)))
    return _quantized_or_scaled(y, op.grid, 1 / op.grid.scale, quantize)


def _pixel_shuffle(op: PixelShuffle, x: Sequence[Node], grids: Sequence[Grid], quantize: Quantize) -> Node:
    return opset.depth_to_space(x[0], "depth_first", op.factor)


_EMIT: dict[type[Operation], Callable[..., Node]] = {
    Add: _add,
    Requantize: _requantize,
    Multiply: _multiply,
    Sigmoid: _sigmoid,
    PixelShuffle: _pixel_shuffle,
}
