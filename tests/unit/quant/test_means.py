"""The means of y lie on the grid of ŷ, and ŷ on the grid that the layers after it read."""

import numpy as np
import pytest
import torch
from compressai.models import JointAutoregressiveHierarchicalPriors, MeanScaleHyperprior
from torch import Tensor, nn

from licquant.codec.latents.gaussian import GaussianQuantizer
from licquant.lower import lower_model
from licquant.models.graph import INPUT
from licquant.models.trace import trace_model
from licquant.program.grid import Grid
from licquant.quant.calibrate import collect_statistics
from licquant.quant.dataflow import code
from licquant.quant.grids import LATENT_FRACTION_BITS, MEAN_FRACTION_BITS, SCALE_FRACTION_BITS
from licquant.quant.insert import insert_quantizers
from licquant.quant.layers import ParametersTensor
from licquant.quant.network import QuantizedModel, uniform_plan
from licquant.quant.synthetic import dead_leaves

UNIT = 2.0**-MEAN_FRACTION_BITS


def quantized(model: nn.Module) -> QuantizedModel:
    """At 8 bits, for an untrained model whose latents are some units large, and whose means are no integers."""
    torch.manual_seed(0)
    with torch.no_grad():
        model.g_a[-1].weight.mul_(60)
        model.g_a[-1].bias.normal_(0, 3)
        getattr(model, "entropy_parameters", model.h_s)[-1].bias.normal_(0, 3)
    model.update(force=True)
    traced = trace_model(model.eval())
    return insert_quantizers(traced, uniform_plan(traced, 8, 8), collect_statistics(traced, dead_leaves(2, 64)))


def test_means_are_rounded_as_the_codec_rounds_them() -> None:
    stored = np.random.default_rng(0).integers(-(2**14), 2**14, (1, 6, 5, 7))
    codec = GaussianQuantizer(None, LATENT_FRACTION_BITS, SCALE_FRACTION_BITS, MEAN_FRACTION_BITS)  # type: ignore[arg-type]
    tensor = ParametersTensor.of_means(Grid.fixed_point(6, SCALE_FRACTION_BITS), UNIT)
    sigma, mean = tensor.dequantize(torch.from_numpy(stored).float()).chunk(2, 1)
    assert np.array_equal(mean.numpy() / UNIT, codec.mean(stored[:, 3:]))
    assert np.array_equal(sigma.numpy() * 2**SCALE_FRACTION_BITS, stored[:, :3])


def test_the_gradient_passes_the_rounding_of_the_means() -> None:
    q = torch.randn(1, 4, 2, 2).mul(1000).requires_grad_()
    ParametersTensor.of_means(Grid.fixed_point(4, SCALE_FRACTION_BITS), UNIT).dequantize(q).sum().backward()
    assert q.grad is not None
    assert torch.equal(q.grad, torch.full_like(q, 2.0**-SCALE_FRACTION_BITS))


def test_the_latent_is_rounded_once() -> None:
    """What g_s's layers read is ŷ itself, wherever its range fits 8 bits of a half."""
    model = quantized(MeanScaleHyperprior(8, 12))
    part = model.part("g_s")
    first = part.graph.steps[0]
    seen: list[Tensor] = []

    def run(name: str, value: Tensor) -> Tensor:
        if name == "g_s":
            seen.append(value)
        return model.run(name, value)

    with torch.no_grad():
        code(model.traced, run, torch.rand(1, 3, 64, 64))
        (y_hat,) = seen
        read = part.tensors[first.name].dequantize(part.run(first, [part.tensors[INPUT].quantize(y_hat)]))
    exact = (part.tensors[first.name].scale - UNIT).abs() < 1e-6
    assert exact.any()
    assert (y_hat.frac() != 0).any()
    assert torch.allclose(read[:, exact], y_hat[:, exact], atol=1e-4)


def test_fixed_points_are_those_of_what_is_read() -> None:
    fine = 2.0**-LATENT_FRACTION_BITS
    means, contexts = (
        lower_model(quantized(make(8, 12))) for make in (MeanScaleHyperprior, JointAutoregressiveHierarchicalPriors)
    )
    assert means["g_s"].input_grid.scale == pytest.approx(UNIT)
    for part in (means["h_a"], means["h_s"], *(contexts[name] for name in ("g_s", "context_prediction", "h_a", "h_s"))):
        assert part.input_grid.scale == pytest.approx(fine)
