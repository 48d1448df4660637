"""Widths from one end to the other lower: coarse weights before fine outputs, and the error where that cannot work."""

import numpy as np
import pytest
import torch

from licquant.errors import LoweringError
from licquant.lower import lower_model
from licquant.models.trace import trace_model
from licquant.program.exact import ExactEngine
from licquant.quant.calibrate import collect_statistics
from licquant.quant.constants import LARGEST_RATIO, layer_rescaling
from licquant.quant.insert import insert_quantizers
from licquant.quant.network import QuantizedPart, uniform_plan
from licquant.quant.simulation import simulate_exactly
from licquant.quant.synthetic import dead_leaves
from tests.models_for_tests import small_model


@pytest.fixture(scope="module", params=["bmshj2018-hyperprior", "cheng2020-attn"])
def coarse(request):
    """2-bit weights before 16-bit activations, where some units exceed their outputs' steps by 2^15 and more."""
    traced = trace_model(small_model(request.param))
    return insert_quantizers(traced, uniform_plan(traced, 2, 16), collect_statistics(traced, dead_leaves(2, 64)))


def ratios(part: QuantizedPart) -> np.ndarray:
    steps = [step for step in part.graph if step.has_weights and step.kind != "gdn"]
    found = [part.layers[s.name].unit.double().numpy() / part.tensors[s.name].grid.scale for s in steps]
    return np.concatenate(found)


def test_coarse_weights_lower_to_what_is_simulated(coarse):
    assert max(ratios(coarse.part(name)).max() for name in coarse.parts) > LARGEST_RATIO, "proves nothing"
    program, rng = lower_model(coarse), np.random.default_rng(0)
    for name, part in program.items():
        high = 256 if part.input_grid.bits <= 8 else 2000
        q = rng.integers(0, high, (part.input_grid.channels, 16, 16))
        centred = torch.from_numpy(q - part.input_grid.zero_point[:, None, None])[None]
        simulated = simulate_exactly(coarse.part(name), centred)[0].numpy()
        computed = ExactEngine(part).run(q) - part.output_grid.zero_point[:, None, None]
        np.testing.assert_array_equal(simulated, computed, err_msg=name)


def test_the_error_names_the_layer(coarse):
    part = coarse.part("h_a")
    step = part.graph.steps[-1]
    assert part.tensors[step.name].bits == 32, "z is fixed point"
    layer = part.layers[step.name]
    unit = layer.unit.clone()
    layer.unit.fill_(1e6)
    with pytest.raises(LoweringError, match=rf"^{step.name}: .*more bits"):
        layer_rescaling(part, step)
    layer.unit.copy_(unit)
