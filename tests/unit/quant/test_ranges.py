"""Ranges from statistics, against hand-computed cases and a brute-force search."""

import pytest
import torch

from licquant.errors import DataError
from licquant.models.trace import trace_model
from licquant.quant.calibrate import BINS, TensorStatistics, collect_statistics, to_tensor
from licquant.quant.ranges import HEADROOM, activation_scale, min_max, min_mse, percentile, scale_of_multiples
from licquant.quant.synthetic import dead_leaves
from tests.models_for_tests import small_hyperprior


def statistics(values: torch.Tensor) -> TensorStatistics:
    """Of values [C, n]."""
    low, high = values.amin(1), values.amax(1)
    found = TensorStatistics(low, high, torch.zeros(len(values), BINS))
    a, b = found.span
    index = ((values - a[:, None]) / (b - a)[:, None] * BINS).long().clamp(0, BINS - 1)
    found.counts.scatter_add_(1, index, torch.ones_like(values))
    return found


def test_min_max_symmetric_by_hand():
    found = statistics(torch.tensor([[-2.0, 1.0, 0.5], [-0.25, 1.0, 0.0]]))
    scale, zero_point = activation_scale(found, 8, min_max, per_channel=True)
    torch.testing.assert_close(scale, torch.tensor([2 / 127, 1 / 127]), rtol=0.01, atol=0)
    assert zero_point.tolist() == [128, 128]
    # no value is outside the grid
    assert (scale * 127 >= torch.tensor([2.0, 1.0])).all()


def test_unsigned_tensors_use_the_whole_range():
    scale, zero_point = activation_scale(statistics(torch.tensor([[0.0, 5.1], [0.0, 2.55]])), 8, min_max, True)
    torch.testing.assert_close(scale, torch.tensor([0.02, 0.01]), rtol=0.01, atol=0)
    assert zero_point.tolist() == [0, 0]


def test_per_tensor_has_one_scale():
    scale, _ = activation_scale(statistics(torch.tensor([[-2.0, 1.0], [-0.25, 1.0]])), 8, min_max, per_channel=False)
    assert scale[0] == scale[1]
    assert scale[0] * 127 >= 2.0


def test_percentile_leaves_outliers_out():
    values = torch.cat([torch.linspace(-1, 1, 1_000_000), torch.tensor([50.0])])[None]
    scale, _ = activation_scale(statistics(values), 8, percentile, True)
    assert scale * 127 < 2


def test_min_mse_balances_clipping_and_rounding():
    torch.manual_seed(0)
    values = torch.randn(1, 200_000)
    limits = {
        bits: float(activation_scale(statistics(values), bits, min_mse, True)[0] * ((1 << bits - 1) - 1))
        for bits in (3, 4, 8)
    }
    assert limits[3] < limits[4] < limits[8]
    assert limits[8] <= float(values.abs().max()) * 1.3 * HEADROOM


def test_integers_are_read_as_they_are_where_that_clips_little():
    torch.manual_seed(0)
    narrow = torch.randint(-20, 21, (1, 10_000)).float()
    rare = narrow.clone()
    rare[0, 0] = 35.0  # one that 6 bits do not reach
    wide = 3 * narrow
    scale = torch.tensor([1.1])
    middle = torch.tensor([32.0])

    def chosen(values: torch.Tensor, scale: torch.Tensor) -> float:
        return float(scale_of_multiples(statistics(values), 6, 1.0, scale, middle))

    assert chosen(narrow, 0.7 * scale) == 1.0
    assert chosen(narrow, scale) == 1.0
    assert chosen(rare, scale) == 1.0
    assert chosen(wide, 2 * scale) == 2 * float(scale)


@pytest.mark.parametrize("largest", [30, 33, 36, 45, 62])
def test_of_two_scales_for_integers_the_one_with_less_error(largest: int):
    torch.manual_seed(0)
    values = (torch.randn(1, 50_000) * largest / 4).round().clamp(-largest, largest)
    scale, middle = torch.tensor([1.1 * largest / 31]), torch.tensor([32.0])

    def error(at: torch.Tensor) -> float:
        clipped = values.clamp(-32 * at.item(), 31 * at.item())
        rounded = (values / at).round().clamp(-32, 31) * at
        return float((4 * (values - clipped) ** 2 + (clipped - rounded) ** 2).mean())

    chosen = scale_of_multiples(statistics(values), 6, 1.0, scale, middle)
    assert error(chosen) <= min(error(scale), error(torch.ones(1)))


def test_constant_tensors_do_no_harm():
    scale, _ = activation_scale(statistics(torch.zeros(3, 5)), 8, min_mse, True)
    assert torch.isfinite(scale).all()
    assert (scale > 0).all()


def test_statistics_count_every_value():
    images = dead_leaves(2, 128)
    found = collect_statistics(trace_model(small_hyperprior()), images)
    counts = found["g_a.0"].counts.sum(dim=1)
    assert (counts == 2 * 64 * 64).all()
    assert set(found) >= {"g_a.input", "g_s.6", "h_a.abs", "h_s.input"}
    assert float(found["g_a.input"].high.max()) <= 1.0


def test_images_that_are_too_small_or_missing():
    traced = trace_model(small_hyperprior())
    with pytest.raises(DataError, match="64x64"):
        collect_statistics(traced, [dead_leaves(1, 32)[0]])
    with pytest.raises(DataError, match="at least one"):
        collect_statistics(traced, [])


def test_images_are_cut_to_multiples_of_64():
    assert to_tensor(dead_leaves(1, 150)[0]).shape == (1, 3, 128, 128)
