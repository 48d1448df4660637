"""What training minimises: the RD loss (``evaluate/rd.py``), and the auxiliary loss of the coding ranges.

The rate is the estimate -log2 of the likelihoods, per pixel.
"""

from typing import Any

import torch
from torch import Tensor, nn

from licquant.evaluate.rd import rd_loss


class Objective(nn.Module):
    """A CompressAI model together with its losses, so that one backward pass serves both optimizers.

    The auxiliary loss depends on the entropy bottlenecks' quantiles alone, and the rate-distortion loss not
    on them; the gradient of the sum is therefore that of each. One pass also means that every parameter takes
    part in it, as distributed training wants it.
    """

    figures = ("loss", "bpp", "distortion", "auxiliary")

    def __init__(self, model: Any, lmbda: float, metric: str, reduced: bool) -> None:
        """``model``: a CompressAI image model; ``metric`` as in ``Recipe``; ``reduced``: compute in bfloat16."""
        super().__init__()
        self.model, self.lmbda, self.metric = model, lmbda, metric
        self.reduced = reduced

    def forward(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 B×3×H×W → (what is minimised, [4] with the values of ``figures``)."""
        x = samples.float() / 255
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.reduced):
            out = self.model(x)
        pixels = x.shape[0] * x.shape[2] * x.shape[3]
        bpp = sum(-values.float().log2().sum() for values in out["likelihoods"].values()) / pixels
        found = distortion(self.metric, out["x_hat"].float(), x)
        loss, auxiliary = rd_loss(bpp, found, self.lmbda, self.metric), self.model.aux_loss()
        return loss + auxiliary, torch.stack([loss, bpp, found, auxiliary])


def distortion(metric: str, x_hat: Tensor, x: Tensor) -> Tensor:
    """MSE, or 1 - MS-SSIM, of images B×3×H×W in [0, 1]."""
    if metric == "mse":
        return (x_hat - x).square().mean()
    from pytorch_msssim import ms_ssim  # only where it is wanted

    return 1 - ms_ssim(x_hat, x, data_range=1.0)
