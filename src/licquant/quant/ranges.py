"""The range of every grid: of activations from statistics, of weights from what a layer puts out.

Activations: three ways to choose a range, per channel or per tensor. Every method answers with the largest magnitude
to represent; the grid follows from it: unsigned with zero point 0 where nothing is negative, else symmetric with the
zero point in mid-range, which is what INT8 transposed convolutions need and what leaves room beyond the smaller of the
two extremes. Training starts from tighter ranges where the zero point may move (``free_scale``).

Weights: what a layer puts out should change least. A weight's error matters as much as what it multiplies. For inputs
x_c that are not correlated, the error of an output has the mean Σ (w - ŵ)·E[x_c] and the variance Σ (w - ŵ)²·Var[x_c].
The bias takes the mean back (bias correction, Nagel 2019), the range is chosen for the least variance: at 8 bits the
largest weight decides, at 4 bits clipping it is much better.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from licquant.models.graph import INPUT, NORMALIZATION
from licquant.program.arithmetic import activation_range, weight_range
from licquant.quant.calibrate import BINS, Statistics, TensorStatistics
from licquant.quant.layers import QuantizedLayer
from licquant.quant.network import QuantizedPart

PERCENTILE = 99.999
# Clipped values are large, rare and neighbours in the image, and so add up in the layers after; rounding errors
# average out there. Measured on held-out photographs, an error by clipping weighs about this much more.
CLIPPING_WEIGHT = 4.0
# New images exceed what the calibration images show.
HEADROOM = 1.1
# Channels that hardly move would otherwise get scales that make their folded weights meaningless.
SMALLEST_SHARE = 1e-3

RangeMethod = Callable[[Tensor, Tensor, int, bool], Tensor]
ScaleRule = Callable[[TensorStatistics, int, RangeMethod, bool], tuple[Tensor, Tensor]]  # → (scale, zero point)


def min_max(magnitudes: Tensor, counts: Tensor, bits: int, signed: bool) -> Tensor:
    """The largest magnitude seen."""
    occupied = torch.where(counts > 0, magnitudes, torch.zeros_like(magnitudes))
    return occupied.amax(dim=1)


def percentile(magnitudes: Tensor, counts: Tensor, bits: int, signed: bool) -> Tensor:
    """The magnitude that ``PERCENTILE`` per cent of the values do not exceed."""
    order = magnitudes.argsort(dim=1)
    cumulative = counts.gather(1, order).cumsum(dim=1)
    enough = cumulative >= cumulative[:, -1:] * (PERCENTILE / 100)
    return magnitudes.gather(1, order).gather(1, enough.float().argmax(dim=1, keepdim=True))[:, 0]


def min_mse(magnitudes: Tensor, counts: Tensor, bits: int, signed: bool) -> Tensor:
    """The magnitude with the least mean squared error of rounding and, weighted, of clipping; plus headroom."""
    largest = min_max(magnitudes, counts, bits, signed)
    weights = counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
    steps = activation_range(bits)[1]
    best_error = torch.full_like(largest, torch.inf)
    best = largest.clone()
    for share in torch.arange(0.05, 1.2501, 0.025).tolist():
        limit = largest * share
        clipped = (weights * (magnitudes - limit[:, None]).clamp(min=0) ** 2).sum(dim=1)
        step = limit * (2 if signed else 1) / steps
        error = CLIPPING_WEIGHT * clipped + step**2 / 12
        best = torch.where(error < best_error, limit, best)
        best_error = torch.minimum(error, best_error)
    return best * HEADROOM


RANGE_METHODS: dict[str, RangeMethod] = {"min-max": min_max, "percentile": percentile, "mse": min_mse}


def activation_scale(
    statistics: TensorStatistics, bits: int, method: RangeMethod, per_channel: bool
) -> tuple[Tensor, Tensor]:
    """(scale, zero point), [C] each, of an activation tensor.

    per_channel: one scale per channel, which lowering folds into the next layer's weights; else one for all.
    """
    signed = bool((statistics.low < 0).any())
    limit = largest_magnitude(statistics, bits, method, per_channel)
    if signed:
        zero_point = 1 << (bits - 1)
        return limit / (zero_point - 1), torch.full_like(limit, zero_point)
    return limit / activation_range(bits)[1], torch.zeros_like(limit)


def free_scale(
    statistics: TensorStatistics, bits: int, method: RangeMethod, per_channel: bool
) -> tuple[Tensor, Tensor]:
    """(scale, zero point), [C] each: from the lowest to the highest value seen, with headroom, within ± the magnitude.

    No finer than half of what ``activation_scale`` gives, which a channel on one side of 0 gets.
    """
    low, high, limit = _extremes(statistics, bits, method, per_channel)
    largest = activation_range(bits)[1]
    scale = torch.maximum(high - low, limit) / largest
    return scale, torch.floor(-low / scale + 0.5).clamp(0, largest)


def shared_zero_point_scale(
    statistics: TensorStatistics, bits: int, method: RangeMethod, per_channel: bool
) -> tuple[Tensor, Tensor]:
    """The same with one zero point for all channels: the one whose scales have the smallest geometric mean."""
    low, high, limit = _extremes(statistics, bits, method, per_channel)
    largest = activation_range(bits)[1]
    candidates = torch.floor(torch.linspace(0, largest, min(largest, 255) + 1) + 0.5)[:, None]
    scales = torch.maximum(-low / candidates.clamp(min=1e-6), high / (largest - candidates).clamp(min=1e-6))
    scales = torch.maximum(scales, limit / largest)
    best = int(scales.log().sum(1).argmin())
    return scales[best], candidates[best].expand_as(low).clone()


def _extremes(
    statistics: TensorStatistics, bits: int, method: RangeMethod, per_channel: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """(lowest ≤ 0, highest ≥ 0, largest magnitude) to represent, [C] each."""
    limit = largest_magnitude(statistics, bits, method, per_channel)
    low, high = statistics.span
    if not per_channel:
        low, high = low.min().expand_as(low), high.max().expand_as(high)
    return torch.maximum(low * HEADROOM, -limit), torch.minimum(high * HEADROOM, limit), limit


def scale_of_multiples(
    statistics: TensorStatistics, bits: int, unit: float, scale: Tensor, zero_point: Tensor
) -> Tensor:
    """Scales [C] for values that are multiples of ``unit``, from those for any values: the unit itself where it may be.

    With exactly that scale they are not rounded again, so that it is better than a finer one; and than a coarser one,
    unless what it clips weighs more than rounding to the coarser one's steps.
    """
    exact = torch.full_like(scale, unit)

    def clipped(at: Tensor) -> Tensor:
        low, high = -zero_point * at, (activation_range(bits)[1] - zero_point) * at
        beyond = statistics.centres - torch.clamp(statistics.centres, low[:, None], high[:, None])
        return CLIPPING_WEIGHT * (statistics.counts * beyond**2).sum(1) / statistics.counts.sum(1).clamp(min=1)

    return torch.where(clipped(exact) <= clipped(scale) + scale**2 / 12, exact, scale)


def largest_magnitude(statistics: TensorStatistics, bits: int, method: RangeMethod, per_channel: bool) -> Tensor:
    """The largest magnitude to represent, [C] > 0."""
    signed = bool((statistics.low < 0).any())
    magnitudes, counts = statistics.centres.abs(), statistics.counts
    half_bin = (statistics.span[1] - statistics.span[0])[:, None] / (2 * BINS)
    magnitudes = magnitudes + half_bin  # the outer edge of a bin: nothing in it lies beyond
    if per_channel:
        limit = method(magnitudes, counts, bits, signed)
    else:
        limit = method(magnitudes.reshape(1, -1), counts.reshape(1, -1), bits, signed).expand(len(counts))
    largest = float(limit.max()) or 1.0  # a tensor that is always 0 may have any scale
    return limit.clamp(min=largest * SMALLEST_SHARE)


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
