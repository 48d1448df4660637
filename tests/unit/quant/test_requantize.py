"""One fused operation against equation 4 written out with autograd, and against vectors by hand."""

import pytest
import torch
from torch import Tensor

from licquant.program.arithmetic import FIXED_POINT_BITS
from licquant.quant.gradients import DistanceAware, Estimator, straight_through
from licquant.quant.layers import QuantizedTensor, requantize

ESTIMATORS = [straight_through, DistanceAware(2.0)]


def tensor(
    bits: int, scale: list[float], zero_point: list[int], rounding: Estimator = straight_through
) -> QuantizedTensor:
    made = QuantizedTensor(bits, torch.tensor(scale), torch.tensor(zero_point))
    made.rounding = rounding
    return made


def test_vectors_by_hand() -> None:
    """3 bits, zero point 3: centred integers -3 to 4."""
    values = [-2.0, -1.5, -1.3, -0.75, -0.2, 0.0, 0.25, 1.74, 1.75, 2.0, 9.0]
    found = tensor(3, 0.5, 3).quantize(torch.tensor(values).view(1, 1, 1, -1))
    assert found.flatten().tolist() == [-3, -3, -3, -1, 0, 0, 1, 3, 4, 4, 4]


def test_fixed_point_is_not_clamped() -> None:
    found = tensor(FIXED_POINT_BITS, 2.0**-8, 0).quantize(torch.tensor([[[[1e5, -3.5]]]]))
    assert found.flatten().tolist() == [1e5 * 256, -3.5 * 256]


@pytest.mark.parametrize("bits", [3, FIXED_POINT_BITS])
def test_where_nothing_is_learned_the_integers_are_the_same(bits: int) -> None:
    torch.manual_seed(0)
    value, grid = 3 * torch.randn(2, 3, 5, 4), tensor(bits, [0.5, 0.2, 1.0], [3, 0, 7])
    learned = grid.quantize(value, torch.tensor([1.0, 2.0, 0.3]))
    assert learned.requires_grad
    with torch.no_grad():
        assert torch.equal(grid.quantize(value, torch.tensor([1.0, 2.0, 0.3])), learned)


def written_out(value: Tensor, unit: Tensor, scale: Tensor, zero_point: Tensor, rounding: Estimator) -> Tensor:
    """Equation 4 for 4 bits, in centred integers."""
    unit, scale, zero_point = (t.view(1, -1, 1, 1) for t in (unit, scale, zero_point))
    return rounding(torch.clamp(value * unit / scale + zero_point, 0, 15)) - zero_point


@pytest.mark.parametrize("rounding", ESTIMATORS)
def test_gradients_are_those_of_equation_4(rounding: Estimator) -> None:
    torch.manual_seed(0)
    leaves = [
        (3 * torch.randn(2, 3, 5, 4, dtype=torch.float64)),
        torch.rand(3, dtype=torch.float64) + 0.5,
        torch.rand(3, dtype=torch.float64) + 0.2,
        torch.tensor([3.0, 0.0, 12.0], dtype=torch.float64),
    ]
    weights = torch.randn(leaves[0].shape, dtype=torch.float64)

    class Leaf:
        """What ``requantize`` reads of a tensor, in float64."""

        bits, bounds_only = 4, False

        def __init__(self, scale: Tensor, zero_point: Tensor) -> None:
            self.scale, self.zero_point, self.rounding = scale, zero_point, rounding

    def gradients(fused: bool) -> list[Tensor]:
        value, unit, scale, zero_point = (leaf.clone().requires_grad_() for leaf in leaves)
        if fused:
            q = requantize(value, unit, Leaf(scale, zero_point))  # type: ignore[arg-type]
        else:
            q = written_out(value, unit, scale, zero_point, rounding)
        return [q.detach(), *torch.autograd.grad((q * weights).sum(), [value, unit, scale, zero_point])]

    for fused, expected in zip(gradients(True), gradients(False), strict=True):
        torch.testing.assert_close(fused, expected)


@pytest.mark.parametrize("rounding", ESTIMATORS)
def test_a_bound_learns_from_what_lies_beyond_it_alone(rounding: Estimator) -> None:
    """PAMS: d(scale · q) / d alpha is 0 within the range, and the sign beyond it; alpha = 7 · scale."""
    value = torch.tensor([-9.0, -3.4, 0.2, 2.6, 3.6, 30.0]).view(-1, 1, 1, 1)
    grid = tensor(4, 0.5, 8, rounding)
    grid.bounds_only = True
    found = []
    for one in value:
        (gradient,) = torch.autograd.grad(grid.dequantize(grid.quantize(one[None])).sum(), [grid.log_scale])
        found.append(float(gradient) / 0.5)  # by the scale instead of its logarithm
    assert found == pytest.approx([-8, 0, 0, 0, 7, 7], abs=1e-5)


def test_lsq_learns_from_the_rounding_error_too() -> None:
    """Esser 2020, equation 3: round(v) - v within the range, the bound beyond it."""
    grid = tensor(4, 0.5, 8)
    found = []
    for one in (-9.0, -1.4, 0.2, 30.0):
        x = torch.tensor(one).view(1, 1, 1, 1)
        (gradient,) = torch.autograd.grad(grid.dequantize(grid.quantize(x)).sum(), [grid.log_scale])
        found.append(float(gradient) / 0.5)
    assert found == pytest.approx([-8, -3 + 2.8, 0 - 0.4, 7], abs=1e-5)
