"""The rate-distortion loss, for training, searches and reports: J = R + λ·w·D, R in bits per pixel.

mse       D = MSE on the [0, 1] scale     w = 255²
ms-ssim   D = 1 - MS-SSIM                 w = 1
"""

from collections.abc import Mapping
from typing import Any

DISTORTION_WEIGHTS: Mapping[str, int] = {"mse": 255**2, "ms-ssim": 1}
_FORMULAS = {"mse": "bpp + lmbda * 255^2 * MSE", "ms-ssim": "bpp + lmbda * (1 - MS-SSIM)"}


def rd_loss(rate: Any, distortion: Any, lmbda: float, metric: str = "mse") -> Any:
    """J of numbers, arrays or tensors; metric: of ``DISTORTION_WEIGHTS``."""
    return rate + lmbda * DISTORTION_WEIGHTS[metric] * distortion


def describe(metric: str) -> str:
    """The loss as a formula, for a model card."""
    return _FORMULAS[metric]
