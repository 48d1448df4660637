"""Residual blocks as users build them, in places where CompressAI's models have none: simulation = program ≈ engine."""

from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from licquant.config import Plan
from licquant.lower import lower_model
from licquant.models.graph import ADDITION
from licquant.models.trace import TracedModel, trace_model
from licquant.program.exact import ExactEngine
from licquant.program.openvino_engine import OpenVinoEngine
from licquant.quant.calibrate import Statistics, collect_statistics
from licquant.quant.dataflow import sources
from licquant.quant.insert import insert_quantizers
from licquant.quant.network import uniform_plan
from licquant.quant.synthetic import dead_leaves
from tests.equivalence.test_families import (
    DEEP_SQNR_FLOOR,
    assert_close_losses,
    mixed,
    part_inputs,
    parts_as_simulated,
)
from tests.equivalence.test_openvino_engine import sqnr
from tests.models_for_tests import enlarge_latents, hand_made, small_model


class PreActivation(nn.Module):
    """x + conv(ReLU(x)), where the activation function reads the sum itself."""

    def __init__(self, n: int, kernel: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(n, n, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(torch.relu(x))


class Nested(nn.Module):
    """Three tensors added, one of them twice, one shuffled."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(n, n, 1), nn.Conv2d(n, n, 3, padding=1)
        self.down, self.up = nn.Conv2d(n, 4 * n, 2, stride=2), nn.PixelShuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        a = self.first(x)
        return x + (a + a) + self.second(a) + self.up(self.down(x))


def odd() -> nn.Module:
    """Residual blocks on the pixels, on the latent, at the end of both transforms and of h_s."""
    model = hand_made()
    torch.manual_seed(1)
    model.g_a = nn.Sequential(PreActivation(3), model.g_a[0], Nested(8), model.g_a[3], PreActivation(12))
    model.g_s = nn.Sequential(Nested(12), model.g_s[0], PreActivation(8), model.g_s[3], PreActivation(3))
    model.h_s = nn.Sequential(*list(model.h_s)[:2], PreActivation(8), model.h_s[2], nn.ReLU())
    enlarge_latents(model)
    return model.eval()


def odd_parameters() -> nn.Module:
    """A block on what entropy parameters read, whose grid is that of the parts that write it."""
    model = small_model("mbt2018")
    first = model.entropy_parameters[0]
    block = PreActivation(first.in_channels, 1)
    with torch.no_grad():  # what it adds goes further than what it adds to
        block.conv.weight.mul_(20)
    model.entropy_parameters = nn.Sequential(block, *model.entropy_parameters)
    return model.eval()


MODELS = {"transforms": (odd, 13), "entropy parameters": (odd_parameters, 1)}


@cache
def made(name: str) -> tuple[TracedModel, Statistics]:
    make, additions = MODELS[name]
    traced = trace_model(make())
    assert sum(step.kind == ADDITION for step in traced.layers) == additions
    return traced, collect_statistics(traced, dead_leaves(2, 128))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("plan", [lambda traced: uniform_plan(traced, 8, 8), lambda traced: mixed(traced, 0)])
def test_simulation_equals_the_program(name, plan):
    traced, statistics = made(name)
    chosen: Plan = plan(traced)
    assert len(list(parts_as_simulated(insert_quantizers(traced, chosen, statistics)))) == len(traced.graphs)


def test_the_fast_engine_agrees():
    traced, statistics = made("transforms")
    quantized = insert_quantizers(traced, uniform_plan(traced, 8, 8), statistics)
    inputs, program = part_inputs(quantized), lower_model(quantized)
    for name in ("g_a", "g_s"):
        exact = ExactEngine(program[name]).run(inputs[name])
        assert sqnr(exact, OpenVinoEngine(program[name], 1).run(inputs[name])) >= DEEP_SQNR_FLOOR, name


@pytest.mark.parametrize("name", MODELS)
def test_eight_bits_lose_little(name):
    assert_close_losses(*made(name), bits=8, share=0.02)


def test_entropy_parameters_read_what_other_parts_write():
    traced, statistics = made("entropy parameters")
    program = lower_model(insert_quantizers(traced, uniform_plan(traced, 8, 8), statistics))
    written = [program[name].output_grid for name in sources(traced.family, "entropy_parameters")]
    read = program["entropy_parameters"].input_grid
    np.testing.assert_array_equal(read.scale, np.concatenate([grid.scale for grid in written]))
    np.testing.assert_array_equal(read.zero_point, np.concatenate([grid.zero_point for grid in written]))
    assert {read.bits} == {grid.bits for grid in written}
