"""Parameters in natural steps: what an optimizer moves is an offset, in units in which every parameter is alike.

Adam moves every entry by about its learning rate, whatever the gradient's size. A weight's natural unit is one step
of its grid, a scale's is its logarithm. The quantities keep their names: PyTorch's parametrization computes
``layer.weight`` from the offset, which starts at 0, and ``settle`` puts the plain parameter back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from licquant.models.graph import NORMALIZATION
from licquant.program.arithmetic import FIXED_POINT_BITS, activation_range
from licquant.quant.layers import QuantizedLayer, QuantizedTensor
from licquant.quant.network import QuantizedModel


class Shifted(nn.Module):
    """start + size · offset; size: of one natural step, in a shape that broadcasts to start's."""

    def __init__(self, start: Tensor, size: Tensor) -> None:
        super().__init__()
        self.register_buffer("start", start.detach().clone())
        self.register_buffer("size", size.detach().clone())

    def forward(self, offset: Tensor) -> Tensor:
        """The parameter of its offset."""
        return self.get_buffer("start") + self.get_buffer("size") * offset

    def right_inverse(self, value: Tensor) -> Tensor:
        """0: the offset at which the parameter is what it was."""
        return torch.zeros_like(value)


class OfBuffer(nn.Module):
    """What a formula for a buffer derives from, so that ``settle`` makes it one again."""


class Scaled(nn.Module):
    """start · exp(offset): stays positive."""

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.register_buffer("start", start.detach().clone())

    def forward(self, offset: Tensor) -> Tensor:
        """The parameter of its offset."""
        return self.get_buffer("start") * offset.exp()

    def right_inverse(self, value: Tensor) -> Tensor:
        """0: the offset at which the parameter is what it was."""
        return torch.zeros_like(value)


def parametrized(module: nn.Module, name: str, formula: nn.Module) -> nn.Parameter:
    """Have ``formula`` compute ``module.name``, a parameter or buffer; return the offset that it does so from."""
    if name in dict(module.named_buffers(recurse=False)):
        value = getattr(module, name)
        delattr(module, name)
        module.register_parameter(name, nn.Parameter(value))
    parametrize.register_parametrization(module, name, formula)
    offset = getattr(module.parametrizations, name).original
    assert isinstance(offset, nn.Parameter)
    return offset


def settle(quantized: nn.Module) -> None:
    """Make every computed quantity a plain parameter or buffer again, with the value that it has."""
    for module in [m for m in quantized.modules() if parametrize.is_parametrized(m)]:
        assert isinstance(module.parametrizations, nn.ModuleDict)
        for name, formulas in list(module.parametrizations.items()):
            assert isinstance(formulas, nn.ModuleList)
            value = getattr(module, name).detach().clone()
            parametrize.remove_parametrizations(module, name, leave_parametrized=False)
            delattr(module, name)
            if isinstance(formulas[0], OfBuffer):
                module.register_buffer(name, value)
            else:
                module.register_parameter(name, nn.Parameter(value))


def weights_and_biases(
    quantized: QuantizedModel, typical_bits: Mapping[str, float] | None = None
) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The offsets of all weights, in steps of their grids, and of all biases, see ``bias_offset``.

    typical_bits: layer → width whose grid's steps are taken, for weights that are also used in fewer bits
    """
    weights, biases = [], []
    for part in quantized.parts.values():
        for step in part.graph:
            if step.has_weights:
                layer = part.layers[step.name]
                coarser = 2.0 ** (layer.bits - (typical_bits or {}).get(step.name, layer.bits))
                grid = coarser * layer.rows() / layer.columns(part.weight_scale(step).detach())
                weights.append(parametrized(layer, "weight", Shifted(layer.weight, grid)))
                biases.append(bias_offset(layer, part.tensors[step.name]))
    return weights, biases


@contextmanager
def only_trained(module: nn.Module, parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Within it, nothing of the module has a gradient but these, which an optimizer moves.

    Others are computed for nobody: those of scales are sums over every tensor. Distributed training wants it, too.
    """
    trained = set(map(id, parameters))
    others = [p for p in module.parameters() if id(p) not in trained and p.requires_grad]
    for parameter in others:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in others:
            parameter.requires_grad_(True)


def bias_offset(layer: QuantizedLayer, out: QuantizedTensor) -> nn.Parameter:
    """The offset of a layer's biases, in typical steps of its output.

    A GDN's beta must stay positive: its offset is that of its logarithm.
    """
    formula = Scaled(layer.bias) if layer.kind == NORMALIZATION else Shifted(layer.bias, _typical_step(out))
    return parametrized(layer, "bias", formula)


def _typical_step(tensor: QuantizedTensor) -> Tensor:
    """A 255th of a tensor's range, whatever its width; a pixel's step for fixed point."""
    if tensor.bits == FIXED_POINT_BITS:
        return torch.full_like(tensor.scale.detach(), 1 / 255)
    return tensor.scale.detach() * (activation_range(tensor.bits)[1] / 255)
