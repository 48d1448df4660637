"""One loss for numbers, arrays and tensors, whoever asks for it."""

import numpy as np
import pytest
import torch

from licquant.evaluate.rd import DISTORTION_WEIGHTS, describe, rd_loss
from licquant.quant.rd import RateDistortion, rate_distortion


def test_by_hand() -> None:
    assert rd_loss(0.5, 1e-3, 0.013) == pytest.approx(0.5 + 0.845325)
    assert rd_loss(0.5, 1e-3, 2.0, "ms-ssim") == pytest.approx(0.502)
    formulas = ["bpp + lmbda * 255^2 * MSE", "bpp + lmbda * (1 - MS-SSIM)"]
    assert [describe(metric) for metric in DISTORTION_WEIGHTS] == formulas


def test_everybody_has_the_same() -> None:
    rate, error, lmbda = 0.75, 2.0**-9, 0.0125
    wanted = rd_loss(rate, error, lmbda)
    assert rd_loss(np.array([rate]), np.array([error]), lmbda) == np.array([wanted])
    tensors = torch.tensor(rate, dtype=torch.float64), torch.tensor(error, dtype=torch.float64)
    assert RateDistortion(*tensors).loss(lmbda) == wanted

    class Coded:
        pixels = torch.full((1, 3, 8, 8), 16 / 255, dtype=torch.float64)
        bits = torch.tensor(48.0, dtype=torch.float64)

    x = torch.zeros(1, 3, 8, 8, dtype=torch.float64)
    loss, bpp, found = rate_distortion(Coded, x, lmbda, "mse").tolist()
    assert (bpp, found) == (0.75, pytest.approx((16 / 255) ** 2))
    assert loss == pytest.approx(rd_loss(bpp, found, lmbda), rel=1e-15)
