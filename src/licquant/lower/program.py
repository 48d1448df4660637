"""Quantized graph → integer program: every float parameter becomes the integer it stands for.

Accumulator bounds are proved here, since ``Part`` refuses operations whose accumulator could overflow.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from licquant.errors import LoweringError
from licquant.models.graph import ACTIVATION, ADDITION, CONVOLUTION, INPUT, NORMALIZATION, TRANSPOSED_CONVOLUTION, Step
from licquant.program.arithmetic import FIXED_POINT_BITS, MULTIPLIER_BITS, Floats, Ints, dyadic, round_half_up
from licquant.program.grid import Grid
from licquant.program.ops import Add, Convolution, Gdn, Operation, Requantize, Rescaling, TransposedConvolution
from licquant.program.part import Part, Program
from licquant.quant.layers import square_shift
from licquant.quant.network import QuantizedModel, QuantizedPart


def lower_model(quantized: QuantizedModel) -> Program:
    """The integer program of a quantized model; ``LoweringError`` if a layer cannot be expressed."""
    return Program({name: lower_part(quantized.part(name)) for name in quantized.parts})


def lower_part(part: QuantizedPart) -> Part:
    """One part as operations, in the same order and with the same names as its graph's steps."""
    with torch.no_grad():
        grids = {name: tensor.grid for name, tensor in part.tensors.items()}
        operations = [_LOWER[step.kind](part, step, grids) for step in part.graph]
    return Part(part.graph.name, grids[INPUT], tuple(operations))


def rescaling(ratio: Floats, negative_slope: float) -> Rescaling:
    """Multipliers for acc · ratio[c], negative accumulators with ``negative_slope`` times that."""
    steepest = max(1.0, abs(negative_slope))
    largest, shift = dyadic(ratio * steepest)
    positive = largest if steepest == 1.0 else _at_shift(ratio, shift)
    # A slope of 1, 0 or -1 repeats the positive multiplier, so that nothing is rounded twice.
    negative = int(negative_slope) * positive if negative_slope in (-1, 0, 1) else _at_shift(ratio * negative_slope, shift)
    return Rescaling(positive, negative, shift)


def _at_shift(ratio: Floats, shift: Ints) -> Ints:
    return round_half_up(np.ldexp(ratio, shift)).astype(np.int64)


# --- one step each ------------------------------------------------------------------------------------------


def _integers(value: Tensor) -> Ints:
    return value.detach().double().numpy().astype(np.int64)


def _reals(value: Tensor) -> Floats:
    return value.detach().double().numpy()


def _convolution(part: QuantizedPart, step: Step, grids: dict[str, Grid]) -> Operation:
    layer, grid = part.layers[step.name], grids[step.name]
    ratio = _reals(layer.unit) / grid.scale
    return Convolution(
        step.name,
        step.inputs,
        grid,
        weight=_integers(layer.integer_weight(part.weight_scale(step))).astype(np.int32),
        weight_bits=layer.bits,
        bias=_integers(layer.integer_bias()),
        stride=layer.stride,
        padding=layer.padding,
        groups=layer.groups,
        rescaling=rescaling(ratio, step.negative_slope),
    )


def _transposed_convolution(part: QuantizedPart, step: Step, grids: dict[str, Grid]) -> Operation:
    layer, grid = part.layers[step.name], grids[step.name]
    ratio = _reals(layer.unit) / grid.scale
    return TransposedConvolution(
        step.name,
        step.inputs,
        grid,
        weight=_integers(layer.integer_weight(part.weight_scale(step))).astype(np.int32),
        weight_bits=layer.bits,
        bias=_integers(layer.integer_bias()),
        stride=layer.stride,
        padding=layer.padding,
        output_padding=layer.output_padding,
        rescaling=rescaling(ratio, step.negative_slope),
    )


def _normalization(part: QuantizedPart, step: Step, grids: dict[str, Grid]) -> Operation:
    """y / s_out = q · (s_in / s_out) · √(unit · n)^∓1; the constants stand in ``ops.Gdn``."""
    layer, grid, tensor = part.layers[step.name], grids[step.name], part.tensors[step.inputs[0]]
    scales = grids[step.inputs[0]].scale / grid.scale
    unit = np.sqrt(_reals(layer.unit))
    ratio = scales * unit if layer.inverse else scales / unit * 2.0**-16
    multiplier, shift = dyadic(ratio)
    return Gdn(
        step.name,
        step.inputs,
        grid,
        gamma=np.maximum(_integers(layer.integer_weight(part.weight_scale(step))), 0).astype(np.int32),
        weight_bits=layer.bits,
        beta=np.maximum(_integers(layer.integer_bias()), 0),
        square_shift=_integers(square_shift(tensor)),
        multiplier=multiplier,
        shift=shift,
        inverse=layer.inverse,
    )


def _addition(part: QuantizedPart, step: Step, grids: dict[str, Grid]) -> Operation:
    """Both inputs in one unit, the larger of their scales · 2^-k: multipliers as long as the accumulator allows."""
    grid, inputs = grids[step.name], [grids[name] for name in step.inputs]
    largest = np.max([g.scale for g in inputs], axis=0)
    fraction = MULTIPLIER_BITS - 1
    multipliers = tuple(round_half_up(g.scale / largest * 2.0**fraction).astype(np.int64) for g in inputs)
    unit = largest * 2.0**-fraction
    return Add(step.name, step.inputs, grid, multipliers, rescaling(unit / grid.scale, step.negative_slope))


def _activation(part: QuantizedPart, step: Step, grids: dict[str, Grid]) -> Operation:
    source, grid = grids[step.inputs[0]], grids[step.name]
    if FIXED_POINT_BITS == grid.bits == source.bits:
        raise LoweringError(f"{step.name}: a part needs at least one layer")
    return Requantize(step.name, step.inputs, grid, rescaling(source.scale / grid.scale, step.negative_slope))


_LOWER: dict[str, Callable[[QuantizedPart, Step, dict[str, Grid]], Operation]] = {
    CONVOLUTION: _convolution,
    TRANSPOSED_CONVOLUTION: _transposed_convolution,
    NORMALIZATION: _normalization,
    ADDITION: _addition,
    ACTIVATION: _activation,
}
