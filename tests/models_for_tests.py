"""Small models that the tests quantize: fast, and one that CompressAI does not have."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import compressai.models  # noqa: F401  (fills the registry)
import torch
from compressai.entropy_models import EntropyBottleneck, GaussianConditional
from compressai.layers import GDN1
from compressai.models import ScaleHyperprior
from compressai.models.base import CompressionModel
from compressai.registry import MODELS
from torch import Tensor, nn

from benchmarks.untrained import liven


def small_hyperprior(n: int = 8, m: int = 12, seed: int = 0) -> ScaleHyperprior:
    """A bmshj2018-hyperprior with few channels and random weights, scaled so that latents are not all zero."""
    torch.manual_seed(seed)
    model = ScaleHyperprior(n, m).eval()
    enlarge_latents(model)
    model.update(force=True)
    return model


def save_small_checkpoint(folder: Path, name: str = "c", lmbda: float = 0.01, model: str | None = None) -> Path:
    """``small_hyperprior``, or a small ``model``, as NAME.pt with its model card."""
    path = folder / f"{name}.pt"
    torch.save((small_model(model) if model else small_hyperprior()).state_dict(), path)
    path.with_suffix(".json").write_text(json.dumps({"lmbda": lmbda}))
    return path


# CompressAI's name → widths of a small model; ELIC's context networks have fixed widths of 224 and 128.
SMALL: dict[str, dict[str, object]] = {
    "bmshj2018-factorized": {"N": 8, "M": 12},
    "bmshj2018-factorized-relu": {"N": 8, "M": 12},
    "bmshj2018-hyperprior": {"N": 8, "M": 12},
    "mbt2018-mean": {"N": 8, "M": 12},
    "mbt2018": {"N": 8, "M": 12},
    "cheng2020-anchor": {"N": 12},
    "cheng2020-attn": {"N": 12},
    "cheng2020-anchor-checkerboard": {"N": 12},
    "elic2022-official": {"N": 12, "M": 16, "groups": [4, 4, 8]},
}


def small_model(name: str, seed: int = 0) -> CompressionModel:
    """A model of CompressAI's with few channels and random weights that give latents and parameters of some size."""
    torch.manual_seed(seed)
    model = MODELS[name](**SMALL[name]).eval()
    liven(model)
    model.update(force=True)
    return model


def makers() -> dict[str, Callable[[], CompressionModel]]:
    """Name → a function that makes the small model."""
    return {name: partial(small_model, name) for name in SMALL}


def enlarge_latents(model: Any) -> None:
    """Untrained analysis transforms give latents that all round to 0: make the last layer louder."""
    with torch.no_grad():
        last = [module for module in model.g_a.modules() if isinstance(module, nn.Conv2d)][-1]
        last.weight.mul_(40)
        for module in model.h_s.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.bias is not None:
                module.bias.add_(0.3)


class _Residual(nn.Module):
    """A residual block that CompressAI does not have."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(torch.relu(self.first(x)))


class HandMade(CompressionModel):
    """A user's own model: other kernel sizes, ReLU and leaky ReLU in place of GDN, a residual addition."""

    def __init__(self, n: int = 8, m: int = 12) -> None:
        super().__init__()
        self.entropy_bottleneck = EntropyBottleneck(n)
        self.g_a = nn.Sequential(
            nn.Conv2d(3, n, 7, stride=4, padding=3),
            nn.ReLU(),
            _Residual(n),
            nn.Conv2d(n, m, 3, stride=2, padding=1),
        )
        self.g_s = nn.Sequential(
            nn.ConvTranspose2d(m, n, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            _Residual(n),
            nn.ConvTranspose2d(n, 3, 8, stride=4, padding=2),
        )
        self.h_a = nn.Sequential(nn.Conv2d(m, n, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(n, n, 5, padding=2))
        self.h_s = nn.Sequential(
            nn.ConvTranspose2d(n, n, 4, stride=2, padding=1), nn.ReLU(), nn.Conv2d(n, m, 3, padding=1), nn.ReLU()
        )
        self.gaussian_conditional = GaussianConditional(None)

    def forward(self, x: Tensor) -> dict[str, object]:
        y = self.g_a(x)
        z = self.h_a(y)
        z_hat, z_likelihoods = self.entropy_bottleneck(z)
        scales = self.h_s(z_hat)
        y_hat, y_likelihoods = self.gaussian_conditional(y, scales)
        return {"x_hat": self.g_s(y_hat), "likelihoods": {"y": y_likelihoods, "z": z_likelihoods}}


class FirstKind(HandMade):
    """Transforms with the first kind of GDN, kernels of 9, 5, 3 and strides of 4, 2, 2, as Ballé's first models."""

    def __init__(self, n: int = 8, m: int = 12) -> None:
        super().__init__(n, m)
        self.g_a = nn.Sequential(
            nn.Conv2d(3, n, 9, stride=4, padding=4),
            GDN1(n),
            nn.Conv2d(n, n, 5, stride=2, padding=2),
            GDN1(n),
            nn.Conv2d(n, m, 3, stride=2, padding=1),
        )
        self.g_s = nn.Sequential(
            nn.ConvTranspose2d(m, n, 3, stride=2, padding=1, output_padding=1),
            GDN1(n, inverse=True),
            nn.ConvTranspose2d(n, n, 5, stride=2, padding=2, output_padding=1),
            GDN1(n, inverse=True),
            nn.ConvTranspose2d(n, 3, 9, stride=4, padding=4, output_padding=3),
        )


def first_kind(seed: int = 0) -> FirstKind:
    """With full matrices of some size in its normalizations."""
    torch.manual_seed(seed)
    model = FirstKind().eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, GDN1):
                module.beta.copy_(module.beta_reparam.init(0.5 + torch.rand(len(module.beta))))
                module.gamma.copy_(
                    module.gamma_reparam.init(0.1 * torch.eye(len(module.beta)) + 0.05 * torch.rand_like(module.gamma))
                )
    enlarge_latents(model)
    model.update(force=True)
    return model


def hand_made(seed: int = 0) -> HandMade:
    torch.manual_seed(seed)
    model = HandMade().eval()
    enlarge_latents(model)
    model.update(scale_table=[0.11, 1.0, 10.0], force=True)
    return model
