"""Learned quantizers: which parameters of the grids are trained, from the calibrated ones on.

         activations                                         weights
    dpa  a scale and a zero point per channel                a scale per output channel     DynaQuant, equation 4
    lsq  a step per tensor, its gradient times 1/√(N·Q)      a step per tensor, the same    Esser 2020
    pams the largest magnitude α per tensor                  per tensor, not trained        Li 2020

All can be used with either estimator of ``quant/gradients.py``. Where we differ from the papers: scales, steps and α
are trained as logarithms, so they stay positive and move by shares of themselves; a weight's unit follows the mean
(of logarithms) of its input's scales, since those are folded into the weights; PAMS's grid of the weights is that
of their largest magnitude before training instead of at every step.

A zero point is rounded and kept inside its range in every forward pass: the network in training has the grid that
will be lowered. It is one per channel only where the INT8 kernels allow it (``grids.ZeroPoints``): a convolution with
padding wants one for all channels, and where a transposed convolution reads the tensor it stays in mid-range. Where a
sigmoid reads a tensor, nothing of its grid is trained: its table needs one scale for all channels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from licquant.models.graph import INPUT, SIGMOID, Step
from licquant.program.arithmetic import activation_range, weight_range
from licquant.quant.calibrate import Statistics
from licquant.quant.gradients import Estimator
from licquant.quant.grids import ZeroPoints, squares_of, zero_points_of
from licquant.quant.layers import QuantizedLayer, QuantizedTensor
from licquant.quant.natural import OfBuffer, Shifted, parametrized
from licquant.quant.network import QuantizedModel, QuantizedPart


class Quantizer(Protocol):
    """One of the above. Each method makes a grid's parameters trainable and returns their offsets.

    per_channel, free_zero_points: the calibrated grids that it starts from, see ``insert.QuantizerSettings``
    """

    per_channel: bool
    free_zero_points: bool

    def activations(self, tensor: QuantizedTensor, values: float, zero_points: ZeroPoints) -> list[nn.Parameter]:
        """values: how many of them the tensor has for one image of a batch;  zero_points: what they may be."""

    def weights(self, layer: QuantizedLayer, read: QuantizedTensor) -> list[nn.Parameter]:
        """read: the tensor whose scales are folded into the weights."""


@dataclass(frozen=True)
class Dpa:
    """scales, zero_points: whether they are trained (table 3 of DynaQuant leaves out one at a time)."""

    scales: bool = True
    zero_points: bool = True
    per_channel = free_zero_points = True

    def activations(self, tensor: QuantizedTensor, values: float, zero_points: ZeroPoints) -> list[nn.Parameter]:
        """Offsets of a scale and of a zero point per channel, of the latter as far as the kernels allow it."""
        found = [parametrized(tensor, "log_scale", _LogScale(tensor.log_scale))] if self.scales else []
        if self.zero_points and zero_points != ZeroPoints.FIXED:
            shared = zero_points == ZeroPoints.SHARED
            found.append(parametrized(tensor, "zero_point", _ZeroPoint(tensor, shared)))
        return found

    def weights(self, layer: QuantizedLayer, read: QuantizedTensor) -> list[nn.Parameter]:
        """Offsets of one scale per output channel."""
        return [parametrized(layer, "unit", _Unit(layer.unit, read))] if self.scales else []


@dataclass(frozen=True)
class Lsq:
    """One step a tensor (Esser 2020)."""

    per_channel = free_zero_points = False

    def activations(self, tensor: QuantizedTensor, values: float, zero_points: ZeroPoints) -> list[nn.Parameter]:
        """The offset of one step; its gradient times 1/√(N·Q), N values and Q the largest integer."""
        factor = 1 / math.sqrt(values * _largest(tensor))
        return [parametrized(tensor, "log_scale", _LogScale(tensor.log_scale, shared=True, gradient=factor))]

    def weights(self, layer: QuantizedLayer, read: QuantizedTensor) -> list[nn.Parameter]:
        """The same with the number of weights and the largest of their integers."""
        factor = 1 / math.sqrt(layer.weight.numel() * weight_range(layer.bits)[1])
        return [parametrized(layer, "unit", _Unit(_one_for_all(layer), read, shared=True, gradient=factor))]


@dataclass(frozen=True)
class Pams:
    """One largest magnitude α a tensor (Li 2020)."""

    per_channel = free_zero_points = False

    def activations(self, tensor: QuantizedTensor, values: float, zero_points: ZeroPoints) -> list[nn.Parameter]:
        """The offset of α; only values outside the range give it a gradient."""
        tensor.bounds_only = True
        return [parametrized(tensor, "log_scale", _LogScale(tensor.log_scale, shared=True))]

    def weights(self, layer: QuantizedLayer, read: QuantizedTensor) -> list[nn.Parameter]:
        """None: one unit for all channels from the largest weight, which is not trained."""
        parametrized(layer, "unit", _Unit(_one_for_all(layer), read, shared=True)).requires_grad_(False)
        return []


QUANTIZERS: Mapping[str, Quantizer] = {
    "dpa": Dpa(),
    "dpa-fixed-scales": Dpa(scales=False),
    "dpa-fixed-zero-points": Dpa(zero_points=False),
    "lsq": Lsq(),
    "pams": Pams(),
}


def learn_grids(
    quantized: QuantizedModel, quantizer: Quantizer, rounding: Estimator, statistics: Statistics, crop: int
) -> list[nn.Parameter]:
    """Make the grids of a calibrated model trainable, in place; returns the offsets that are the parameters.

    The grids of the parts' inputs and outputs stay: they are the formats of files and pixels, or are shared. So does
    one that reads integers as they are, but what is read passes its gradient by the estimator too: the distance-aware
    one lets β·sech²(β/2) / (2·tanh(β/2)) of the distortion's through to the encoder, 0.55 for β = 2. On training crops
    that changes the rate by -5 % and the loss not at all, on whole photographs the loss is lower.
    rounding:   the estimator of the grids that are trained, and of the weights
    statistics: from which the model was calibrated;  crop: side of the images that it is trained on
    """
    pixels = float(statistics[f"g_a.{INPUT}"].counts[0].sum())
    found: list[nn.Parameter] = []
    for part in quantized.parts.values():
        for step in part.graph:
            found += _learn_step(part, step, quantizer, rounding, statistics, crop**2 / pixels)
    return found


def _learn_step(
    part: QuantizedPart, step: Step, quantizer: Quantizer, rounding: Estimator, statistics: Statistics, share: float
) -> list[nn.Parameter]:
    """share: of the calibrated values that an image has in training."""
    found: list[nn.Parameter] = []
    for name, read in ((step.name, step.name), (squares_of(step.name), step.inputs[0])):
        tensor = part.tensors.get(name)
        if tensor is None:
            continue
        if trainable(part, name) or name == f"{part.graph.name}.{INPUT}":
            tensor.rounding = rounding
        if trainable(part, name):
            values = share * float(statistics[read].counts.sum())
            zero_points = zero_points_of(part.graph, name)  # squares, which no step reads, are FIXED
            found += quantizer.activations(tensor, values, zero_points)
    if step.has_weights:
        part.layers[step.name].rounding = rounding
        found += quantizer.weights(part.layers[step.name], part.weight_tensor(step))
    return found


def trainable(part: QuantizedPart, tensor: str) -> bool:
    """Whether the grid of a tensor is its own and not given by what surrounds the part."""
    own = part.tensors[tensor]
    return (
        type(own) is QuantizedTensor
        and own.log_scale.requires_grad
        and all(reader.kind != SIGMOID for reader in part.graph.consumers(tensor))
    )


# --- the formulas -------------------------------------------------------------------------------------------


class _LogScale(nn.Module):
    """start + offset, one offset per channel, or one for all; the offset's gradient times ``gradient``."""

    def __init__(self, start: Tensor, shared: bool = False, gradient: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("start", start.detach().clone())
        self.shared, self.gradient = shared, gradient

    def forward(self, offset: Tensor) -> Tensor:
        return self.get_buffer("start") + _with_gradient(offset, self.gradient)

    def right_inverse(self, value: Tensor) -> Tensor:
        return torch.zeros_like(value[:1] if self.shared else value)


class _Unit(OfBuffer):
    """start · exp(offset + mean of what the logarithms of the input's scales have moved by)."""

    def __init__(self, start: Tensor, read: QuantizedTensor, shared: bool = False, gradient: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("start", start.detach().clone())
        self.register_buffer("read_before", read.log_scale.detach().mean())
        self.read = (read,)  # in a tuple, since it is no part of this module
        self.shared, self.gradient = shared, gradient

    def forward(self, offset: Tensor) -> Tensor:
        moved = self.read[0].log_scale.mean() - self.get_buffer("read_before")
        return self.get_buffer("start") * torch.exp(_with_gradient(offset, self.gradient) + moved)

    def right_inverse(self, value: Tensor) -> Tensor:
        return torch.zeros_like(value[:1] if self.shared else value)


class _ZeroPoint(OfBuffer):
    """round(start + 2^(b-1) · offset), kept within 0 and 2^b - 1: the offset is in halves of the range, as a change
    of the scale's logarithm is."""

    def __init__(self, tensor: QuantizedTensor, shared: bool) -> None:
        super().__init__()
        self.shared = shared
        self.shifted = Shifted(tensor.zero_point, torch.tensor(float(1 << (tensor.bits - 1))))
        self.tensor = (tensor,)

    def forward(self, offset: Tensor) -> Tensor:
        (tensor,) = self.tensor
        return tensor.rounding(self.shifted(offset).clamp(*activation_range(tensor.bits)))

    def right_inverse(self, value: Tensor) -> Tensor:
        return torch.zeros_like(value[:1] if self.shared else value)


def _with_gradient(value: Tensor, factor: float) -> Tensor:
    """The value, its gradient times ``factor`` (the ``gradscale`` of LSQ)."""
    return value if factor == 1 else value * factor + (value * (1 - factor)).detach()


def _one_for_all(layer: QuantizedLayer) -> Tensor:
    """A unit per tensor: the largest of the channels'."""
    return layer.unit.max().expand_as(layer.unit)


def _largest(tensor: QuantizedTensor) -> int:
    """Q of LSQ: the largest centred integer, 2^b - 1 where nothing is negative, else about half of it."""
    return activation_range(tensor.bits)[1] - int(tensor.zero_point.max())
