"""The rate of rounded latents: its value is the codec's, its slope the mean one over the unit around each value."""

import pytest
import torch
from compressai.models import FactorizedPrior, MeanScaleHyperprior, ScaleHyperprior
from torch import Tensor, nn

from licquant.models.trace import trace_model
from licquant.quant.dataflow import bits_of_rounded, bottleneck_bits, code, medians_of, rounded_to_median, run_float

DRAWS = 4000


def gaussian_length(sigma: Tensor):
    def length(v: Tensor) -> Tensor:
        edges = [torch.special.ndtr((edge - v.abs()) / sigma) for edge in (0.5, -0.5)]
        return -torch.log2(edges[0] - edges[1])

    return length


def test_the_value_is_that_of_the_integers() -> None:
    v, length = torch.linspace(-3, 3, 41), gaussian_length(torch.tensor(1.0))
    assert torch.equal(bits_of_rounded(length, v), length(torch.floor(v + 0.5)).sum())


def test_the_slope_is_the_mean_slope_under_uniform_noise() -> None:
    v, sigma = torch.linspace(-2, 2, 17, requires_grad=True), torch.tensor(0.7)
    (found,) = torch.autograd.grad(bits_of_rounded(gaussian_length(sigma), v), v)
    noise = (torch.arange(DRAWS) + 0.5) / DRAWS - 0.5
    noisy = gaussian_length(sigma)(v[:, None] + noise).mean(1).sum()
    (expected,) = torch.autograd.grad(noisy, v)
    assert torch.allclose(found, expected, atol=1e-4)


def test_a_latent_that_is_rounded_to_its_mean_still_feels_the_rate() -> None:
    v = torch.tensor([-0.4, 0.0, 0.4], requires_grad=True)
    (slope,) = torch.autograd.grad(bits_of_rounded(gaussian_length(torch.tensor(0.5)), v), v)
    assert slope[0] < 0
    assert slope[2] > 0
    assert slope[1] == 0


def test_the_slope_in_sigma_is_that_of_the_integers() -> None:
    v, sigma = torch.linspace(-2, 2, 17), torch.tensor(0.8, requires_grad=True)
    (found,) = torch.autograd.grad(bits_of_rounded(gaussian_length(sigma), v), sigma)
    (expected,) = torch.autograd.grad(gaussian_length(sigma)(torch.floor(v + 0.5)).sum(), sigma)
    assert torch.equal(found, expected)


def test_the_slope_has_a_slope() -> None:
    """For the Hessian of the loss."""
    v, length = torch.linspace(-2, 2, 17, dtype=torch.float64, requires_grad=True), gaussian_length(torch.tensor(0.8))
    (slope,) = torch.autograd.grad(bits_of_rounded(length, v), v, create_graph=True)
    (second,) = torch.autograd.grad(slope.sum(), v)
    step = 1e-5
    expected = (length(v + step + 0.5) - length(v + step - 0.5) - length(v - step + 0.5) + length(v - step - 0.5)) / (
        2 * step
    )
    assert torch.allclose(second, expected.detach(), atol=1e-6)


@pytest.mark.parametrize("family", [ScaleHyperprior, MeanScaleHyperprior])
def test_the_latent_of_the_gaussian_has_the_mean_slope(family: type[nn.Module]) -> None:
    """σ and μ are kept as they are; of the scale hyperprior's y, all rounded to 0, straight-through has no slope."""
    torch.manual_seed(0)
    model = family(8, 12)
    model.update(force=True)
    traced = trace_model(model.eval())
    y, plain = torch.full((1, 12, 4, 4), 0.2, requires_grad=True), run_float(traced)
    parameters: list[Tensor] = []

    def run(name: str, value: Tensor) -> Tensor:
        if name == "g_a":
            return y
        found = plain(name, value.detach()).detach()
        if name == "h_s":
            parameters.append(found)
        return found

    (found,) = torch.autograd.grad(code(traced, run, torch.rand(1, 3, 64, 64)).bits, y)
    sigma, mean = parameters[0].chunk(2, 1) if family is MeanScaleHyperprior else (parameters[0], 0.0)
    edges = [model.gaussian_conditional._likelihood(y - mean + edge, sigma) for edge in (0.5, -0.5)]
    assert torch.allclose(found, -torch.log2(edges[0] / edges[1]), atol=1e-4)
    assert torch.all(found != 0)


@pytest.mark.parametrize(("family", "part"), [(FactorizedPrior, "g_a"), (ScaleHyperprior, "h_a")])
def test_the_latent_of_the_bottleneck_has_the_mean_slope(family: type[nn.Module], part: str) -> None:
    torch.manual_seed(0)
    model = family(8, 12)
    model.update(force=True)
    traced = trace_model(model.eval())
    shape = (1, 12, 4, 4) if part == "g_a" else (1, 8, 1, 1)
    latent = (torch.randn(shape) * 2).requires_grad_()
    plain = run_float(traced)

    def run(name: str, value: Tensor) -> Tensor:
        return latent if name == part else plain(name, value.detach())

    (found,) = torch.autograd.grad(code(traced, run, torch.rand(1, 3, 64, 64)).bits, latent)
    with torch.no_grad():
        expected = bottleneck_bits(traced, latent + 0.5) - bottleneck_bits(traced, latent - 0.5)
    assert torch.allclose(found, expected, atol=1e-5)


def test_bottleneck_bits_are_those_of_each_value() -> None:
    torch.manual_seed(0)
    model = FactorizedPrior(8, 12)
    model.update(force=True)
    traced = trace_model(model.eval())
    z = torch.randn(2, 12, 4, 3) * 3
    rounded = rounded_to_median(traced, z)
    found = bottleneck_bits(traced, rounded)
    assert found.shape == z.shape
    one = bottleneck_bits(traced, rounded[:1])
    assert torch.allclose(found[:1], one)
    medians = medians_of(traced).view(-1, 1)
    values = rounded[0].flatten(1)
    assert torch.allclose(values - medians, torch.round(values - medians), atol=1e-5)
    for channel in range(12):
        likelihood = traced.bottleneck._likelihood(values.unsqueeze(1))[0][channel, 0]
        assert torch.allclose(found[0, channel].flatten(), -torch.log2(likelihood))
