"""A model class of your own, which CompressAI does not have:  python own_model.py photos/

What is needed of it: the parts g_a, g_s, h_a and h_s, made of convolutions, GDN, ReLU and additions, however they are
joined. They are traced, so skip connections and sums need no word. Here with random weights; yours is trained.
"""

import sys
from pathlib import Path

import torch
from compressai.layers import GDN
from compressai.models import ScaleHyperprior
from compressai.models.utils import conv, deconv
from torch import nn

from licquant.images import calibration_files, read_calibration
from licquant.pipeline import quantize


class Residual(nn.Module):
    """x + conv(relu(conv(x)))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Keep the size and the number of channels."""
        return x + self.second(torch.relu(self.first(x)))


class MyModel(ScaleHyperprior):
    """A scale hyperprior with other transforms."""

    def __init__(self, n: int = 16, m: int = 24) -> None:
        super().__init__(n, m)
        self.g_a = nn.Sequential(conv(3, n), Residual(n), conv(n, n), GDN(n), conv(n, n), conv(n, m))
        self.g_s = nn.Sequential(
            deconv(m, n), Residual(n), deconv(n, n), GDN(n, inverse=True), deconv(n, n), deconv(n, 3)
        )


torch.manual_seed(0)
model = MyModel().eval()
model.update(force=True)
images = read_calibration(calibration_files(Path(sys.argv[1])), strict=False).images
result = quantize(model, images)
print(f"{result.artifact.save('own.licq')} bytes, coded as {result.artifact.family}")
