"""Onto the grid of a tensor, and the gradients of that, as one operation.

Autograd's own dozen passes over each activation would cost more time than the convolutions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from licquant.program.arithmetic import FIXED_POINT_BITS, activation_range

if TYPE_CHECKING:
    from licquant.quant.layers import QuantizedTensor

_SAMPLES = (0, 2, 3)  # all axes but the channels


def requantize(value: Tensor, unit: Tensor | None, tensor: QuantizedTensor) -> Tensor:
    """Centred integers of values [B, C, H, W] that count multiples of ``unit`` [C], 1 if None: DynaQuant's equation 4.

        v = value · unit / scale        q = round(clip(v + z, 0, 2^b - 1)) - z

    Gradients, with r the slope of the tensor's estimator and 1 within the closed range, else 0:

        dq/dv = 1 · r(v)        dq/dz = 1 · r(v) - 1        dq/dscale = -dq/dv · v / scale

    and what follows for value and unit. Where ``tensor.bounds_only``, dq/dscale = -1 · q / scale: together with the
    dequantization, values within the range then say nothing about the scale and those beyond it everything
    (PACT, Choi 2018; PAMS, Li 2020).
    """
    scale = tensor.scale.to(value.dtype)
    unit = torch.ones_like(scale) if unit is None else unit
    result: Tensor = _Requantize.apply(value, unit, scale, tensor.zero_point, tensor)
    return result


class _Requantize(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, value: Tensor, unit: Tensor, scale: Tensor, zero_point: Tensor, tensor: QuantizedTensor
    ) -> Tensor:
        v = value * _channels(unit / scale)
        ctx.save_for_backward(v, unit, scale, zero_point)
        ctx.tensor = tensor
        q = torch.floor(v + 0.5)
        if tensor.bits == FIXED_POINT_BITS:  # 31 bits and a sign: nothing comes near its ends
            return q
        return q.clamp_(*_bounds(zero_point, tensor.bits))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (g,) = gradients
        v, unit, scale, zero_point = ctx.saved_tensors
        tensor, (_, of_unit, of_scale, of_zero_point, _) = ctx.tensor, ctx.needs_input_grad
        within = g
        if tensor.bits != FIXED_POINT_BITS:
            bounds = _bounds(zero_point, tensor.bits)
            within = torch.where(torch.eq(torch.clamp(v, *bounds), v), g, 0.0)
        slope = tensor.rounding.slope(v)
        passed = within if slope is None else slope.mul_(within)
        to_unit = to_scale = to_zero_point = None
        if of_zero_point:
            to_zero_point = passed.sum(_SAMPLES) - g.sum(_SAMPLES)
        if of_unit or of_scale:
            moment = (passed * v).sum(_SAMPLES)
            to_unit = moment / unit
            if tensor.bounds_only:
                moment = (within * torch.floor(v + 0.5)).sum(_SAMPLES)
            to_scale = -moment / scale
        return passed * _channels(unit / scale), to_unit, to_scale, to_zero_point, None


def _channels(values: Tensor) -> Tensor:
    return values.view(1, -1, 1, 1)


def _bounds(zero_point: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """(lowest, highest) centred integer, per channel."""
    low, high = activation_range(bits)
    return _channels(low - zero_point), _channels(high - zero_point)
