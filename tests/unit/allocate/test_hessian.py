"""Traces of Hessians against the exact Hessian, where that can be written down or computed."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from licquant.allocate import hessian
from licquant.allocate.hessian import hutchinson, omega, run_layers, weight_hessian_traces
from licquant.models.trace import trace_model
from licquant.quant.layers import QuantizedLayer
from licquant.quant.rd import evaluate, evaluate_float
from tests.models_for_tests import hand_made, small_hyperprior

LMBDA = 0.01


def _crops(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


def test_every_vector_gives_the_exact_trace_of_a_diagonal_hessian() -> None:
    curvature = {"a": torch.tensor([1.0, 2.0, -5.0]), "b": torch.tensor([[4.0], [0.5]])}
    weights = {name: torch.ones_like(c, requires_grad=True) for name, c in curvature.items()}
    loss = sum((0.5 * c * weights[name] ** 2).sum() for name, c in curvature.items())
    assert isinstance(loss, Tensor)
    found = list(hutchinson(loss, weights, 3, torch.Generator().manual_seed(0)))
    assert found == [{"a": -2.0, "b": 4.5}] * 3


def test_layers_that_interact_add_variance_but_no_bias() -> None:
    generator = torch.Generator().manual_seed(1)
    full = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    full = full + full.T  # couples the layers, and the weights within a layer
    weights = {name: torch.zeros(3, dtype=torch.float64, requires_grad=True) for name in "ab"}
    w = torch.cat(list(weights.values()))
    found = list(hutchinson(0.5 * w @ full @ w, weights, 2000, generator))
    for name, block in {"a": full[:3, :3], "b": full[3:, 3:]}.items():
        values = torch.tensor([f[name] for f in found])
        error = float(values.std()) / len(values) ** 0.5
        assert abs(float(values.mean()) - float(block.trace())) < 4 * error
        assert error < 0.2


@pytest.mark.parametrize("model", [small_hyperprior(), hand_made()], ids=["gdn", "residual"])
def test_substituted_weights_run_the_same_network(model: nn.Module) -> None:
    traced, x = trace_model(model), _crops(1)
    layers = {step.name: QuantizedLayer(step, 8) for step in traced.layers if step.has_weights}
    with torch.no_grad():
        found, expected = evaluate(traced, run_layers(traced, layers), x), evaluate_float(traced, x)
    assert float(found.bpp) == pytest.approx(float(expected.bpp), rel=1e-5)
    assert float(found.distortion) == pytest.approx(float(expected.distortion), rel=1e-5)


@pytest.mark.slow
def test_a_codecs_traces_agree_with_its_exact_hessian() -> None:
    """One convolution and one gamma of a small codec: the diagonal, one unit vector at a time."""
    traced, x = trace_model(small_hyperprior(2, 3)), _crops(1)
    layers = {step.name: QuantizedLayer(step, 8) for step in traced.layers if step.has_weights}
    weights = {name: layer.weight for name, layer in layers.items()}
    loss = evaluate(traced, run_layers(traced, layers), x).loss(LMBDA)
    samples = list(hutchinson(loss, weights, 300, torch.Generator().manual_seed(0)))
    for name in ("g_s.1", "h_s.4"):
        (gradient,) = torch.autograd.grad(loss, weights[name], create_graph=True)
        exact = sum(
            float(torch.autograd.grad(g, weights[name], retain_graph=True)[0].flatten()[i])
            for i, g in enumerate(gradient.flatten())
        )
        values = torch.tensor([sample[name] for sample in samples], dtype=torch.float64)
        error = float(values.std()) / len(values) ** 0.5
        assert exact != 0
        assert abs(float(values.mean()) - exact) < 4 * error + 1e-4 * abs(exact)


def test_an_estimate_repeats() -> None:
    traced, x = trace_model(small_hyperprior(2, 3)), _crops(1)
    first, second = (weight_hessian_traces(traced, x, LMBDA) for _ in range(2))
    assert first == second
    assert list(first) == [step.name for step in traced.layers if step.has_weights]


def test_batches_count_by_their_crops(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the loss itself in place of the trace, the mean over all crops must come out; and every step is told."""

    def loss_itself(loss: Tensor, weights: object, vectors: int, generator: object) -> Iterator[dict[str, float]]:
        yield from [{"g_a.0": float(loss)}] * vectors

    monkeypatch.setattr(hessian, "hutchinson", loss_itself)
    traced, x, told = trace_model(small_hyperprior(2, 3)), _crops(6), []
    found = weight_hessian_traces(traced, x, LMBDA, on_step=told.append)
    with torch.no_grad():
        assert found["g_a.0"] == pytest.approx(float(evaluate_float(traced, x).loss(LMBDA)), rel=1e-5)
    assert told == list(range(1, 2 * hessian.VECTORS + 1))


def test_importance_is_the_papers_product() -> None:
    assert omega(10.0, 1.5, 1.2) == pytest.approx(10 * 0.3 / 1.2)
    assert omega(10.0, 1.0, 1.2) == pytest.approx(10 * 0.2 / 1.2)
    assert omega(-10.0, 1.5, 1.2) == omega(10.0, 1.5, 1.2)
