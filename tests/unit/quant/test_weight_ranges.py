"""Ranges and biases of single layers, on data whose statistics are known exactly."""

import pytest
import torch
from compressai.layers import GDN
from torch import Tensor, nn

from licquant.models.graph import CONVOLUTION, INPUT, NORMALIZATION, TRANSPOSED_CONVOLUTION, Graph, Step
from licquant.quant.calibrate import BINS, TensorStatistics
from licquant.quant.grids import squares_of
from licquant.quant.layers import QuantizedLayer, QuantizedTensor
from licquant.quant.network import QuantizedPart
from licquant.quant.ranges import fit_weight_ranges, moments

STEP = "g.0"


def sample(magnitudes: list[float], count: int = 4000, seed: int = 0) -> tuple[Tensor, TensorStatistics]:
    """Values [C, count], skewed, all at centres of bins, so that the histogram knows their moments exactly."""
    generator = torch.Generator().manual_seed(seed)
    high = torch.tensor(magnitudes)
    found = TensorStatistics(-high / 2, high, torch.zeros(len(high), BINS))
    bins = (torch.rand(len(high), count, generator=generator) ** 1.5 * BINS).long().clamp(max=BINS - 1)
    found.counts.scatter_add_(1, bins, torch.ones(bins.shape))
    return found.centres.gather(1, bins), found


def part_of(module: nn.Module, kind: str, bits: int, input_scale: Tensor) -> QuantizedPart:
    step = Step(STEP, kind, (INPUT,), module)
    grid = QuantizedTensor(8, input_scale, torch.full_like(input_scale, 128))
    tensors = {INPUT: grid, squares_of(STEP): grid, STEP: grid}
    return QuantizedPart(Graph("g", (step,)), tensors, {STEP: QuantizedLayer(step, bits)})


def rounded_weight(part: QuantizedPart) -> Tensor:
    """What the layer's integers stand for."""
    layer, scale = part.layers[STEP], part.weight_scale(part.graph.steps[0])
    return (layer.integer_weight(scale) * layer.rows() / layer.columns(scale)).detach()


def test_moments_of_values_magnitudes_and_squares():
    values, found = sample([2.0, 0.5])
    for power, x in ((0, values), (1, values.abs()), (2, values**2)):
        mean, variance = moments(found, power)
        torch.testing.assert_close(mean, x.mean(1), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(variance, x.var(1, correction=0), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("bits", [3, 4, 8])
def test_a_planted_outlier_does_not_set_the_range(bits):
    """One large weight on an input that hardly moves: representing it would cost all others their resolution."""
    torch.manual_seed(0)
    module = nn.Conv2d(8, 4, 1)
    with torch.no_grad():
        module.weight.normal_(0, 0.1)
        module.weight[:, 0] = 0.6
    values, found = sample([0.01] + [1.0] * 7)
    part = part_of(module, CONVOLUTION, bits, torch.full((8,), 0.01))

    def error() -> float:
        """The variance of the output's error; its mean is what the bias takes back."""
        difference = (rounded_weight(part) - module.weight.detach())[:, :, 0, 0] @ values
        return float(difference.var(1).sum())

    largest = error()
    fit_weight_ranges(part, {f"g.{INPUT}": found})
    assert error() <= largest
    if bits < 8:
        assert error() < 0.25 * largest


def test_the_bias_takes_back_the_mean_error():
    torch.manual_seed(1)
    module = nn.Conv2d(6, 5, 1)
    values, found = sample([1.0, 3.0, 0.2, 1.0, 2.0, 0.7])
    part = part_of(module, CONVOLUTION, 3, torch.tensor([0.01, 0.02, 0.003, 0.01, 0.02, 0.01]))
    x = values[None, :, :, None]
    with torch.no_grad():
        expected = module(x).mean((0, 2, 3))
        fit_weight_ranges(part, {f"g.{INPUT}": found})
        found_mean = nn.functional.conv2d(x, rounded_weight(part), part.layers[STEP].bias).mean((0, 2, 3))
        uncorrected = nn.functional.conv2d(x, rounded_weight(part), module.bias).mean((0, 2, 3))
    torch.testing.assert_close(found_mean, expected, rtol=0, atol=2e-5)
    assert (uncorrected - expected).abs().max() > 1e-3


def test_a_transposed_convolution_gathers_one_tap_in_four():
    torch.manual_seed(2)
    module = nn.ConvTranspose2d(4, 3, 2, stride=2)
    values, found = sample([1.0, 2.0, 0.5, 1.0])
    part = part_of(module, TRANSPOSED_CONVOLUTION, 3, torch.full((4,), 0.01))
    x = values[None, :, :, None]
    with torch.no_grad():
        expected = module(x).mean((0, 2, 3))
        fit_weight_ranges(part, {f"g.{INPUT}": found})
        weight, bias = rounded_weight(part), part.layers[STEP].bias
        corrected = nn.functional.conv_transpose2d(x, weight, bias, 2).mean((0, 2, 3))
    torch.testing.assert_close(corrected, expected, rtol=0, atol=2e-5)
    assert (bias - module.bias).abs().max() > 1e-3


@pytest.mark.parametrize("inverse", [False, True])
def test_a_normalization_keeps_a_positive_norm(inverse):
    """γ rounded upwards asks for a negative β: half of β stays."""
    module = GDN(3, inverse=inverse)
    with torch.no_grad():
        module.gamma.copy_(module.gamma_reparam.init(torch.tensor([[1.0, 0.6, 0.6]] * 3)))
        module.beta.copy_(module.beta_reparam.init(torch.full((3,), 0.1)))
    _, found = sample([20.0, 2.0, 2.0])
    part = part_of(module, NORMALIZATION, 2, torch.tensor([1.0, 1.0, 1.0]))
    before = part.layers[STEP].bias.detach().clone()
    fit_weight_ranges(part, {f"g.{INPUT}": found})
    assert (rounded_weight(part)[:, 1:] > 0.7).all()  # as planted
    torch.testing.assert_close(part.layers[STEP].bias.detach(), before / 2)
