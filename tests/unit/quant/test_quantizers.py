"""Learned grids: where they start, what is trained of them, and what stays."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from licquant.models.graph import TRANSPOSED_CONVOLUTION
from licquant.models.trace import trace_model
from licquant.program.arithmetic import activation_range
from licquant.quant.calibrate import BINS, TensorStatistics, collect_statistics
from licquant.quant.gradients import DistanceAware, Estimator, straight_through
from licquant.quant.grids import ZeroPoints, zero_points_of
from licquant.quant.in_training.quantizers import QUANTIZERS, Quantizer, learn_grids
from licquant.quant.insert import QuantizerSettings, insert_quantizers
from licquant.quant.layers import QuantizedTensor
from licquant.quant.natural import settle, weights_and_biases
from licquant.quant.network import QuantizedModel, uniform_plan
from licquant.quant.ranges import free_scale, min_max, shared_zero_point_scale
from licquant.quant.rd import evaluate_quantized
from licquant.quant.synthetic import dead_leaves
from tests.models_for_tests import hand_made, small_hyperprior

ESTIMATORS = [straight_through, DistanceAware(2.0)]
CROP = 64


@pytest.fixture(scope="module")
def traced():
    return trace_model(hand_made())


@pytest.fixture(scope="module")
def statistics(traced):
    return collect_statistics(traced, dead_leaves(1, 64))


def quantized(traced, statistics, quantizer: Quantizer, bits: int = 6) -> QuantizedModel:
    settings = QuantizerSettings(per_channel=quantizer.per_channel, free_zero_points=quantizer.free_zero_points)
    return insert_quantizers(traced, uniform_plan(traced, bits, bits), statistics, settings)


def images() -> Tensor:
    return torch.from_numpy(dead_leaves(1, 64, seed=3)[0].transpose(2, 0, 1).copy()).float()[None] / 255


def moved(offsets: list[nn.Parameter], spread: float = 0.05) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for offset in offsets:
            offset.copy_(spread * torch.randn(offset.shape, generator=generator))


@pytest.mark.parametrize("name", QUANTIZERS)
@pytest.mark.parametrize("rounding", ESTIMATORS)
def test_everything_that_is_trained_has_a_gradient(traced, statistics, name: str, rounding: Estimator) -> None:
    model = quantized(traced, statistics, QUANTIZERS[name])
    grids = learn_grids(model, QUANTIZERS[name], rounding, statistics, CROP)
    weights, biases = weights_and_biases(model)
    loss = evaluate_quantized(model, images()).loss(0.01)
    offsets = [*grids, *weights, *biases]
    gradients = torch.autograd.grad(loss, offsets, allow_unused=True)
    assert all(g is not None and torch.isfinite(g).all() for g in gradients)
    assert sum(bool(g.any()) for g in gradients) >= 0.75 * len(offsets)  # zero points that clip nothing have none
    assert not any(offset.any() for offset in offsets)


@pytest.mark.parametrize("bits", [6, 8])
def test_latents_are_read_as_the_integers_that_they_are_after_training_too(bits: int) -> None:
    traced = trace_model(small_hyperprior())
    statistics = collect_statistics(traced, dead_leaves(1, 64))
    model = quantized(traced, statistics, QUANTIZERS["dpa"], bits)
    moved(learn_grids(model, QUANTIZERS["dpa"], DistanceAware(2.0), statistics, CROP))
    integers = torch.arange(-20.0, 21.0).expand(1, len(statistics["g_s.input"].low), 1, -1)
    read = model.part("g_s").tensors["g_s.input"]
    assert torch.equal(read.dequantize(read.quantize(integers)), integers)
    integers = integers.clone().requires_grad_()
    (slope,) = torch.autograd.grad(read.dequantize(read.quantize(integers)).sum(), integers)
    torch.testing.assert_close(slope, torch.full_like(slope, 1 / (math.tanh(1) * math.cosh(1) ** 2)))  # the estimator's


def test_training_starts_from_the_calibrated_model(traced, statistics) -> None:
    model = quantized(traced, statistics, QUANTIZERS["dpa"])
    with torch.no_grad():
        before = evaluate_quantized(model, images()).loss(0.01)
        learn_grids(model, QUANTIZERS["dpa"], straight_through, statistics, CROP)
        weights_and_biases(model)
        assert evaluate_quantized(model, images()).loss(0.01) == before


@pytest.mark.parametrize("name", ["dpa", "lsq", "pams"])
def test_settling_changes_nothing_but_the_form(traced, statistics, name: str) -> None:
    model = quantized(traced, statistics, QUANTIZERS[name])
    names = sorted(name for name, _ in model.named_parameters()), sorted(name for name, _ in model.named_buffers())
    offsets = learn_grids(model, QUANTIZERS[name], straight_through, statistics, CROP)
    for kind in weights_and_biases(model):
        offsets += kind
    moved(offsets)
    with torch.no_grad():
        before = evaluate_quantized(model, images()).loss(0.01)
        settle(model)
        assert evaluate_quantized(model, images()).loss(0.01) == before
    assert (sorted(n for n, _ in model.named_parameters()), sorted(n for n, _ in model.named_buffers())) == names


def test_zero_points_are_integers_within_the_range_and_stay_where_speed_asks_for_it(traced, statistics) -> None:
    model = quantized(traced, statistics, QUANTIZERS["dpa"])
    before = {tensor: tensor.zero_point.clone() for part in model.parts.values() for tensor in part.tensors.values()}
    moved(learn_grids(model, QUANTIZERS["dpa"], DistanceAware(2.0), statistics, CROP), spread=2.0)
    changed = dict.fromkeys(ZeroPoints, 0)
    for part in model.parts.values():
        for name, tensor in part.tensors.items():
            zero_point, kind = tensor.zero_point, zero_points_of(part.graph, name)
            assert torch.equal(zero_point, zero_point.round())
            assert activation_range(tensor.bits)[0] <= zero_point.min()
            assert zero_point.max() <= activation_range(tensor.bits)[1]
            if kind != ZeroPoints.FREE:
                assert len(zero_point.unique()) == 1
            if any(step.kind == TRANSPOSED_CONVOLUTION for step in part.graph.consumers(name)):
                assert kind == ZeroPoints.FIXED
            changed[kind] += not torch.equal(zero_point, before[tensor])
    assert changed[ZeroPoints.FIXED] == 0
    assert changed[ZeroPoints.SHARED] >= 3
    assert changed[ZeroPoints.FREE] >= 1


def test_lsq_has_one_step_a_tensor_and_scales_its_gradient(traced, statistics) -> None:
    def gradients(scaled: bool) -> list[Tensor]:
        model = quantized(traced, statistics, QUANTIZERS["lsq"])
        with pytest.MonkeyPatch.context() as patch:
            if not scaled:
                patch.setattr("licquant.quant.in_training.quantizers._with_gradient", lambda value, factor: value)
            offsets = learn_grids(model, QUANTIZERS["lsq"], straight_through, statistics, CROP)
            assert all(offset.shape == (1,) for offset in offsets)
            return list(torch.autograd.grad(evaluate_quantized(model, images()).loss(0.01), offsets))

    ratios = [float(a / b) for a, b in zip(gradients(True), gradients(False), strict=True) if b]
    # g_a.0 writes 8 channels at a quarter of the side, unsigned after its ReLU; its weights are 8·3·7·7, 6 bits signed.
    of_activations, of_weights = (
        1 / math.sqrt(8 * (CROP // 4) ** 2 * 63),
        1 / math.sqrt(8 * 3 * 7 * 7 * 31),
    )
    assert min(abs(ratio / of_activations - 1) for ratio in ratios) < 1e-3
    assert min(abs(ratio / of_weights - 1) for ratio in ratios) < 1e-3


def test_pams_trains_one_bound_a_tensor_and_no_unit(traced, statistics) -> None:
    model = quantized(traced, statistics, QUANTIZERS["pams"])
    offsets = learn_grids(model, QUANTIZERS["pams"], straight_through, statistics, CROP)
    bounds = [t for part in model.parts.values() for t in part.tensors.values() if t.bounds_only]
    assert len(offsets) == len(bounds) > 5
    for part in model.parts.values():
        for layer in part.layers.values():
            assert len(layer.unit.unique()) == 1
    moved(offsets, 0.1)
    # The weights' own grid stays: their unit follows the inputs' scale.
    part = model.part("g_a")
    step = next(s for s in part.graph if s.name == "g_a.3")
    layer, scale = part.layers["g_a.3"], part.weight_scale(step)
    assert torch.allclose(layer.unit / scale[0], layer.parametrizations.unit[0].start / scale[0] * (
        scale[0] / layer.parametrizations.unit[0].read_before.exp()
    ))  # fmt: skip


def histogram(low: list[float], high: list[float]) -> TensorStatistics:
    return TensorStatistics(torch.tensor(low), torch.tensor(high), torch.ones(len(low), BINS))


def test_free_zero_points_use_the_whole_range() -> None:
    """The second channel is what a leaky ReLU leaves: nearly nothing below 0."""
    found = histogram([-0.9, -0.02, -0.5], [1.0, 2.0, 0.0])
    scale, zero_point = free_scale(found, 8, min_max, per_channel=True)
    np.testing.assert_allclose(scale, [1.99 / 255, 2.022 / 255, 0.5 / 255], rtol=1e-5)
    assert zero_point.tolist() == [127, 3, 255]
    scale, zero_point = free_scale(found, 8, min_max, per_channel=False)
    np.testing.assert_allclose(scale, [2.99 / 255] * 3, rtol=1e-5)
    assert zero_point.tolist() == [84, 84, 84]


def test_a_shared_zero_point_serves_all_channels() -> None:
    """What leaky ReLUs leave, which differ in scale: no channel loses range to a zero point in mid-range."""
    low, high = torch.tensor([-0.02, -0.2, 0.0]), torch.tensor([2.0, 20.0, 5.0])
    scale, zero_point = shared_zero_point_scale(TensorStatistics(low, high, torch.ones(3, BINS)), 8, min_max, True)
    assert zero_point.tolist() == [3, 3, 3]
    np.testing.assert_allclose(scale, high / 252, rtol=1e-5)
    assert (-zero_point * scale <= low).all()
    balanced = histogram([-1.0, -3.0], [1.0, 3.0])
    scale, zero_point = shared_zero_point_scale(balanced, 8, min_max, True)
    assert set(zero_point.tolist()) <= {127, 128}
    np.testing.assert_allclose(scale, [1 / 127, 3 / 127], rtol=1e-5)


def test_a_grid_without_negative_values_starts_at_zero() -> None:
    scale, zero_point = free_scale(histogram([0.0, 0.5], [5.1, 2.55]), 8, min_max, per_channel=True)
    assert zero_point.tolist() == [0, 0]
    np.testing.assert_allclose(scale, [0.02, 0.01], rtol=1e-5)


def test_what_is_given_by_its_surroundings_is_not_trained(traced, statistics) -> None:
    model = quantized(traced, statistics, QUANTIZERS["dpa"])
    learn_grids(model, QUANTIZERS["dpa"], straight_through, statistics, CROP)
    for part in model.parts.values():
        for name in ("input", part.graph.output):
            assert type(part.tensors[name]) is QuantizedTensor
            assert not part.tensors[name].log_scale.requires_grad
