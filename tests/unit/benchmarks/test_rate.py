"""The price of the integer exact zone: next to nothing against the model's own parameters, much against others."""

import pytest
import torch
from torch import nn

from benchmarks.rate import price, summarize
from licquant import pipeline
from licquant.codec.codec import Codec
from licquant.models.trace import trace_model
from licquant.quant.synthetic import dead_leaves
from tests.models_for_tests import small_model

NAMES = ["bmshj2018-hyperprior", "mbt2018", "cheng2020-anchor-checkerboard", "elic2022-official"]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_models_own_parameters_cost_little_and_others_much(name):
    model, images = small_model(name), dead_leaves(2, 128)
    codec = Codec(pipeline.quantize(model, images).artifact, bytes(8), "exact")

    def excess(fp32: nn.Module) -> float:
        """Of y drawn as the float networks predict."""
        return summarize({"x": price(codec, trace_model(fp32), images[0])})["exact_zone_drawn"]

    assert -0.001 < excess(model) < 0.003
    other = small_model(name)
    with torch.no_grad():
        for part, layer in other.named_modules():
            if isinstance(layer, nn.Conv2d) and ("h_s" in part or "entropy_parameters" in part):
                layer.bias.mul_(1.3)
    assert excess(other) > 0.01


def test_a_family_without_parameters_has_tables_only():
    model, images = small_model("bmshj2018-factorized"), dead_leaves(1, 128)
    codec = Codec(pipeline.quantize(model, images).artifact, bytes(8), "exact")
    row = price(codec, trace_model(model), images[0])
    assert abs(row["table_bits"] / row["fp32_bits"] - 1) < 0.003
