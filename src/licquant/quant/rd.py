"""The rate-distortion loss of a model, float or quantized: an estimate that needs no files and has a gradient.

``evaluate`` measures it; ``QuantizedObjective`` is what finetuning minimises.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from licquant.errors import DataError
from licquant.evaluate.rd import MS_SSIM, MSE, rd_loss
from licquant.models.trace import TracedModel
from licquant.quant.dataflow import Coded, Run, code, run_float
from licquant.quant.gradients import round_half_up
from licquant.quant.network import QuantizedModel
from licquant.train.objective import distortion
from licquant.train.settings import MS_SSIM_CROP


@dataclass(frozen=True)
class RateDistortion:
    """bpp: estimated bits per pixel; distortion: the metric's, of 8-bit pixels; both differentiable scalars."""

    bpp: Tensor
    distortion: Tensor
    metric: str = MSE

    def loss(self, lmbda: float) -> Tensor:
        """J, a differentiable scalar."""
        loss: Tensor = rd_loss(self.bpp, self.distortion, lmbda, self.metric)
        return loss


def evaluate(traced: TracedModel, run: Run, x: Tensor) -> RateDistortion:
    """Rate and distortion for images x [B, 3, H, W] in [0, 1], sides in 64s, with parts run by ``run``.

    ``DataError`` where MS-SSIM is the metric and they are too small for it.
    """
    if traced.metric == MS_SSIM and min(x.shape[2:]) < MS_SSIM_CROP:
        raise DataError(f"MS-SSIM needs images of at least {MS_SSIM_CROP}x{MS_SSIM_CROP}")
    coded = code(traced, run, x)
    pixels = round_half_up(coded.pixels.clamp(0, 1) * 255)
    bpp = coded.bits / (x.numel() / x.shape[1])
    if traced.metric == MSE:
        return RateDistortion(bpp, torch.mean((pixels / 255 - x) ** 2))
    return RateDistortion(bpp, distortion(traced.metric, pixels / 255, x), traced.metric)


def evaluate_quantized(quantized: QuantizedModel, x: Tensor) -> RateDistortion:
    """Of the simulated integer codec."""
    return evaluate(quantized.traced, quantized.run, x)


def evaluate_float(traced: TracedModel, x: Tensor) -> RateDistortion:
    """Of the float model."""
    return evaluate(traced, run_float(traced), x)


class QuantizedObjective(nn.Module):
    """A quantized model together with its loss.

    The entropy models are here to be moved to the device with the rest; they stay as they were trained, and so do
    the coding tables that are made of them.
    """

    figures = ("loss", "bpp", "distortion")

    def __init__(self, quantized: QuantizedModel, lmbda: float, metric: str) -> None:
        """metric: as in ``train.settings.BaseRecipe``"""
        super().__init__()
        self.quantized, self.lmbda, self.metric = quantized, lmbda, metric
        self.entropy_models = entropy_models(quantized)

    def forward(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 B×3×H×W, sides in 64s → (the loss, [3] with the values of ``figures``)."""
        x = samples.float() / 255
        figures = rate_distortion(code(self.quantized.traced, self.quantized.run, x), x, self.lmbda, self.metric)
        return figures[0], figures.detach()


def entropy_models(quantized: QuantizedModel) -> nn.ModuleList:
    """Those of the latents, which are the original model's own."""
    found = (quantized.traced.bottleneck, quantized.traced.conditional)
    return nn.ModuleList(module for module in found if module is not None)


def rate_distortion(coded: Coded, x: Tensor, lmbda: float, metric: str) -> Tensor:
    """[3]: loss, bits per pixel and distortion of what coding the images x gave; pixels rounded to 8 bits."""
    pixels = round_half_up(coded.pixels.clamp(0, 1) * 255) / 255
    bpp, found = coded.bits / (x.numel() / x.shape[1]), distortion(metric, pixels, x)
    return torch.stack([rd_loss(bpp, found, lmbda, metric), bpp, found])
