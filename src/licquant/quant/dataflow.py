"""How a family's parts are connected: written once, for the float network, the quantized one and anything between.

A dataflow is given ``run``, which applies a part to real values, and says what the codec would code and show:

    y = g_a(x);  ẑ = [h_a(y)];  p = h_s(ẑ);  σ, μ from p and ŷ so far;  ŷ = [y - μ] + μ;  x̂ = g_s(ŷ)      [·]: rounding
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from licquant.config import (
    AUTOREGRESSIVE,
    CHANNEL_GROUPS,
    CHECKERBOARD,
    FACTORIZED,
    MEAN_SCALE_HYPERPRIOR,
    SCALE_HYPERPRIOR,
)
from licquant.models.trace import TracedModel
from licquant.quant.gradients import round_half_up

Run = Callable[[str, Tensor], Tensor]  # part name, its input [B, C, H, W] in real units → its output


@dataclass(frozen=True)
class Coded:
    """bits: -Σ log2 p of all latents of the batch, a scalar; pixels: x̂ [B, 3, H, W], before rounding and clamping."""

    bits: Tensor
    pixels: Tensor


@dataclass(frozen=True)
class _Gaussian:
    """Parameters of y, [B, M, H, W] each; the mean may be 0 everywhere."""

    sigma: Tensor
    mean: Tensor | float

    @classmethod
    def of(cls, parameters: Tensor) -> _Gaussian:
        """From 2 · M channels, [σ, μ]."""
        return cls(*parameters.chunk(2, 1))

    def quantize(self, y: Tensor) -> Tensor:
        """ŷ = [y - μ] + μ."""
        return round_half_up(y - self.mean) + self.mean


def code(traced: TracedModel, run: Run, x: Tensor) -> Coded:
    """What coding the images x [B, 3, H, W] in [0, 1], sides in 64s, gives; differentiable where ``run`` is."""
    y = run("g_a", x)
    if traced.family == FACTORIZED:
        return Coded(_bottleneck_bits_of_rounded(traced, y), run("g_s", rounded_to_median(traced, y)))
    z = run("h_a", y)
    gaussian = _GAUSSIANS[traced.family](traced, run, run("h_s", rounded_to_median(traced, z)), y)
    bits = _gaussian_bits_of_rounded(traced, y, gaussian) + _bottleneck_bits_of_rounded(traced, z)
    return Coded(bits, run("g_s", gaussian.quantize(y)))


def sources(family: str, parameters: str) -> tuple[str, ...]:
    """The parts whose outputs a part of entropy parameters reads, in the order of their channels."""
    if family == AUTOREGRESSIVE:
        return "h_s", "context_prediction"
    if family == CHECKERBOARD:
        return "context_prediction", "h_s"
    group = parameters.partition(".")[2]
    channels = () if group == "y0" else (f"channel_context.{group}",)
    return f"spatial_context.{group}", *channels, "h_s"


def run_float(traced: TracedModel) -> Run:
    """Parts as the original model computes them."""

    def run(name: str, value: Tensor) -> Tensor:
        graph = traced.graphs[name]
        return graph.forward(value)[graph.output]

    return run


# --- σ and μ, from h_s's output p and y ---------------------------------------------------------------------


def _scale_hyperprior(traced: TracedModel, run: Run, p: Tensor, y: Tensor) -> _Gaussian:
    return _Gaussian(p, 0.0)


def _mean_scale_hyperprior(traced: TracedModel, run: Run, p: Tensor, y: Tensor) -> _Gaussian:
    return _Gaussian.of(p)


def _autoregressive(traced: TracedModel, run: Run, p: Tensor, y: Tensor) -> _Gaussian:
    """All positions at once, from [y] as context: an estimate, as CompressAI's ``forward`` makes it too.

    The codec's context is ŷ = [y - μ] + μ, position by position.
    """
    context = run("context_prediction", round_half_up(y))
    return _Gaussian.of(run("entropy_parameters", torch.cat([p, context], 1)))


def _checkerboard(traced: TracedModel, run: Run, p: Tensor, y: Tensor) -> _Gaussian:
    return _two_passes(traced, run, "context_prediction", "entropy_parameters", [p], y)


def _channel_groups(traced: TracedModel, run: Run, p: Tensor, y: Tensor) -> _Gaussian:
    """Group by group, each a checkerboard; from the second on also from ŷ of all groups before."""
    found: list[_Gaussian] = []
    decoded: list[Tensor] = []
    sizes = [traced.graphs[name].input_channels for name in traced.graphs if name.startswith("spatial_context.")]
    for k, group in enumerate(y.split(sizes, 1)):
        known = [run(f"channel_context.y{k}", torch.cat(decoded, 1)), p] if k else [p]
        found.append(_two_passes(traced, run, f"spatial_context.y{k}", f"entropy_parameters.y{k}", known, group))
        decoded.append(found[-1].quantize(group))
    sigma, mean = (torch.cat([getattr(g, name) for g in found], 1) for name in ("sigma", "mean"))
    return _Gaussian(sigma, mean)


def _two_passes(
    traced: TracedModel, run: Run, context: str, parameters: str, known: list[Tensor], y: Tensor
) -> _Gaussian:
    """A checkerboard (He 2021): anchors, where row + column is even, with a context of 0; the others from them."""
    rows, columns = (torch.arange(n, device=y.device) for n in y.shape[2:])
    anchor = (rows[:, None] + columns) % 2 == 0
    channels = traced.graphs[parameters].input_channels - sum(tensor.shape[1] for tensor in known)
    nothing = y.new_zeros(len(y), channels, *y.shape[2:])
    first = run(parameters, torch.cat([nothing, *known], 1))
    anchors = torch.where(anchor, _Gaussian.of(first).quantize(y), 0.0)
    second = run(parameters, torch.cat([run(context, anchors), *known], 1))
    return _Gaussian.of(torch.where(anchor, first, second))


_GAUSSIANS: dict[str, Callable[[TracedModel, Run, Tensor, Tensor], _Gaussian]] = {
    SCALE_HYPERPRIOR: _scale_hyperprior,
    MEAN_SCALE_HYPERPRIOR: _mean_scale_hyperprior,
    AUTOREGRESSIVE: _autoregressive,
    CHECKERBOARD: _checkerboard,
    CHANNEL_GROUPS: _channel_groups,
}


# --- bits ---------------------------------------------------------------------------------------------------


def bits_of_rounded(length: Callable[[Tensor], Tensor], v: Tensor) -> Tensor:
    """Σ length([v]) of latents v, any shape, a scalar; ``length``: real values → the bits of each, -log2 p.

    Its gradient in v is length(v + 1/2) - length(v - 1/2), which is the mean gradient of length(v + u) with u uniform
    on [-1/2, 1/2): what models are trained with (Ballé 2018), without the noise. The straight-through estimator would
    take the slope at [v]; that is 0 for everything that is rounded to the mean, as if only the latents that are not
    could become cheaper: models adjusted by it spend more bits, see docs/methods/reconstruction.md.
    """
    return length(round_half_up(v).detach()).sum() + _MeanSlope.apply(v, length).sum()


class _MeanSlope(torch.autograd.Function):
    """0 forward; backward, the slope of a function by which values are coded, over the unit around each."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, length: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.length = length
        ctx.save_for_backward(v)
        return torch.zeros_like(v)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (v,) = ctx.saved_tensors
        return gradients[0] * (ctx.length(v + 0.5) - ctx.length(v - 0.5)), None


