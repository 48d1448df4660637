"""Narrower grids inside a wider network's: what lets one set of stored weights serve several widths.

A layer with B-bit weights q_B and inputs of scale s has a narrower twin with b < B bits where the inputs of the twin
have the scale k · s, one k for all channels:

    q_b = round(q_B / 2^(B-b)), clamped           unit_b = unit_B · 2^(B-b) · k

so the channels' scales, which the weights have absorbed, need not be known to narrow them (``nested_weight``). The
twin has a bias and, through k, a range of its own; both are learnable, as is everything of the wide network. Of the
wide range the twin's spans the same part on both sides of 0, all of it at first or less.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from licquant.models.graph import Step
from licquant.program.arithmetic import activation_range, weight_range
from licquant.quant.layers import QuantizedLayer, QuantizedTensor, ShuffledTensor
from licquant.quant.network import QuantizedPart

# What a narrower layer has in common with the wider one.
_COMMON = (
    "kind", "name", "rounding", "output_axis", "input_axis", "stride", "padding", "output_padding", "groups", "inverse",
    "power",
)  # fmt: skip


class NestedTensor(QuantizedTensor):
    """The grid of a tensor in fewer bits: every scale ``factor`` times that of the wider grid.

    log_factor: Parameter, natural logarithm of k; the zero points stay at the same share of the range, so that one in
        mid-range, as the INT8 kernels want it, is there in fewer bits too
    """

    def __init__(self, wider: QuantizedTensor, bits: int, factor: float) -> None:
        nn.Module.__init__(self)
        self.bits, self.rounding, self.bounds_only = bits, wider.rounding, wider.bounds_only
        self.log_factor = nn.Parameter(torch.tensor(math.log(factor)))
        self._wider = (wider,)  # a tuple hides it from PyTorch: it belongs to the wide network

    def __getattr__(self, name: str) -> Any:
        if name == "log_scale":
            return self._wider[0].log_scale + self.log_factor
        if name == "zero_point":
            share = activation_range(self.bits)[1] / activation_range(self._wider[0].bits)[1]
            return torch.floor(self._wider[0].zero_point * share + 0.5)
        return super().__getattr__(name)

    @property
    def wider(self) -> QuantizedTensor:
        """The grid that this one is nested in."""
        return self._wider[0]

    @property
    def factor(self) -> Tensor:
        """k, a positive number: a step of this grid over one of the wider."""
        return self.log_factor.exp()


def factor_of(tensor: QuantizedTensor) -> Tensor | float:
    """k of a tensor's grid; 1 for a grid that is not nested in another."""
    if isinstance(tensor, ShuffledTensor):
        return factor_of(tensor.written)
    return tensor.factor if isinstance(tensor, NestedTensor) else 1.0


class NestedLayer(QuantizedLayer):
    """A layer whose weights are the ``bits``-bit integers inside those of a wider network's layer.

    operand: the grid that its weights are multiplied with, nested in the wider layer's
    bias:    Parameter[O], its own
    """

    def __init__(self, wider: QuantizedPart, step: Step, bits: int, operand: QuantizedTensor) -> None:
        nn.Module.__init__(self)
        layer = wider.layers[step.name]
        for name in _COMMON:
            if hasattr(layer, name):
                setattr(self, name, getattr(layer, name))
        self.bits = bits
        self.bias = nn.Parameter(layer.bias.detach().clone())
        of_wider = next(other for other in wider.graph if other.name == step.name)
        self._wider, self._step, self._operand = (wider, layer), of_wider, (operand,)

    def __getattr__(self, name: str) -> Any:
        if name == "unit":
            layer = self._wider[1]
            return layer.unit * 2.0 ** (layer.bits - self.bits) * factor_of(self._operand[0])
        if name == "weight":  # its shape is asked for
            return self._wider[1].weight
        return super().__getattr__(name)

    def fit_unit(self, input_scale: Tensor) -> None:
        """Nothing: the unit follows the wider layer's."""

    def folded(self, input_scale: Tensor) -> Tensor:
        """What the integers stand for: the wider layer's, per integer of this layer's operand."""
        layer = self._wider[1]
        return self._wide_integers() * layer.rows() * factor_of(self._operand[0])

    def integer_weight(self, input_scale: Tensor) -> Tensor:
        """The b-bit integers, as floats with a gradient; ``arithmetic.nested_weight`` of the wider ones."""
        step = 2.0 ** (self._wider[1].bits - self.bits)
        return self.rounding(self._wide_integers() / step).clamp(*weight_range(self.bits))

    def _wide_integers(self) -> Tensor:
        part, layer = self._wider
        return layer.integer_weight(part.weight_scale(self._step))
