"""Widths that depend on the image: what most images have, how many differ, and what they average to."""

from pathlib import Path

import pytest

from licquant.codec.codec import Codec
from licquant.codec.files.contents import LayerContents, layer_contents
from licquant.errors import DataError
from licquant.evaluate import widths
from licquant.evaluate.widths import AverageBits
from licquant.images import read_image
from licquant.quant.synthetic import dead_leaves
from licquant.reports import dynaquant_pictures
from tests.dynamic_programs import dynamic_artifact

A, B = {"g_a.1": 6, "g_s.1": 8}, {"g_a.1": 6, "g_s.1": 4}


def layer(name: str, weight: int | None, activation: int | None, weights: int) -> LayerContents:
    return LayerContents(name, "g_a", "Conv", weight, activation, 100, weights, 20)


LAYERS = [layer("g_a.0", 8, 8, 100), layer("g_a.1", 10, 10, 300), layer("sum", None, 10, 0), layer("q", None, None, 0)]


def test_averages_by_parameters_and_by_layers() -> None:
    layers = [layer("a", 8, 8, 100), layer("b", 4, 6, 300), layer("c", None, 10, 0)]
    assert widths.average_bits(layers) == AverageBits(weight=5, weight_layer=6, activation=8)
    with pytest.raises(DataError, match="no quantized weights"):
        widths.average_bits(layers[2:])


def test_averages_are_of_what_was_chosen() -> None:
    """Of two images with 6 and 4 bits in one stage, whose weights are three quarters of all: not its 10 bits."""
    stages = {"g_a.1": "stage", "sum": "stage"}
    six, four = ({"stage": bits, "other": 8} for bits in (6, 4))
    assert widths.layers_at(LAYERS, stages, six) == [
        LAYERS[0], layer("g_a.1", 6, 6, 300), layer("sum", None, 6, 0), LAYERS[3]
    ]  # fmt: skip
    found = widths.average_bits_over(LAYERS, stages, [six, four])
    assert found.weight == pytest.approx((6.5 + 5) / 2)
    assert found.weight_layer == pytest.approx((7 + 6) / 2)
    assert found.activation == pytest.approx((20 / 3 + 16 / 3) / 2)
    assert widths.average_bits_over(LAYERS, {}, [{}, {}]) == widths.average_bits(LAYERS)


def test_the_majority_is_of_whole_plans() -> None:
    assert widths.majority([A, B, B]) == B
    assert widths.majority([A, B]) == A  # the first of equals
    assert widths.share_different([A, B, B, A, B]) == pytest.approx(0.4)
    assert widths.share_different([A, A]) == 0
    found = widths.summary([A, B, B])
    assert (found["majority"], found["share_different"]) == (B, pytest.approx(1 / 3))
    assert found["stage_bits"] == {"g_a.1": 6, "g_s.1": pytest.approx(16 / 3)}
    assert widths.sentence([A, B, B]) == "1 of 3 images (33 %) differ from what most have: g_a.1 6, g_s.1 4"


def test_a_codec_tells_both_sides(codec: Codec) -> None:
    rgb = dead_leaves(1, 96, seed=1)[0]
    artifact = dynamic_artifact()
    dynamic = Codec(artifact, bytes(8), threads=1)
    found = widths.chosen_widths(dynamic, rgb)
    assert list(found) == ["g_a.1", "g_a.2", "g_s.1", "g_s.2"]
    assert found == dynamic.analyse(rgb).widths | dynamic.synthesis_widths(dynamic.analyse(rgb).y)
    assert widths.chosen_widths(codec, rgb) == {}
    stages = widths.stage_of_layer(artifact)
    assert stages == {name: name for name in found}
    layers = layer_contents(artifact.to_bytes(), artifact)
    fixed = [layer.weight_bits for layer in layers if layer.weight_bits and layer.name not in stages]
    by_layers = sum([*fixed, *found.values()]) / (len(fixed) + len(found))
    assert widths.average_bits_over(layers, stages, [found]).weight_layer == pytest.approx(by_layers)


def test_the_picture(tmp_path: Path) -> None:
    images = {f"kodim{number:02}.png": A if number % 3 else B for number in range(12)}
    for name in ("a.png", "b.png"):
        dynaquant_pictures.chosen(tmp_path / name, images)
    assert min(read_image(tmp_path / "a.png").shape[:2]) > 300
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    dynaquant_pictures.chosen(tmp_path / "one.png", {"a.png": {"g_a.1": 8}})
    for wrong in ({}, {"a.png": {}}, {"a.png": A, "b.png": {"g_a.1": 6}}):
        with pytest.raises(DataError, match="no widths to draw"):
            dynaquant_pictures.chosen(tmp_path / "c.png", wrong)
    assert not (tmp_path / "c.png").exists()
