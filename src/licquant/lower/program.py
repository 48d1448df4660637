"""Quantized graph → integer program: every float parameter becomes the integer it stands for.

Accumulator bounds are proved here, since ``Part`` refuses operations whose accumulator could overflow.
"""

from __future__ import annotations

from collections.abc import Callable

from licquant.models.graph import (
    ACTIVATION,
    ADDITION,
    CONVOLUTION,
    INPUT,
    NORMALIZATION,
    PIXEL_SHUFFLE,
    PRODUCT,
    SIGMOID,
    TRANSPOSED_CONVOLUTION,
    Step,
)
from licquant.program.arithmetic import weight_type
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
    Sigmoid,
    TransposedConvolution,
)
from licquant.program.part import Part, Program
from licquant.quant.constants import (
    addition_constants,
    gdn_constants,
    integer_bias,
    integer_weight,
    layer_rescaling,
    sigmoid_table,
    square_constants,
)
from licquant.quant.grids import squares_of
from licquant.quant.network import QuantizedModel, QuantizedPart


def lower_model(quantized: QuantizedModel) -> Program:
    """The integer program of a quantized model; ``LoweringError`` if a layer cannot be expressed."""
    return Program({name: lower_part(quantized.part(name)) for name in quantized.parts})


def lower_part(part: QuantizedPart) -> Part:
    """One part as operations, in the same order and with the same names as its graph's steps."""
    operations = [_LOWER[step.kind](part, step, part.tensors[step.name].grid) for step in part.graph]
    return Part(part.graph.name, part.tensors[INPUT].grid, tuple(operations))


def _convolution(part: QuantizedPart, step: Step, grid: Grid) -> Operation:
    layer = part.layers[step.name]
    return Convolution(
        step.name,
        step.inputs,
        grid,
        weight=integer_weight(part, step).astype(weight_type(layer.bits)),
        weight_bits=layer.bits,
        bias=integer_bias(part, step),
        stride=layer.stride,
        padding=layer.padding,
        groups=layer.groups,
        rescaling=layer_rescaling(part, step),
    )


def _transposed_convolution(part: QuantizedPart, step: Step, grid: Grid) -> Operation:
    layer = part.layers[step.name]
    return TransposedConvolution(
        step.name,
        step.inputs,
        grid,
        weight=integer_weight(part, step).astype(weight_type(layer.bits)),
        weight_bits=layer.bits,
        bias=integer_bias(part, step),
        stride=layer.stride,
        padding=layer.padding,
        output_padding=layer.output_padding,
        rescaling=layer_rescaling(part, step),
    )


def _normalization(part: QuantizedPart, step: Step, grid: Grid) -> Operation:
    layer = part.layers[step.name]
    multiplier, shift = gdn_constants(part, step)
    square_multiplier, square_shift = square_constants(part, step)
    return (Gdn1 if layer.power == 1 else Gdn)(
        step.name,
        step.inputs,
        grid,
        gamma=integer_weight(part, step).astype(weight_type(layer.bits)),
        weight_bits=layer.bits,
        beta=integer_bias(part, step),
        square_bits=part.tensors[squares_of(step.name)].bits,
        square_multiplier=square_multiplier,
        square_shift=square_shift,
        multiplier=multiplier,
        shift=shift,
        inverse=layer.inverse,
    )


def _addition(part: QuantizedPart, step: Step, grid: Grid) -> Operation:
    multipliers, rescaling = addition_constants(part, step)
    return Add(step.name, step.inputs, grid, multipliers, rescaling)


def _activation(part: QuantizedPart, step: Step, grid: Grid) -> Operation:
    return Requantize(step.name, step.inputs, grid, layer_rescaling(part, step))


def _product(part: QuantizedPart, step: Step, grid: Grid) -> Operation:
    return Multiply(step.name, step.inputs, grid, layer_rescaling(part, step))


def _sigmoid(part: QuantizedPart, step: Step, grid: Grid) -> Operation:
    return Sigmoid(step.name, step.inputs, grid, sigmoid_table(part, step))


def _pixel_shuffle(part: QuantizedPart, step: Step, grid: Grid) -> Operation:
    return PixelShuffle(step.name, step.inputs, grid, step.factor)


_LOWER: dict[str, Callable[[QuantizedPart, Step, Grid], Operation]] = {
    CONVOLUTION: _convolution,
    TRANSPOSED_CONVOLUTION: _transposed_convolution,
    NORMALIZATION: _normalization,
    ADDITION: _addition,
    ACTIVATION: _activation,
    PRODUCT: _product,
    SIGMOID: _sigmoid,
    PIXEL_SHUFFLE: _pixel_shuffle,
}
