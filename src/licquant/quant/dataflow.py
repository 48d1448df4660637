"""How a family's parts are connected: written once, for the float network, the quantized one and anything between.

A dataflow is given ``run``, which applies a part to real values, and says what the codec would code and show:

    y = g_a(x);  z = h_a(|y|);  ẑ = [z];  σ = h_s(ẑ);  ŷ = [y];  x̂ = g_s(ŷ)             [·]: rounding
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from licquant.models.trace import SCALE_HYPERPRIOR, TracedModel
from licquant.quant.rounding import round_half_up

Run = Callable[[str, Tensor], Tensor]  # part name, its input [B, C, H, W] in real units → its output


@dataclass(frozen=True)
class Coded:
    """bits: -Σ log2 p of all latents of the batch, a scalar; pixels: x̂ [B, 3, H, W], before rounding and clamping."""

    bits: Tensor
    pixels: Tensor


def code(traced: TracedModel, run: Run, x: Tensor) -> Coded:
    """What coding the images x [B, 3, H, W] in [0, 1], sides in 64s, gives; differentiable where ``run`` is."""
    return _DATAFLOWS[traced.family](traced, run, x)


def run_float(traced: TracedModel) -> Run:
    """Parts as the original model computes them."""

    def run(name: str, value: Tensor) -> Tensor:
        graph = traced.graphs[name]
        return graph.forward(value)[graph.output]

    return run


def _scale_hyperprior(traced: TracedModel, run: Run, x: Tensor) -> Coded:
    y = run("g_a", x)
    z_hat = hyper_latent(traced, run("h_a", y))
    sigma = run("h_s", z_hat)
    y_hat = round_half_up(y)
    conditional = traced.model.gaussian_conditional
    likelihood = conditional._likelihood(y_hat, sigma)  # type: ignore[operator,union-attr]
    return Coded(code_length(likelihood) + bottleneck_bits(traced, z_hat), run("g_s", y_hat))


_DATAFLOWS: dict[str, Callable[[TracedModel, Run, Tensor], Coded]] = {SCALE_HYPERPRIOR: _scale_hyperprior}


def hyper_latent(traced: TracedModel, z: Tensor) -> Tensor:
    """ẑ: z rounded to its channel's median plus an integer."""
    medians = medians_of(traced).view(1, -1, 1, 1)
    return round_half_up(z - medians) + medians


def medians_of(traced: TracedModel) -> Tensor:
    """The medians of the entropy bottleneck, [C]."""
    bottleneck = traced.model.entropy_bottleneck
    return bottleneck.quantiles[:, 0, 1].detach()  # type: ignore[union-attr,index]


def bottleneck_bits(traced: TracedModel, z_hat: Tensor) -> Tensor:
    """The bits of a latent [B, C, H, W] under the entropy bottleneck."""
    bottleneck = traced.model.entropy_bottleneck
    flat = z_hat.transpose(0, 1).flatten(1).unsqueeze(1)  # C×1×(B·H·W)
    return code_length(bottleneck._likelihood(flat)[0])  # type: ignore[operator,union-attr]


def code_length(likelihood: Tensor) -> Tensor:
    """-Σ log2 p."""
    return -torch.log2(likelihood.clamp(min=1e-9)).sum()