def _gaussian_bits_of_rounded(traced: TracedModel, y: Tensor, gaussian: _Gaussian) -> Tensor:
    """Of [y - μ], where σ is as it is."""
    conditional = traced.conditional
    assert conditional is not None
    return bits_of_rounded(lambda v: code_lengths(conditional._likelihood(v, gaussian.sigma)), y - gaussian.mean)


# --- the entropy bottleneck ---------------------------------------------------------------------------------


def rounded_to_median(traced: TracedModel, value: Tensor) -> Tensor:
    """ẑ (or ŷ where there is no z): rounded to its channel's median plus an integer."""
    medians = _medians_beside(traced)
    return round_half_up(value - medians) + medians


def medians_of(traced: TracedModel) -> Tensor:
    """The medians of the entropy bottleneck, [C]."""
    return traced.bottleneck.quantiles[:, 0, 1].detach()


def bottleneck_bits(traced: TracedModel, value: Tensor) -> Tensor:
    """The bits of each value of a latent [B, C, H, W] under the entropy bottleneck."""
    by_channel = value.transpose(0, 1)
    likelihood: Tensor = traced.bottleneck._likelihood(by_channel.flatten(1).unsqueeze(1))[0]  # C×1×(B·H·W)
    return code_lengths(likelihood).reshape(by_channel.shape).transpose(0, 1)


def code_lengths(likelihood: Tensor) -> Tensor:
    """-log2 p of each."""
    return -torch.log2(likelihood.clamp(min=1e-9))


def _bottleneck_bits_of_rounded(traced: TracedModel, value: Tensor) -> Tensor:
    """Of ``rounded_to_median(value)``."""
    medians = _medians_beside(traced)
    return bits_of_rounded(lambda v: bottleneck_bits(traced, v + medians), value - medians)


def _medians_beside(traced: TracedModel) -> Tensor:
    """The medians as [1, C, 1, 1]."""
    return medians_of(traced).view(1, -1, 1, 1)
