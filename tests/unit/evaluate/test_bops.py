"""BOPs of a program: the same MACs as the traced model's, which are counted another way."""

import json

import numpy as np
import pytest

from licquant.allocate.costs import bops_cost
from licquant.codec.files.artifact import Artifact
from licquant.commands.app import main
from licquant.config import LayerBits, Plan
from licquant.evaluate.bops import bops_per_pixel, macs_per_pixel
from licquant.images import write_image
from licquant.lower import lower_model
from licquant.models.geometry import layer_geometry
from licquant.models.trace import trace_model
from licquant.quant.calibrate import collect_statistics
from licquant.quant.insert import insert_quantizers
from licquant.quant.network import uniform_plan
from licquant.quant.synthetic import dead_leaves
from tests.dynamic_programs import dynamic_artifact
from tests.models_for_tests import hand_made, small_hyperprior, small_model


@pytest.mark.parametrize(("path", "make"), [("artifact_path", small_hyperprior), ("hand_made_path", hand_made)])
def test_program_and_traced_model_agree(path, make, request):
    artifact = Artifact.from_bytes(request.getfixturevalue(path).read_bytes())
    macs = macs_per_pixel(artifact.program)
    traced = {layer.name: layer.macs for layer in layer_geometry(trace_model(make()))}
    assert {name: macs[name] for name in traced if not name.startswith("h_a")}.items() <= traced.items()
    # Random weights of h_a are small: many round to 0, and what nothing reads then is not computed.
    inner = [name for name in traced if name.startswith("h_a")]
    assert all(0 < macs[name] <= traced[name] for name in inner if traced[name])
    assert sum(macs[name] for name in inner) < sum(traced[name] for name in inner)
    assert sum(macs[name] for name in macs if name.endswith("input")) == 0


def test_bops_by_hand(artifact_path):
    program = Artifact.from_bytes(artifact_path.read_bytes()).program
    plan = Plan({"g_a.0": LayerBits(6, 8), "g_s.5": LayerBits(4, 10)})
    assert bops_per_pixel(macs_per_pixel(program), plan) == 150 * 6 * 8 + 16 * 4 * 10


@pytest.mark.parametrize("name", ["mbt2018", "cheng2020-anchor-checkerboard", "elic2022-official"])
def test_a_mask_saves_what_it_hides(name):
    traced = trace_model(small_model(name))
    quantized = insert_quantizers(traced, uniform_plan(traced, 8, 8), collect_statistics(traced, dead_leaves(1, 64)))
    macs = macs_per_pixel(lower_model(quantized))
    assert {layer.name: layer.macs for layer in layer_geometry(traced)}.items() <= macs.items()


def told(capsys: pytest.CaptureFixture[str], *words: object) -> dict:
    with pytest.raises(SystemExit) as stop:
        main(["inspect", *map(str, words), "--json"])
    assert not stop.value.code
    return json.loads(capsys.readouterr().out)


def test_inspect_reports_them(artifact_path, tmp_path, capsys):
    traced = trace_model(small_hyperprior())
    record = told(capsys, artifact_path)
    program, plan = Artifact.from_bytes(artifact_path.read_bytes()).program, uniform_plan(traced, 8, 8)
    assert record["bops_per_pixel"] == pytest.approx(bops_per_pixel(macs_per_pixel(program), plan))
    assert record["bops_per_pixel"] <= bops_cost(traced).total(plan)
    macs = {layer["name"]: layer["macs_per_pixel"] for layer in record["layers"]}
    assert macs["g_a.0"] == 150

    artifact = dynamic_artifact()
    artifact.save(tmp_path / "d.licq")
    images = [image // shade for image in dead_leaves(3, 96, seed=1) for shade in (1, 8)]
    names = [f"{number}.png" for number in range(len(images))]
    for name, image in zip(names, images, strict=True):
        write_image(tmp_path / name, np.ascontiguousarray(image))
    widest = told(capsys, tmp_path / "d.licq")["bops_per_pixel"]
    each = [told(capsys, tmp_path / "d.licq", "--images", tmp_path / name)["bops_per_pixel"] for name in names]
    of_all = told(capsys, tmp_path / "d.licq", "--images", *(tmp_path / name for name in names))["bops_per_pixel"]
    assert min(each) < max(each) <= widest
    assert of_all == pytest.approx(sum(each) / len(each))
