"""The losses by hand, and whose gradient they are."""

import pytest
import torch
from pytorch_msssim import ms_ssim
from torch import nn

from licquant.train import architectures
from licquant.train.objective import Objective


class Stub(nn.Module):
    """Every likelihood is 1/4, every sample is off by 0.1, the auxiliary loss is 7."""

    def forward(self, x: torch.Tensor) -> dict[str, object]:
        likelihoods = {"y": torch.full((2, 3, 4, 4), 0.25), "z": torch.full((2, 1, 2, 2), 0.25)}
        return {"x_hat": x - 0.1, "likelihoods": likelihoods}

    def aux_loss(self) -> torch.Tensor:
        return torch.tensor(7.0)


def test_the_loss_is_rate_and_weighted_distortion() -> None:
    samples = torch.full((2, 3, 8, 8), 128, dtype=torch.uint8)
    minimised, figures = Objective(Stub(), 0.01, "mse", True)(samples)
    loss, bpp, distortion, auxiliary = figures.tolist()
    assert float(minimised) == pytest.approx(loss + auxiliary)
    assert bpp == pytest.approx(2 * (96 + 8) / (2 * 8 * 8))  # 2 bits for each likelihood of 1/4
    assert distortion == pytest.approx(0.01)
    assert loss == pytest.approx(bpp + 0.01 * 255**2 * 0.01)
    assert auxiliary == 7


def test_the_other_distortion_is_one_minus_ms_ssim() -> None:
    samples = torch.randint(0, 256, (2, 3, 192, 192), dtype=torch.uint8)
    loss, bpp, distortion, _ = Objective(Stub(), 5.0, "ms-ssim", False)(samples)[1].tolist()
    x = samples / 255
    assert distortion == pytest.approx(1 - ms_ssim(x - 0.1, x, data_range=1.0).item(), rel=1e-5)
    assert loss == pytest.approx(bpp + 5 * distortion)


def test_each_loss_moves_its_own_parameters() -> None:
    model = architectures.build("bmshj2018-hyperprior", {"N": 8, "M": 12})
    objective = Objective(model, 0.01, "mse", True)
    samples = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    quantiles = {"entropy_bottleneck.quantiles"}

    def moved_by(which: str) -> set[str]:
        model.zero_grad()
        objective(samples)[1][objective.figures.index(which)].backward()
        return {name for name, value in model.named_parameters() if value.grad.any()}

    assert moved_by("auxiliary") == quantiles
    assert not moved_by("loss") & quantiles
    assert {"g_a.0.weight", "g_s.6.weight", "h_s.4.weight", "entropy_bottleneck.matrices.0"} <= moved_by("loss")
