"""The rate-distortion loss of a model, float or quantized: an estimate that needs no files and has a gradient."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from licquant.evaluate.rd import rd_loss
from licquant.models.trace import TracedModel
from licquant.quant.dataflow import Run, code, run_float
from licquant.quant.gradients import round_half_up
from licquant.quant.network import QuantizedModel


@dataclass(frozen=True)
class RateDistortion:
    """bpp: estimated bits per pixel; mse: on [0, 1], of 8-bit reconstructions; both differentiable scalars."""

    bpp: Tensor
    mse: Tensor

    def loss(self, lmbda: float) -> Tensor:
        """J, a differentiable scalar."""
        loss: Tensor = rd_loss(self.bpp, self.mse, lmbda)
        return loss


def evaluate(traced: TracedModel, run: Run, x: Tensor) -> RateDistortion:
    """Rate and distortion for images x [B, 3, H, W] in [0, 1], sides in 64s, with parts run by ``run``."""
    coded = code(traced, run, x)
    pixels = round_half_up(coded.pixels.clamp(0, 1) * 255)
    return RateDistortion(coded.bits / (x.numel() / x.shape[1]), torch.mean((pixels / 255 - x) ** 2))


def evaluate_quantized(quantized: QuantizedModel, x: Tensor) -> RateDistortion:
    """Of the simulated integer codec."""
    return evaluate(quantized.traced, quantized.run, x)


def evaluate_float(traced: TracedModel, x: Tensor) -> RateDistortion:
    """Of the float model."""
    return evaluate(traced, run_float(traced), x)
