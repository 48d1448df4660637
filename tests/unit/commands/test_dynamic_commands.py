"""What encode, decode, inspect, evaluate and reproduce say of widths that depend on the image."""

import json
from dataclasses import replace

import numpy as np
import pytest

from licquant.codec.codec import load
from licquant.codec.files.artifact import Artifact
from licquant.codec.files.contents import layer_contents
from licquant.commands.app import main
from licquant.evaluate import widths
from licquant.images import read_image, write_image
from licquant.quant.synthetic import dead_leaves
from tests.dynamic_programs import WIDTHS, dynamic_artifact


def said(capsys, *words: object) -> str:
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    assert stop.value.code == 0
    return capsys.readouterr().out


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("dynamic")
    replace(dynamic_artifact(), provenance={"lmbda": 0.01}).save(path / "model.licq")
    write_image(path / "in.png", dead_leaves(1, 96, seed=1)[0])
    (path / "images").mkdir()
    for seed in range(4):
        write_image(path / "images" / f"{seed}.png", dead_leaves(1, 96, seed=seed)[0] // (1 if seed else 8))
    return path


@pytest.fixture(scope="module")
def chosen(folder):
    """Image → its widths, as the codec tells them."""
    codec = load(folder / "model.licq", threads=1)
    return {path.name: widths.chosen_widths(codec, read_image(path)) for path in sorted((folder / "images").iterdir())}


@pytest.fixture(scope="module")
def bits(chosen):
    """By weights, over the images; the artifact's own plan has 8 bits everywhere."""
    artifact = dynamic_artifact()
    layers = {layer.name: layer for layer in layer_contents(artifact.to_bytes(), artifact) if layer.weight_bits}
    counts = {name: layer.weights for name, layer in layers.items()}
    averages = [
        np.average([of_image.get(name, 8) for name in counts], weights=list(counts.values()))
        for of_image in chosen.values()
    ]
    return float(np.mean(averages))


def fails(capsys, *words: object) -> str:
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    assert stop.value.code == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_widths_are_reported(capsys, folder):
    codec = load(folder / "model.licq", threads=1)
    rgb = dead_leaves(1, 96, seed=1)[0]
    of_model = ("-m", folder / "model.licq")
    encoded = json.loads(said(capsys, "encode", folder / "in.png", *of_model, "-o", folder / "x.lic", "--json"))
    assert encoded["widths"] == codec.analyse(rgb).widths != {}
    decoded = json.loads(said(capsys, "decode", folder / "x.lic", *of_model, "-o", folder / "x.png", "--json"))
    assert decoded["widths"] == codec.synthesis_widths(codec.analyse(rgb).y) != {}
    assert json.loads(said(capsys, "inspect", folder / "x.lic", *of_model, "--json"))["widths"] == decoded["widths"]
    assert json.loads(said(capsys, "inspect", folder / "x.lic", "--json"))["widths"] == {}
    shown = said(capsys, "inspect", folder / "x.lic", *of_model)
    assert all(f"{stage} {bits}" in shown for stage, bits in decoded["widths"].items())


def test_candidates_and_the_selector_are_shown(capsys, folder):
    record = json.loads(said(capsys, "inspect", folder / "model.licq", "--json"))
    analysis, synthesis = record["selectors"]
    assert (analysis["part"], synthesis["part"]) == ("g_a", "g_s")
    assert analysis["stages"] == {"g_a.1": list(WIDTHS), "g_a.2": list(WIDTHS)}
    assert analysis["selector_weights"] == 5 * 25 * 3 + 3 * 2 * len(WIDTHS)
    assert 0 < analysis["selector_bytes"] < 2000
    assert sum(layer["bytes"] for layer in record["layers"]) + 2000 < record["bytes"]
    shown = said(capsys, "inspect", folder / "model.licq")
    assert "bits chosen for each image: g_a.1 4/6/8, g_a.2 4/6/8" in " ".join(shown.split())


def test_static_models_have_none(capsys, folder, artifact_path):
    assert json.loads(said(capsys, "inspect", artifact_path, "--json"))["selectors"] == []
    image = said(capsys, "encode", folder / "in.png", "-m", artifact_path, "-o", folder / "s.lic", "--json")
    assert json.loads(image)["widths"] == {}


def test_inspect_tells_the_widths_of_images(capsys, folder, chosen, bits):
    record = json.loads(said(capsys, "inspect", folder / "model.licq", "--images", folder / "images", "--json"))
    assert record["images"] == chosen
    assert record["choices"]["share_different"] == widths.share_different(list(chosen.values())) > 0
    assert record["average_bits"]["weight"] == pytest.approx(bits)
    layers = {layer["name"] for layer in record["layers"] if layer["candidates"] and layer["weight_bits"]}
    of_layers = [of[next(stage for stage in of if name.startswith(stage))] for of in chosen.values() for name in layers]
    assert record["average_bits_of_chosen"]["weight_layer"] == pytest.approx(sum(of_layers) / len(of_layers))
    assert bits < 7.9  # or the test could not tell it from the widest plan's
    assert {tuple(layer["candidates"]) for layer in record["layers"]} == {(), WIDTHS}
    assert f"{bits:.2f} by weights" in said(capsys, "inspect", folder / "model.licq", "--images", folder / "images")
    shown = said(capsys, "inspect", folder / "model.licq", "--images", folder / "images" / "1.png", folder / "in.png")
    assert "in.png" in shown
    assert "0.png" not in shown
    assert "4/6/8" in shown
    assert "of 2 images" in shown


def test_inspect_with_images_that_tell_nothing(capsys, folder, artifact_path):
    assert "do not depend" in fails(capsys, "inspect", artifact_path, "--images", folder / "images")
    assert "not a folder, an image or a list of images" in fails(
        capsys, "inspect", folder / "model.licq", "--images", folder / "missing.png"
    )
    said(capsys, "encode", folder / "in.png", "-m", folder / "model.licq", "-o", folder / "y.lic")
    assert "--images is for a model" in fails(capsys, "inspect", folder / "y.lic", "--images", folder / "in.png")


def test_evaluate_reports_the_bits_that_were_used(capsys, folder, chosen, bits, tmp_path):
    output = tmp_path / "r.json"
    shown = said(capsys, "evaluate", "--images", folder / "images", "--models", folder / "model.licq", "-o", output)
    record = json.loads(output.read_text())
    (point,) = record["curves"][0]["points"]
    assert {image["name"]: image["widths"] for image in point["images"]} == chosen
    assert point["bits"]["weight"] == pytest.approx(bits)
    assert record["comparisons"][0]["average_bits"]["weight"] == pytest.approx(bits)
    inspected = json.loads(said(capsys, "inspect", folder / "model.licq", "--images", folder / "images", "--json"))
    assert point["bops_per_pixel"] == pytest.approx(inspected["bops_per_pixel"])
    assert point["choices"] == widths.summary(list(chosen.values()))
    assert f"{bits:.2f}" in shown
    assert widths.sentence(list(chosen.values()))[:20] in shown
    assert min(read_image(tmp_path / "r-widths-licquant-0.01.png").shape[:2]) > 100


def test_evaluate_has_no_choices_for_static_models(capsys, folder, artifact_path, tmp_path):
    output = tmp_path / "r.json"
    said(capsys, "evaluate", "--images", folder / "images", "--models", artifact_path, "-o", output)
    (point,) = json.loads(output.read_text())["curves"][0]["points"]
    assert point["choices"] is None
    assert point["bits"]["weight"] == 8
    inspected = json.loads(said(capsys, "inspect", artifact_path, "--json"))
    assert point["bops_per_pixel"] == pytest.approx(inspected["bops_per_pixel"])
    assert point["bops_per_pixel"] > 0
    assert not list(tmp_path.glob("*-widths-*"))


def test_evaluate_draws_whatever_the_method_is_called(capsys, folder, artifact_path, tmp_path):
    artifact = Artifact.from_bytes(artifact_path.read_bytes())
    provenance = {**artifact.provenance, "method": "../up/" + "x" * 300}
    replace(artifact, provenance=provenance).save(tmp_path / "odd.licq")
    said(
        capsys, "evaluate", "--images", folder / "images", "--models", tmp_path / "odd.licq", "-o", tmp_path / "r.json"
    )
    (picture,) = tmp_path.glob("r-layers-*.png")
    assert picture.name.startswith("r-layers-..-up-xxx")


def test_reproduce_draws_figure_6(capsys, folder, chosen, artifact_path, tmp_path):
    images = ("--images", folder / "images", "-o", tmp_path)
    record = json.loads(said(capsys, "reproduce", "fig6", "--artifact", folder / "model.licq", *images, "--json"))
    assert record["images"] == chosen
    assert json.loads((tmp_path / "fig6.json").read_text())["choices"] == record["choices"]
    assert min(read_image(tmp_path / "fig6.png").shape[:2]) > 100
    assert "do not depend" in fails(capsys, "reproduce", "fig6", "--artifact", artifact_path, *images)
    assert "needs --checkpoint, --calib, --data" in fails(capsys, "reproduce", "fig6", *images)
    assert "--images" in fails(capsys, "reproduce", "fig6", "-o", tmp_path)
