"""BOPs of a program: the same MACs as the traced model's, which are counted another way."""

import pytest

from licquant.codec.artifact import Artifact
from licquant.config import LayerBits, Plan
from licquant.evaluate.bops import bops_per_pixel, macs_per_pixel
from licquant.models.geometry import layer_geometry
from licquant.models.trace import trace_model
from tests.models_for_tests import hand_made, small_hyperprior


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
