"""One quantized layer and one quantized tensor: float parameters that stand for integers.

Everything is simulated on centred integers (q - zero_point, held in floats), exactly as the integer program
computes:

    folded weight   w · s_in / unit        unit: real value of one accumulator unit, per output channel
    accumulator     Σ round(w · s_in / unit) · q + round(bias / unit)
    output          round(accumulator · unit / s_out), clamped

so a per-channel input scale is absorbed by the weights before they are quantized (design §3), and every
parameter has a gradient through the estimator of the rounding (``gradients.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from compressai.layers import GDN, GDN1
from torch import Tensor, nn

from licquant.models.graph import Step
from licquant.models.kernels import conv2d
from licquant.program.arithmetic import FIXED_POINT_BITS, activation_range, weight_range
from licquant.program.grid import Grid
from licquant.quant.gradients import Estimator, round_half_up, straight_through

# A bias is at most this many accumulator units, so that it can never be what overflows.
_BIAS_UNITS = float(1 << 28)
_SMALLEST_UNIT = 1e-20


class QuantizedTensor(nn.Module):
    """The grid of one activation tensor, its scale learnable.

    log_scale: Parameter[C], natural logarithm of the scale; zero_point: float buffer[C] of integers
    rounding:  the estimator of the gradient;  bounds_only: see ``requantize``
    """

    zero_point: Tensor
    rounding: Estimator = straight_through
    bounds_only: bool = False

    def __init__(self, bits: int, scale: Tensor, zero_point: Tensor) -> None:
        super().__init__()
        self.bits = bits
        self.log_scale = nn.Parameter(scale.detach().float().log())
        self.register_buffer("zero_point", zero_point.detach().float())

    @classmethod
    def of(cls, grid: Grid) -> QuantizedTensor:
        """A fixed grid: not trained."""
        tensor = cls(grid.bits, torch.from_numpy(grid.scale), torch.from_numpy(grid.zero_point))
        tensor.log_scale.requires_grad_(False)
        return tensor

    @property
    def scale(self) -> Tensor:
        """The real value of one step, float [C], positive."""
        return self.log_scale.exp()

    @property
    def grid(self) -> Grid:
        """The grid as the program will have it, without a gradient."""
        return Grid(
            self.bits,
            self.log_scale.detach().double().exp().numpy(),
            self.zero_point.detach().double().numpy().astype("int64"),
        )

    def quantize(self, value: Tensor, unit: Tensor | None = None) -> Tensor:
        """Values [B, C, H, W] in multiples of ``unit`` [C], else real ones, to centred integers."""
        return requantize(value, unit, self)

    def dequantize(self, q: Tensor) -> Tensor:
        """Centred integers [B, C, H, W] to real values."""
        return q * self.scale.to(q.dtype).view(1, -1, 1, 1)

    @staticmethod
    def joined(tensors: Sequence[QuantizedTensor]) -> QuantizedTensor:
        """The grid of tensors one after another along the channels, all of one width; no gradient."""
        whole = QuantizedTensor(tensors[0].bits, tensors[0].scale, tensors[0].zero_point)
        log_scale, zero_point = (torch.cat([getattr(t, n) for t in tensors]) for n in ("log_scale", "zero_point"))
        whole.log_scale, whole.zero_point = nn.Parameter(log_scale.detach(), requires_grad=False), zero_point
        return whole


class ShuffledTensor(QuantizedTensor):
    """The grid of what a pixel shuffle reads: that of what it writes, every channel's factor² times."""

    def __init__(self, written: QuantizedTensor, factor: int) -> None:
        nn.Module.__init__(self)
        self.written, self.bits, self.times = written, written.bits, factor**2

    def __getattr__(self, name: str) -> Any:
        if name in ("log_scale", "zero_point"):
            value: Tensor = getattr(self.written, name)
            return value.repeat_interleave(self.times)
        return super().__getattr__(name)


class ParametersTensor(QuantizedTensor):
    """The grid of σ and μ, of which the codec takes μ rounded to the fixed point of ŷ.

    mean_unit: of that fixed point
    """

    mean_unit: float

    @classmethod
    def of_means(cls, grid: Grid, mean_unit: float) -> ParametersTensor:
        """A fixed grid of 2 · M channels, [σ, μ]."""
        tensor = cls.of(grid)
        assert isinstance(tensor, ParametersTensor)
        tensor.mean_unit = mean_unit
        return tensor

    def dequantize(self, q: Tensor) -> Tensor:
        """Centred integers [B, 2 · M, H, W] to σ and μ as they are coded with."""
        sigma, mean = super().dequantize(q).chunk(2, 1)
        return torch.cat([sigma, round_half_up(mean / self.mean_unit) * self.mean_unit], 1)


