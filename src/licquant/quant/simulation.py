"""The simulation of a part that equals the integer program exactly, on any device PyTorch runs on.

Convolutions run in float64, where every sum of these integers is exact; everything between them is int64.
``network.py`` is the fast and differentiable approximation of the same thing; this is what the rate of the exact
zone is measured with, and what ties the quantized graph to the files.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from licquant.models.graph import ADDITION, INPUT, NORMALIZATION, PIXEL_SHUFFLE, PRODUCT, SIGMOID, Step, run_float
from licquant.program.arithmetic import Ints, activation_range
from licquant.program.ops import Rescaling
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
from licquant.quant.network import QuantizedPart


@torch.no_grad()
def simulate_exactly(part: QuantizedPart, q: Tensor) -> Tensor:
    """Centred integers of the input [B, C, H, W], any dtype, to those of the output, int64."""
    tensors = {INPUT: q.long()}
    for step in part.graph:
        tensors[step.name] = _run(part, step, [tensors[name] for name in step.inputs])
    return tensors[part.graph.output]


def _run(part: QuantizedPart, step: Step, q: Sequence[Tensor]) -> Tensor:
    if step.kind == NORMALIZATION:
        return _clamp(part, step, _normalize(part, step, q[0]))
    if step.kind == ADDITION:
        multipliers, rescaling = addition_constants(part, step)
        acc = sum((_channels(m) * x for m, x in zip(multipliers, q, strict=True)), torch.zeros_like(q[0]))
        return _clamp(part, step, _rescale(acc, rescaling))
    if step.kind == SIGMOID:
        stored = q[0] + part.tensors[step.inputs[0]].zero_point.long().view(1, -1, 1, 1)
        centre = part.tensors[step.name].zero_point.long().view(1, -1, 1, 1)
        return torch.from_numpy(sigmoid_table(part, step))[stored] - centre
    if step.kind == PIXEL_SHUFFLE:
        return run_float(step, q)
    acc = _accumulate(part, step, q[0]) if step.has_weights else (q[0] * q[1] if step.kind == PRODUCT else q[0])
    return _clamp(part, step, _rescale(acc, layer_rescaling(part, step)))


def _accumulate(part: QuantizedPart, step: Step, q: Tensor) -> Tensor:
    layer = part.layers[step.name]
    weight, bias = (torch.from_numpy(v).double() for v in (integer_weight(part, step), integer_bias(part, step)))
    return layer.accumulate(q.double(), weight, bias).round().long()


def _rescale(acc: Tensor, rescaling: Rescaling) -> Tensor:
    multiplier = torch.where(acc < 0, _channels(rescaling.negative), _channels(rescaling.positive))
    shift = _channels(rescaling.shift)
    return (acc * multiplier + (1 << (shift - 1))) >> shift


def _normalize(part: QuantizedPart, step: Step, q: Tensor) -> Tensor:
    layer = part.layers[step.name]
    multiplier, shift = (_channels(v) for v in square_constants(part, step))
    squares = (layer.operand(q) * multiplier + (1 << (shift - 1))) >> shift
    squares = squares.clamp(max=activation_range(part.tensors[squares_of(step.name)].bits)[1])
    norm = _accumulate(part, step, squares).clamp(min=1)
    root = norm if layer.power == 1 else _integer_sqrt(norm << 16)
    multiplier, shift = (_channels(v) for v in gdn_constants(part, step))
    if layer.inverse and layer.power == 1:
        return _rescale_product(q, norm, multiplier, shift + 10)
    if layer.inverse:
        return (q * root * multiplier + (1 << (shift + 7))) >> (shift + 8)
    numerator = (q * multiplier) << (24 - shift).clamp(min=0)
    denominator = root << (shift - 24).clamp(min=0)
    return torch.div(2 * numerator + denominator, 2 * denominator, rounding_mode="floor")


def _rescale_product(q: Tensor, n: Tensor, multiplier: Tensor, shift: Tensor) -> Tensor:
    """As ``program.arithmetic.rescale_product``."""
    scaled = q * multiplier
    upper = scaled * (n >> 10) + ((scaled * (n & 1023)) >> 10)
    return (upper + (1 << (shift - 11))) >> (shift - 10)


def _integer_sqrt(value: Tensor) -> Tensor:
    root = value.double().sqrt().long()
    root = torch.where(root * root > value, root - 1, root)
    return torch.where((root + 1) * (root + 1) <= value, root + 1, root)


def _clamp(part: QuantizedPart, step: Step, y: Tensor) -> Tensor:
    tensor = part.tensors[step.name]
    low, high = activation_range(tensor.bits)
    z = tensor.zero_point.long().view(1, -1, 1, 1)
    return torch.minimum(torch.maximum(y, low - z), high - z)


def _channels(values: Ints) -> Tensor:
    return torch.from_numpy(values).view(1, -1, 1, 1)
