"""What encode, decode and inspect say of widths that depend on the image."""

import json

import pytest

from licquant.cli import main
from licquant.codec.codec import load
from licquant.images import write_image
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
    dynamic_artifact().save(path / "model.licq")
    write_image(path / "in.png", dead_leaves(1, 96, seed=1)[0])
    return path


def test_widths_are_reported(capsys, folder):
    codec = load(folder / "model.licq", threads=1)
    rgb = dead_leaves(1, 96, seed=1)[0]
    of_model = ("-m", folder / "model.licq")
    encoded = json.loads(said(capsys, "encode", folder / "in.png", *of_model, "-o", folder / "x.lic", "--json"))
    assert encoded["widths"] == codec.analysis_widths(rgb) != {}
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
    assert analysis["widths"] == list(WIDTHS)
    assert analysis["stages"] == ["g_a.1", "g_a.2"]
    assert analysis["selector_weights"] == 5 * 25 * 3 + 3 * 2 * len(WIDTHS)
    assert 0 < analysis["selector_bytes"] < 2000
    assert sum(layer["bytes"] for layer in record["layers"]) + 2000 < record["bytes"]
    shown = said(capsys, "inspect", folder / "model.licq")
    assert "g_a.1, g_a.2 in 4, 6, 8 bits" in shown


def test_static_models_have_none(capsys, folder, artifact_path):
    assert json.loads(said(capsys, "inspect", artifact_path, "--json"))["selectors"] == []
    image = said(capsys, "encode", folder / "in.png", "-m", artifact_path, "-o", folder / "s.lic", "--json")
    assert json.loads(image)["widths"] == {}
