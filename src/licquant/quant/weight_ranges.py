"""The weights' ranges and the biases that make up for their rounding: what a layer puts out should change least.

A weight's error matters as much as what it multiplies. For inputs x_c that are not correlated, the error of an output
has the mean Σ (w - ŵ)·E[x_c] and the variance Σ (w - ŵ)²·Var[x_c]. The bias takes the mean back (bias correction,
Nagel 2019), the range is chosen for the least variance: at 8 bits the largest weight decides, at 4 bits clipping it is
much better.
"""

from __future__ import annotations

import torch
from torch import Tensor

from licquant.models.graph import INPUT, NORMALIZATION
from licquant.program.arithmetic import weight_range
from licquant.quant.calibrate import Statistics, TensorStatistics
from licquant.quant.layers import QuantizedLayer
from licquant.quant.network import QuantizedPart

_SHARES = tuple(1 - i / 20 for i in range(17))  # of the largest magnitude, 1 to 0.2
# Not all of an input's mean is taken back: near the borders padding replaces it, and images differ.
_MEAN_SHARE = 0.05


def fit_weight_ranges(part: QuantizedPart, statistics: Statistics) -> None:
    """Set the unit of every layer to the best share of the one at which nothing is clipped, and correct its bias."""
    for step in part.graph:
        if step.has_weights:
            read = step.inputs[0] if step.inputs[0] != INPUT else f"{part.graph.name}.{INPUT}"
            mean, variance = moments(statistics[read], part.layers[step.name].power)
            layer, scale = part.layers[step.name], part.weight_scale(step).detach()
            _fit(layer, scale, variance + _MEAN_SHARE * mean**2)
            correct_bias(layer, scale, mean)


def moments(found: TensorStatistics, power: int = 0) -> tuple[Tensor, Tensor]:
    """(mean, variance) per channel of a tensor, or of what a GDN of that power reads, from its histogram."""
    counts, values = found.counts.double(), found.centres.double()
    values = values.abs() ** power if power else values
    total = counts.sum(1).clamp(min=1)
    mean = (counts * values).sum(1) / total
    return mean.float(), ((counts * values**2).sum(1) / total - mean**2).clamp(min=0).float()


@torch.no_grad()
def _fit(layer: QuantizedLayer, input_scale: Tensor, energy: Tensor) -> None:
    folded = layer.folded(input_scale)
    importance = layer.columns(energy.clamp(min=1e-12) / input_scale**2)
    dims = [d for d in range(folded.dim()) if d != layer.output_axis]
    low, high = weight_range(layer.bits)
    largest = layer.unit.clone()
    best, best_error = largest.clone(), torch.full_like(largest, torch.inf)
    for share in _SHARES:
        layer.unit.copy_(largest * share)
        integers = torch.floor(folded / layer.rows() + 0.5).clamp(low, high)
        error = ((integers * layer.rows() - folded) ** 2 * importance).sum(dims)
        best = torch.where(error < best_error, layer.unit, best)
        best_error = torch.minimum(error, best_error)
    layer.unit.copy_(best)


@torch.no_grad()
def correct_bias(layer: QuantizedLayer, input_scale: Tensor, mean: Tensor) -> None:
    """Take back what rounding the weights does to the mean of the layer's output; mean: of its operand, [C]."""
    rounded = layer.integer_weight(input_scale) * layer.rows()
    corrected = layer.bias + mean_output(layer, layer.folded(input_scale) - rounded, mean / input_scale)
    # A GDN's norm must stay positive, whatever the other images are.
    layer.bias.copy_(torch.maximum(corrected, layer.bias / 2) if layer.kind == NORMALIZATION else corrected)


def mean_output(layer: QuantizedLayer, weight: Tensor, mean: Tensor) -> Tensor:
    """What a layer with such weights puts out on average, [O]; mean: of the integers that it reads, [C]."""
    products = weight * layer.columns(mean)
    # An output of a transposed convolution gathers one tap in stride².
    taps = layer.stride**2 if layer.output_axis == 1 else 1
    return products.sum([d for d in range(products.dim()) if d != layer.output_axis]) / taps
