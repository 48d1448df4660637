"""The rate-distortion loss of a model, float or quantized: an estimate that needs no files and has a gradient."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from licquant.errors import DataError
from licquant.evaluate.rd import MS_SSIM, MSE, rd_loss
from licquant.models.trace import TracedModel
from licquant.quant.dataflow import Run, code, run_float
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
