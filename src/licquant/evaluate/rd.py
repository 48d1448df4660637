"""The rate-distortion loss, for training, searches and reports: J = R + λ·w·D, R in bits per pixel.

mse       D = MSE on the [0, 1] scale     w = 255²
ms-ssim   D = 1 - MS-SSIM                 w = 1
"""

from collections.abc import Mapping
from typing import Any

from licquant.config import check_lmbda
from licquant.errors import ModelError

MSE, MS_SSIM = "mse", "ms-ssim"
DISTORTION_WEIGHTS: Mapping[str, int] = {MSE: 255**2, MS_SSIM: 1}
LARGEST_FOR_MSE = 1.0  # the models of CompressAI that are trained for MSE have λ up to 0.18, for MS-SSIM from 2.4 on
_FORMULAS = {"mse": "bpp + lmbda * 255^2 * MSE", "ms-ssim": "bpp + lmbda * (1 - MS-SSIM)"}


def rd_loss(rate: Any, distortion: Any, lmbda: float, metric: str = "mse") -> Any:
    """J of numbers, arrays or tensors; metric: of ``DISTORTION_WEIGHTS``."""
    return rate + lmbda * DISTORTION_WEIGHTS[metric] * distortion


def check_loss(lmbda: float, metric: str, where: str = "λ") -> float:
    """λ that goes with the metric; ``ModelError`` for one that no model trained for MSE has."""
    if metric == MSE and check_lmbda(lmbda, where) > LARGEST_FOR_MSE:
        raise ModelError(f"{where} = {lmbda:g} is that of a model trained for MS-SSIM: add --metric ms-ssim")
    return lmbda


def describe(metric: str) -> str:
    """The loss as a formula, for a model card."""
    return _FORMULAS[metric]
