"""The integer constants of each step: derived here once, for the program and for its exact simulation alike."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from licquant.errors import LoweringError
from licquant.models.graph import Step
from licquant.program.arithmetic import FIXED_POINT_BITS, MULTIPLIER_BITS, Floats, Ints, dyadic, round_half_up
from licquant.program.ops import Rescaling
from licquant.quant.grids import squares_of
from licquant.quant.network import QuantizedPart

LARGEST_RATIO = 2.0 ** (MULTIPLIER_BITS - 1) - 1  # that ``arithmetic.dyadic`` expresses, and a little less


def integers(value: Tensor) -> Ints:
    """A float tensor that holds whole numbers, as int64."""
    return value.detach().double().numpy().astype(np.int64)


def integer_weight(part: QuantizedPart, step: Step) -> Ints:
    """The weights as integers; a GDN's gamma is never negative."""
    with torch.no_grad():
        weight = integers(part.layers[step.name].integer_weight(part.weight_scale(step)))
    return np.maximum(weight, 0) if part.layers[step.name].kind == "gdn" else weight


def integer_bias(part: QuantizedPart, step: Step) -> Ints:
    """The bias in accumulator units; a GDN's beta is never negative."""
    layer = part.layers[step.name]
    bias = integers(layer.integer_bias())
    return np.maximum(bias, 0) if layer.kind == "gdn" else bias


def layer_rescaling(part: QuantizedPart, step: Step) -> Rescaling:
    """Accumulator (of a product or a lone activation function: what is made of the centred inputs) to output."""
    if step.has_weights:
        return _rescaling(part, step, _unit(part, step))
    return _rescaling(part, step, np.prod([part.tensors[name].grid.scale for name in step.inputs], axis=0))


def gdn_constants(part: QuantizedPart, step: Step) -> tuple[Ints, Ints]:
    """(multiplier, shift) of ``ops.Gdn``: y / s_out = q · (s_in / s_out) · √(unit · n)^∓1; ``Gdn1``: no root."""
    scales = part.tensors[step.inputs[0]].grid.scale / part.tensors[step.name].grid.scale
    if part.layers[step.name].power == 1:
        unit = _unit(part, step)
        return _dyadic(step, scales * unit * 2.0**10 if part.layers[step.name].inverse else scales / unit * 2.0**-24)
    root = np.sqrt(_unit(part, step))
    return _dyadic(step, scales * root if part.layers[step.name].inverse else scales / root * 2.0**-16)


def square_constants(part: QuantizedPart, step: Step) -> tuple[Ints, Ints]:
    """(square_multiplier, square_shift) of ``program.ops.Gdn``: u = q² · s_in² / s_u; ``Gdn1``: |q| · s_in / s_u."""
    squares = part.tensors[squares_of(step.name)].grid.scale
    return _dyadic(step, part.tensors[step.inputs[0]].grid.scale ** part.layers[step.name].power / squares)


def addition_constants(part: QuantizedPart, step: Step) -> tuple[tuple[Ints, ...], Rescaling]:
    """(one multiplier per input, rescaling): both inputs in the unit 2^-15 of the larger of their scales."""
    scales = [part.tensors[name].grid.scale for name in step.inputs]
    largest = np.max(scales, axis=0)
    fraction = MULTIPLIER_BITS - 1
    multipliers = tuple(round_half_up(scale / largest * 2.0**fraction).astype(np.int64) for scale in scales)
    return multipliers, _rescaling(part, step, largest * 2.0**-fraction)


def sigmoid_table(part: QuantizedPart, step: Step) -> Ints:
    """``program.ops.Sigmoid``: stored integer of the input, which has one grid for all channels, to stored integer."""
    read, out = part.tensors[step.inputs[0]].grid, part.tensors[step.name].grid
    x = read.scale[0] * (np.arange(1 << read.bits) - read.zero_point[0])
    return out.quantize((1 / (1 + np.exp(-x)))[None, None])[0, 0]


def _rescaling(part: QuantizedPart, step: Step, unit: Floats) -> Rescaling:
    """From accumulators in this unit to the step's output.

    No multiplier expresses a ratio of 2^15 or more. An output of at most 16 bits, where narrow weights meet wide
    activations, then has a range of less than two units, so that the largest ratio there is stays within one unit, as
    coarse as the weights are. In fixed point it would be wrong; ``LoweringError`` names the layer.
    """
    grid = part.tensors[step.name].grid
    ratio = unit / grid.scale
    if grid.bits != FIXED_POINT_BITS:
        ratio = np.minimum(ratio, LARGEST_RATIO)
    if (ratio > LARGEST_RATIO).any():
        raise LoweringError(f"{step.name}: its weights are too coarse for its output; use more bits for its weights")
    return Rescaling.of_ratio(ratio, step.negative_slope)


def _dyadic(step: Step, ratio: Floats) -> tuple[Ints, Ints]:
    if (ratio > LARGEST_RATIO).any():
        raise LoweringError(f"{step.name}: what it reads is too coarse for its output; use more bits for it")
    return dyadic(ratio)


def _unit(part: QuantizedPart, step: Step) -> Floats:
    return part.layers[step.name].unit.detach().double().numpy()
