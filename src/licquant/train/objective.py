"""What training minimises: rate + λ·distortion, and the auxiliary loss of the coding ranges.

    mse       J = bpp + λ·255²·MSE          MSE on the [0, 1] scale
    ms-ssim   J = bpp + λ·(1 - MS-SSIM)

bpp is the estimate -log2 of the likelihoods, per pixel.
"""

from typing import Any

import torch
from torch import Tensor, nn


class Objective(nn.Module):
    """A CompressAI model together with its losses, so that one backward pass serves both optimizers.

    The auxiliary loss depends on the entropy bottlenecks' quantiles alone, and the rate-distortion loss not
    on them; the gradient of the sum is therefore that of each. One pass also means that every parameter takes
    part in it, as distributed training wants it.
    """

    figures = ("loss", "bpp", "distortion", "auxiliary")

    def __init__(self, model: Any, lmbda: float, metric: str, precision: str) -> None:
        """``model``: a CompressAI image model; ``metric``, ``precision``: as in ``Recipe``."""
        super().__init__()
        self.model, self.lmbda, self.metric = model, lmbda, metric
        self.reduced = precision == "bf16"

    def forward(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 B×3×H×W → (what is minimised, [4] with the values of ``figures``)."""
        x = samples.float() / 255
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.reduced):
            out = self.model(x)
        pixels = x.shape[0] * x.shape[2] * x.shape[3]
        bpp = sum(-values.float().log2().sum() for values in out["likelihoods"].values()) / pixels
        found = distortion(self.metric, out["x_hat"].float(), x)
        loss, auxiliary = bpp + weight(self.metric, self.lmbda) * found, self.model.aux_loss()
        return loss + auxiliary, torch.stack([loss, bpp, found, auxiliary])


def distortion(metric: str, x_hat: Tensor, x: Tensor) -> Tensor:
    """MSE, or 1 - MS-SSIM, of images B×3×H×W in [0, 1]."""
    if metric == "mse":
        return (x_hat - x).square().mean()
    from pytorch_msssim import ms_ssim  # only where it is wanted

    return 1 - ms_ssim(x_hat, x, data_range=1.0)


def weight(metric: str, lmbda: float) -> float:
    """What the distortion is multiplied by."""
    return lmbda * 255**2 if metric == "mse" else lmbda


def describe(metric: str) -> str:
    """The loss as a formula, for the model card."""
    return "bpp + lmbda * 255^2 * MSE" if metric == "mse" else "bpp + lmbda * (1 - MS-SSIM)"
