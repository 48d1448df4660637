"""BOPs of a program: the same MACs as the traced model's, which are counted another way."""

import pytest

from licquant.codec.artifact import Artifact
from licquant.config import LayerBits, Plan
from licquant.evaluate.bops import bops_per_pixel, macs_per_pixel
from licquant.lower import lower_model
from licquant.models.geometry import layer_geometry
from licquant.models.trace import trace_model
from licquant.quant.calibrate import collect_statistics
from licquant.quant.insert import insert_quantizers
from licquant.quant.network import uniform_plan
from licquant.quant.synthetic import dead_leaves
from tests.models_for_tests import hand_made, small_hyperprior, small_model


@pytest.mark.parametrize(("path", "make"), [("artifact_path", small_hyperprior), ("hand_made_path", hand_made)])
def test_program_and_traced_model_agree(path, make, request):
    artifact = Artifact.from_bytes(request.getfixturevalue(path).read_bytes())
    macs = macs_per_pixel(artifact.program)
    assert {layer.name: layer.macs for layer in layer_geometry(trace_model(make()))}.items() <= macs.items()
    assert sum(macs[name] for name in macs if name.endswith("input")) == 0


def test_bops_by_hand(artifact_path):
    program = Artifact.from_bytes(artifact_path.read_bytes()).program
    plan = Plan({"g_a.0": LayerBits(6, 8), "g_s.5": LayerBits(4, 10)})
    assert bops_per_pixel(program, plan) == 150 * 6 * 8 + 16 * 4 * 10


@pytest.mark.parametrize("name", ["mbt2018", "cheng2020-anchor-checkerboard", "elic2022-official"])
def test_a_mask_saves_what_it_hides(name):
    traced = trace_model(small_model(name))
    quantized = insert_quantizers(traced, uniform_plan(traced, 8, 8), collect_statistics(traced, dead_leaves(1, 64)))
    macs = macs_per_pixel(lower_model(quantized))
    assert {layer.name: layer.macs for layer in layer_geometry(traced)}.items() <= macs.items()