class QuantizedLayer(nn.Module):
    """A convolution, transposed convolution or GDN with b-bit weights.

    weight: Parameter, float, as in the model (GDN: gamma); bias: Parameter[O] (GDN: beta)
    unit:   buffer[O], real value of one accumulator unit; set by ``fit_unit`` for the input scales in use
    power:  of a GDN: 2 where its product reads squares, 1 where it reads magnitudes; 0 of all other layers
    mask:   buffer like weight, 0 where a masked convolution has no weight, whatever becomes of the parameter
    rounding: the estimator of the weights' gradient; biases have so fine a grid that they need none
    """

    unit: Tensor
    mask: Tensor | None
    power: int = 0
    rounding: Estimator = straight_through

    def __init__(self, step: Step, bits: int) -> None:
        super().__init__()
        assert step.module is not None
        self.kind, self.bits, self.name = step.kind, bits, step.name
        module = step.module
        if isinstance(module, GDN):
            self.inverse, self.power = module.inverse, 1 if isinstance(module, GDN1) else 2
            weight, bias = module.gamma_reparam(module.gamma), module.beta_reparam(module.beta)
            self.output_axis, self.input_axis = 0, 1
        else:
            assert isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
            self.stride, self.padding = int(module.stride[0]), int(module.padding[0])
            self.output_padding, self.groups = int(module.output_padding[0]), module.groups
            transposed = isinstance(module, nn.ConvTranspose2d)
            self.output_axis, self.input_axis = (1, 0) if transposed else (0, 1)
            weight = module.weight
            bias = torch.zeros(module.out_channels) if module.bias is None else module.bias
        mask = getattr(module, "mask", None)
        self.register_buffer("mask", mask)
        self.weight = nn.Parameter(weight.detach() * (1 if mask is None else mask))
        self.bias = nn.Parameter(bias.detach().clone())
        self.register_buffer("unit", torch.ones(self.weight.shape[self.output_axis]))

    def columns(self, input_scale: Tensor) -> Tensor:
        """s_in of every weight, in a shape that broadcasts over the weights."""
        if self.input_axis == 1 and self.weight.dim() == 4:  # a grouped convolution sees a slice per group
            per_group = self.weight.shape[1]
            rows = input_scale.view(self.groups, per_group).repeat_interleave(
                self.weight.shape[0] // self.groups, dim=0
            )
            return rows[:, :, None, None]
        shape = [1] * self.weight.dim()
        shape[self.input_axis] = -1
        return input_scale.view(shape)

    def rows(self) -> Tensor:
        """The unit of every weight, in a shape that broadcasts over the weights."""
        shape = [1] * self.weight.dim()
        shape[self.output_axis] = -1
        return self.unit.view(shape)

    def folded(self, input_scale: Tensor) -> Tensor:
        """w · s_in: the real weight of one input integer."""
        weight = self.weight if self.mask is None else self.weight * self.mask
        return weight * self.columns(input_scale)

    def fit_unit(self, input_scale: Tensor) -> None:
        """Set the unit so that the largest folded weight of each output channel is the largest integer."""
        with torch.no_grad():
            dims = [d for d in range(self.weight.dim()) if d != self.output_axis]
            largest = self.folded(input_scale).abs().amax(dims)
            unit = torch.maximum(largest / weight_range(self.bits)[1], self.bias.abs() / _BIAS_UNITS)
            self.unit.copy_(unit.clamp(min=_SMALLEST_UNIT))

    def integer_weight(self, input_scale: Tensor) -> Tensor:
        """The b-bit integers, as floats with a gradient: clipped, then rounded, as equation 4 of DynaQuant."""
        low, high = weight_range(self.bits)
        return self.rounding((self.folded(input_scale) / self.rows()).clamp(low, high))

    def integer_bias(self) -> Tensor:
        """The bias in accumulator units, whole numbers as floats [O]."""
        return round_half_up(self.bias / self.unit)

    def operand(self, x: Tensor) -> Tensor:
        """What the layer's product reads of its input: of a GDN, squares or magnitudes."""
        return x if self.power == 0 else x.abs() if self.power == 1 else x * x

    def normalized(self, x: Tensor, norm: Tensor) -> Tensor:
        """A GDN's output of its input and β + Σ γ |x|^power."""
        root = norm if self.power == 1 else torch.sqrt(norm)
        return x * root if self.inverse else x / root

    def accumulate(self, q: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """The accumulator for centred inputs, or for the squares u of a GDN."""
        if self.kind == "gdn":
            return F.conv2d(q, weight[:, :, None, None], bias)
        if self.output_axis == 1:
            return F.conv_transpose2d(q, weight, bias, self.stride, self.padding, self.output_padding)
        return conv2d(q, weight, bias, self.stride, self.padding, self.groups)


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
    if not torch.is_grad_enabled():
        return _clipped(value * _channels(unit / scale), tensor.zero_point, tensor.bits).add_(0.5).floor_()
    result: Tensor = _Requantize.apply(value, unit, scale, tensor.zero_point, tensor)
    return result


class _Requantize(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, value: Tensor, unit: Tensor, scale: Tensor, zero_point: Tensor, tensor: QuantizedTensor
    ) -> Tensor:
        v = value * _channels(unit / scale)
        clipped = _clipped(v, zero_point, tensor.bits)
        within = None if tensor.bits == FIXED_POINT_BITS else torch.eq(clipped, v)
        _, of_unit, of_scale, *_ = ctx.needs_input_grad
        is_read = of_unit or of_scale or not tensor.rounding.is_identity
        ctx.save_for_backward(v if is_read else None, within, unit, scale)
        ctx.tensor = tensor
        return clipped.add_(0.5).floor_()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (g,) = gradients
        v, is_within, unit, scale = ctx.saved_tensors
        tensor, (_, of_unit, of_scale, of_zero_point, _) = ctx.tensor, ctx.needs_input_grad
        within = g if is_within is None else torch.where(is_within, g, 0.0)
        passed = within if tensor.rounding.is_identity else tensor.rounding.slope(v).mul_(within)
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


def _clipped(v: Tensor, zero_point: Tensor, bits: int) -> Tensor:
    """A copy of v [B, C, H, W] within the lowest and highest centred integers of every channel."""
    if bits == FIXED_POINT_BITS:  # 31 bits and a sign: nothing comes near its ends
        return v.clone()
    low, high = activation_range(bits)
    # PyTorch's clamp is three times slower where bounds have channels
    clipped = torch.maximum(v, _channels(low - zero_point))
    return torch.minimum(clipped, _channels(high - zero_point), out=clipped)
