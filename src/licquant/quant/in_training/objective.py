"""What finetuning minimises: R + λ·D of the simulated integer codec, everything rounded as in the files."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from licquant.evaluate.rd import rd_loss
from licquant.quant.dataflow import Coded, code
from licquant.quant.gradients import round_half_up
from licquant.quant.network import QuantizedModel
from licquant.train.objective import distortion


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
