"""The pictures of table 1 and of figures 4 and 5: what is drawn; how it looks is for eyes."""

from pathlib import Path

import numpy as np
import pytest

from licquant.errors import DataError
from licquant.evaluate.codec_results import Curve, ImageResult, RatePoint
from licquant.images import read_image
from licquant.reports.dynaquant_pictures import bd_rates, details, rd_panels

OURS = {"mbt2018": {"FPQ": 1.7, "RAQ": 28.0}, "cheng2020-anchor": {"FPQ": 0.9}}
PUBLISHED = {"mbt2018": {"FPQ": 3.54}}


def curve(label: str, loss: float = 0.0) -> Curve:
    def point(index: int) -> RatePoint:
        bpp, psnr = 0.2 * (index + 1) + loss, 30.0 + 2 * index
        image = ImageResult("a", 8, 8, 10, bpp, 0.001, psnr, 0.9, 1.0, 0.1, 0.1)
        return RatePoint(label, 0.01 * 2**index, (image,))

    return Curve(label, tuple(point(index) for index in range(4)))


def test_each_is_drawn_alike_every_time(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        bd_rates(folder / "rates.png", OURS, PUBLISHED)
        rd_panels(folder / "curves.png", dict.fromkeys(OURS, (curve("FP32"), [curve("8 bits", 0.01)])))
        details(folder / "details.png", noise, {"mbt2018": [("FP32\n1 bpp", noise), ("8 bits\n1 bpp", noise)]})
    drawn = sorted((tmp_path / "a").iterdir())
    assert [path.name for path in drawn] == ["curves.png", "details.png", "rates.png"]
    for path in drawn:
        assert min(read_image(path).shape[:2]) > 150
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_there_must_be_something_to_draw(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no BD-rates"):
        bd_rates(tmp_path / "a.png", {"mbt2018": {}}, PUBLISHED)
    with pytest.raises(DataError, match="no curves"):
        rd_panels(tmp_path / "a.png", {})
    with pytest.raises(DataError, match="no pictures"):
        details(tmp_path / "a.png", np.zeros((8, 8, 3), np.uint8), {"mbt2018": []})
    assert list(tmp_path.iterdir()) == []
