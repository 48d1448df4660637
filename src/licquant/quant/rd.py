"""The rate-distortion loss of a simulated quantized model: an estimate that needs no files and has a gradient."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from licquant.models.trace import TracedModel
from licquant.quant.calibrate import hyper_latent, medians_of
from licquant.quant.grids import LATENT_FRACTION_BITS, SCALE_FRACTION_BITS
from licquant.quant.network import QuantizedModel
from licquant.quant.rounding import round_half_up


@dataclass(frozen=True)
class RateDistortion:
    """bpp: estimated bits per pixel; mse: on [0, 1], of 8-bit reconstructions; both differentiable scalars."""

    bpp: Tensor
    mse: Tensor

    def loss(self, lmbda: float) -> Tensor:
        """J = R + λ·255²·MSE (design §6)."""
        return self.bpp + lmbda * 255**2 * self.mse


def evaluate_quantized(quantized: QuantizedModel, x: Tensor) -> RateDistortion:
    """Rate and distortion of the simulated integer codec for images x [B, 3, H, W] in [0, 1], sides in 64s."""
    one = float(1 << LATENT_FRACTION_BITS)
    y = quantized.part("g_a")(round_half_up(x * 255)) / one
    z = quantized.part("h_a")(y * one) / one
    z_hat = round_half_up(z - _medians(quantized.traced)) + _medians(quantized.traced)
    sigma = quantized.part("h_s")(round_half_up(z_hat * one)) / float(1 << SCALE_FRACTION_BITS)
    y_hat = round_half_up(y)
    pixels = quantized.part("g_s")(y_hat)
    return RateDistortion(
        bits(quantized.traced, y_hat, sigma, z_hat) / (x.numel() / x.shape[1]), torch.mean((pixels / 255 - x) ** 2)
    )


def evaluate_float(traced: TracedModel, x: Tensor) -> RateDistortion:
    """The same for the float model."""
    outputs = {name: graph.output for name, graph in traced.graphs.items()}
    y = traced.graphs["g_a"].forward(x)[outputs["g_a"]]
    z_hat = hyper_latent(traced, traced.graphs["h_a"].forward(y)[outputs["h_a"]])
    sigma = traced.graphs["h_s"].forward(z_hat)[outputs["h_s"]]
    y_hat = torch.floor(y + 0.5)
    reconstruction = traced.graphs["g_s"].forward(y_hat)[outputs["g_s"]]
    pixels = torch.floor(reconstruction.clamp(0, 1) * 255 + 0.5)
    return RateDistortion(
        bits(traced, y_hat, sigma, z_hat) / (x.numel() / x.shape[1]), torch.mean((pixels / 255 - x) ** 2)
    )


def bits(traced: TracedModel, y_hat: Tensor, sigma: Tensor, z_hat: Tensor) -> Tensor:
    """-Σ log2 p of both latents under the model's own float entropy models."""
    conditional = traced.model.gaussian_conditional
    likelihoods = (
        conditional._likelihood(y_hat, sigma),  # type: ignore[operator,union-attr]
        _bottleneck_likelihood(traced, z_hat),
    )
    return sum((-torch.log2(p.clamp(min=1e-9)).sum() for p in likelihoods), torch.zeros(()))


def _bottleneck_likelihood(traced: TracedModel, z_hat: Tensor) -> Tensor:
    bottleneck = traced.model.entropy_bottleneck
    flat = z_hat.transpose(0, 1).flatten(1).unsqueeze(1)  # C×1×(B·H·W)
    return bottleneck._likelihood(flat)[0]  # type: ignore[operator,union-attr]


def _medians(traced: TracedModel) -> Tensor:
    return medians_of(traced).view(1, -1, 1, 1)
