"""Estimators: what they round to, the properties of figure 2 of DynaQuant, and gradients by hand."""

import math

import pytest
import torch
from torch import Tensor

from licquant.errors import TrainingError
from licquant.quant.gradients import DistanceAware, Estimator, straight_through

BETAS = (0.5, 1.0, 2.0, 8.0)
ESTIMATORS = [straight_through, *map(DistanceAware, BETAS)]


def cells(count: int = 2000) -> Tensor:
    """Values in the middle of equal steps over the cells from -3 to 3."""
    return (torch.arange(6 * count, dtype=torch.float64) + 0.5) / count - 3


def gradient(estimator: Estimator, v: Tensor) -> Tensor:
    leaf = v.clone().requires_grad_()
    (found,) = torch.autograd.grad(estimator(leaf).sum(), [leaf])
    return found


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_ties_go_up(estimator: Estimator) -> None:
    v = torch.tensor([-1.5, -0.51, -0.5, 0.0, 0.49, 0.5, 2.5, 7.0])
    assert estimator(v).tolist() == [-1, -1, 0, 0, 0, 1, 3, 7]


def test_straight_through_is_the_identity_backward() -> None:
    assert torch.equal(gradient(straight_through, cells(5)), torch.ones(30, dtype=torch.float64))


def test_slopes_by_hand() -> None:
    """beta = 2: 1 / tanh(1) at the boundary, sech²(1) / tanh(1) at the integers."""
    found = gradient(DistanceAware(2.0), torch.tensor([0.5, 1.0, -2.0, -0.5], dtype=torch.float64))
    boundary, integer = 1 / math.tanh(1), 1 / math.cosh(1) ** 2 / math.tanh(1)
    assert found.tolist() == pytest.approx([boundary, integer, integer, boundary])
    assert boundary == pytest.approx(1.3130, abs=1e-4)
    assert integer == pytest.approx(0.5514, abs=1e-4)


@pytest.mark.parametrize("beta", BETAS)
def test_the_proxy_joins_the_integers(beta: float) -> None:
    """Continuous and increasing for every beta, which equation 6 as printed is for beta = 1 alone."""
    v = cells()
    g = DistanceAware(beta).proxy(v)
    assert (g.diff() > 0).all()
    assert g.diff().max() < 1.01 * DistanceAware(beta).slope(torch.tensor(0.5)) / 2000
    whole = torch.arange(-3.0, 4.0)
    torch.testing.assert_close(DistanceAware(beta).proxy(whole), whole)
    torch.testing.assert_close(DistanceAware(beta).proxy(whole + 0.5), whole + 0.5)


@pytest.mark.parametrize("beta", BETAS)
def test_the_slope_is_the_proxys(beta: float) -> None:
    v = cells(50).requires_grad_()
    (derivative,) = torch.autograd.grad(DistanceAware(beta).proxy(v).sum(), [v])
    torch.testing.assert_close(gradient(DistanceAware(beta), v.detach()), derivative)


@pytest.mark.parametrize("beta", BETAS)
def test_the_slope_is_positive_has_mean_one_and_peaks_at_the_boundary(beta: float) -> None:
    v = cells()
    slope = gradient(DistanceAware(beta), v)
    assert (slope > 0).all()
    assert [float(cell.mean()) for cell in slope.chunk(6)] == pytest.approx([1.0] * 6, abs=1e-6)
    distance = (v - torch.floor(v) - 0.5).abs()
    order = distance.argsort()
    assert (slope[order].diff() <= 1e-9).all()


def test_beta_sets_how_much_the_slope_varies() -> None:
    spread = [float(gradient(DistanceAware(beta), cells(50)).std()) for beta in (0.01, *BETAS)]
    assert spread[0] < 1e-4
    assert spread == sorted(spread)


def test_equation_6_as_printed_is_the_case_beta_1() -> None:
    v = cells(50)
    f = v - torch.floor(v)
    printed = 0.5 * torch.tanh(1.0 * f - 0.5) / math.tanh(0.5) + 0.5
    torch.testing.assert_close(DistanceAware(1.0).proxy(v) - torch.floor(v), printed)


@pytest.mark.parametrize("beta", [0.0, -1.0, float("nan"), float("inf")])
def test_a_beta_that_makes_no_slope_is_refused(beta: float) -> None:
    with pytest.raises(TrainingError, match="beta"):
        DistanceAware(beta)
