"""The simulated integer network equals the program, exactly, for every part, width and kind of layer."""

import numpy as np
import pytest
import torch

from licquant.config import LayerBits, Plan
from licquant.lower import lower_model
from licquant.models.trace import trace_model
from licquant.program.exact import ExactEngine
from licquant.quant.calibrate import collect_statistics
from licquant.quant.insert import QuantizerSettings, insert_quantizers
from licquant.quant.network import QuantizedModel, layer_names, uniform_plan
from licquant.quant.ranges import RANGE_METHODS
from licquant.quant.rd import evaluate_float, evaluate_quantized
from licquant.quant.simulation import simulate_exactly
from licquant.quant.synthetic import dead_leaves
from tests.models_for_tests import first_kind, hand_made, small_hyperprior

MODELS = {"hyperprior": small_hyperprior, "hand-made": hand_made, "GDN of the first kind": first_kind}


@pytest.fixture(scope="module", params=MODELS)
def traced(request):
    return trace_model(MODELS[request.param]())


@pytest.fixture(scope="module")
def statistics(traced):
    return collect_statistics(traced, dead_leaves(2, 128))


def inputs(quantized: QuantizedModel, name: str) -> np.ndarray:
    rng = np.random.default_rng(1)
    part = quantized.part(name)
    channels = part.tensors["input"].grid.channels
    if name == "g_a":
        return rng.integers(0, 256, (channels, 64, 64))
    return rng.integers(-2000, 2001, (channels, 5, 6)) * (1 if name != "g_s" else 0) + rng.integers(
        -9, 10, (channels, 5, 6)
    )


@pytest.mark.parametrize("bits", [(2, 2), (4, 8), (8, 8), (8, 12), (12, 9)])
def test_simulation_equals_the_program(traced, statistics, bits):
    quantized = insert_quantizers(traced, uniform_plan(traced, *bits), statistics)
    program = lower_model(quantized)
    for name, part in program.items():
        q = inputs(quantized, name)
        simulated = simulate_exactly(quantized.part(name), torch.from_numpy(q)[None])[0].numpy()
        computed = ExactEngine(part).run(q) - part.output_grid.zero_point[:, None, None]
        np.testing.assert_array_equal(simulated, computed, err_msg=name)


def test_differentiable_simulation_stays_close(traced, statistics):
    quantized = insert_quantizers(traced, uniform_plan(traced, 8, 8), statistics)
    for name in quantized.parts:
        q = torch.from_numpy(inputs(quantized, name))[None]
        exact = simulate_exactly(quantized.part(name), q)
        with torch.no_grad():
            fast = quantized.part(name)(q.float())
        difference = (exact - fast).abs().float()
        assert difference.mean() <= 0.02 * exact.abs().float().mean() + 0.02, name


def test_mixed_plan(traced, statistics):
    rng = np.random.default_rng(0)
    uniform = uniform_plan(traced, 8, 8)
    plan = Plan(
        {
            n: LayerBits(None if uniform[n].weight is None else int(rng.integers(2, 13)), int(rng.integers(2, 13)))
            for n in layer_names(traced)
        }
    )
    quantized = insert_quantizers(traced, plan, statistics)
    for name, part in lower_model(quantized).items():
        q = inputs(quantized, name)
        simulated = simulate_exactly(quantized.part(name), torch.from_numpy(q)[None])[0].numpy()
        np.testing.assert_array_equal(simulated, ExactEngine(part).run(q) - part.output_grid.zero_point[:, None, None])


@pytest.mark.parametrize("method", RANGE_METHODS)
@pytest.mark.parametrize("per_channel", [True, False])
def test_wide_quantization_is_nearly_lossless(traced, statistics, method, per_channel):
    x = torch.from_numpy(dead_leaves(1, 128)[0].transpose(2, 0, 1).copy()).float()[None] / 255
    settings = QuantizerSettings(RANGE_METHODS[method], per_channel)
    quantized = insert_quantizers(traced, uniform_plan(traced, 14, 14), statistics, settings)
    with torch.no_grad():
        reference, found = evaluate_float(traced, x).loss(0.01), evaluate_quantized(quantized, x).loss(0.01)
    assert abs(found / reference - 1) < 0.01


def test_loss_falls_with_the_width(traced, statistics):
    x = torch.from_numpy(dead_leaves(1, 128)[0].transpose(2, 0, 1).copy()).float()[None] / 255
    with torch.no_grad():
        reference = evaluate_float(traced, x).loss(0.01)
        losses = [
            abs(
                evaluate_quantized(insert_quantizers(traced, uniform_plan(traced, b, b), statistics), x).loss(0.01)
                / reference
                - 1
            )
            for b in (2, 6, 12)
        ]
    assert losses[0] > losses[1] > losses[2]
