"""Trained grids reach the program: simulated = executed, exactly, wherever the scales and zero points have gone."""

import numpy as np
import pytest
import torch

from licquant.lower import lower_model
from licquant.models.trace import trace_model
from licquant.program.exact import ExactEngine
from licquant.program.openvino_engine import OpenVinoEngine
from licquant.quant.calibrate import collect_statistics
from licquant.quant.gradients import DistanceAware
from licquant.quant.in_training.quantizers import QUANTIZERS, learn_grids
from licquant.quant.insert import QuantizerSettings, insert_quantizers
from licquant.quant.natural import settle, weights_and_biases
from licquant.quant.network import QuantizedModel, uniform_plan
from licquant.quant.simulation import simulate_exactly
from licquant.quant.synthetic import dead_leaves
from tests.equivalence.kernels import not_in_int8
from tests.equivalence.test_openvino_engine import SQNR_FLOOR, sqnr
from tests.models_for_tests import hand_made, small_hyperprior, small_model

FAST_FLOOR = 20.0  # dB, at 7 bits; a lost zero point or scale gives less than 5

MODELS = {
    "hyperprior": small_hyperprior,
    "hand-made": hand_made,
    "pixel shuffles and attention": lambda: small_model("cheng2020-attn"),
}


@pytest.fixture(scope="module", params=MODELS)
def traced(request):
    return trace_model(MODELS[request.param]())


@pytest.fixture(scope="module")
def statistics(traced):
    return collect_statistics(traced, dead_leaves(2, 128))


def trained(traced, statistics, name: str, bits: int = 7, spread: float = 0.1) -> QuantizedModel:
    """A model whose offsets are anywhere, as after a training: weights by some steps, grids by 10 %."""
    quantizer = QUANTIZERS[name]
    settings = QuantizerSettings(per_channel=quantizer.per_channel, free_zero_points=quantizer.free_zero_points)
    model = insert_quantizers(traced, uniform_plan(traced, bits, bits), statistics, settings)
    grids = learn_grids(model, quantizer, DistanceAware(2.0), statistics, 64)
    weights, biases = weights_and_biases(model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for offsets, size in ((grids, spread), (weights, 10 * spread), (biases, spread)):
            for offset in offsets:
                offset.copy_(size * torch.randn(offset.shape, generator=generator))
    return model


def inputs(model: QuantizedModel, name: str) -> np.ndarray:
    """Stored integers of a part's input."""
    rng, grid = np.random.default_rng(1), model.part(name).tensors["input"].grid
    if grid.bits <= 16:
        return rng.integers(0, grid.range[1] + 1, (grid.channels, 64, 64) if name == "g_a" else (grid.channels, 5, 6))
    return np.floor(3 * rng.standard_normal((grid.channels, 5, 6)) / grid.scale[:, None, None] + 0.5).astype(int)


@pytest.mark.parametrize("name", ["dpa", "lsq", "pams"])
def test_what_is_trained_is_what_is_executed(traced, statistics, name: str) -> None:
    model = trained(traced, statistics, name)
    if name == "dpa":
        zero_points = [t.zero_point for part in model.parts.values() for t in part.tensors.values()]
        middle = [(z == 64) | (z == 0) | (z == 1 << 15) for z in zero_points]
        assert sum(not m.all() for m in middle) >= 3, "no zero point is anywhere else than in the middle"
    before = {part: simulate_exactly(model.part(part), _centred(model, part)) for part in model.parts}
    with torch.no_grad():
        fast = {part: model.part(part)(_centred(model, part).float()) for part in model.parts}
    settle(model)
    for part, lowered in lower_model(model).items():
        q = inputs(model, part)
        computed = ExactEngine(lowered).run(q) - lowered.output_grid.zero_point[:, None, None]
        np.testing.assert_array_equal(before[part][0].numpy(), computed, err_msg=part)
        # A sum beside a boundary may fall the other way in float32: a whole step, and deep networks have many.
        assert sqnr(computed, fast[part][0].numpy()) >= FAST_FLOOR, part


def _centred(model: QuantizedModel, part: str) -> torch.Tensor:
    zero_point = model.part(part).tensors["input"].grid.zero_point
    return torch.from_numpy(inputs(model, part) - zero_point[:, None, None])[None]


def test_free_zero_points_keep_the_fast_engine_close(traced, statistics) -> None:
    model = trained(traced, statistics, "dpa", 8, spread=0.02)
    settle(model)
    parts = lower_model(model)
    for name in ("g_a", "h_a", "g_s"):
        q = inputs(model, name)
        assert sqnr(ExactEngine(parts[name]).run(q), OpenVinoEngine(parts[name], 1).run(q)) >= SQNR_FLOOR, name


def test_free_zero_points_keep_int8_kernels() -> None:
    """With zero points anywhere but where a transposed convolution reads."""
    traced = trace_model(small_hyperprior(32, 48))
    statistics = collect_statistics(traced, dead_leaves(1, 64))
    model = trained(traced, statistics, "dpa", 8, spread=0.05)
    settle(model)
    for name in ("g_a", "g_s", "h_a"):
        assert not not_in_int8(lower_model(model)[name])
