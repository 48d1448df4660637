"""Results of codecs made for the purpose, whose rates and errors are known."""

import math
from pathlib import Path

import numpy as np
import pytest

from licquant.errors import DataError
from licquant.evaluate.codec_results import Curve, RatePoint, evaluate_codec
from licquant.images import write_image


class OneDarker:
    """Ten bytes for any image; every sample comes back darker by one."""

    def encode(self, rgb: np.ndarray) -> bytes:
        self.rgb = rgb
        return bytes(10)

    def decode(self, data: bytes) -> np.ndarray:
        assert len(data) == 10
        return self.rgb - np.uint8(1)


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    write_image(paths[0], np.full((4, 5, 3), 100, np.uint8))
    write_image(paths[1], np.full((8, 5, 3), 100, np.uint8))
    return paths


def test_evaluate_codec_measures_real_bytes(images: list[Path]) -> None:
    seen: list[str] = []
    first, second = evaluate_codec(OneDarker(), images, 0.01, on_result=lambda result: seen.append(result.name))
    assert seen == ["a.png", "b.png"]
    assert (first.width, first.height, first.bytes, first.bpp) == (5, 4, 10, 4)
    assert second.bpp == 2
    assert first.mse == pytest.approx(1 / 255**2)
    assert first.psnr == pytest.approx(48.1308036, abs=1e-6)
    assert first.rd_loss == pytest.approx(4 + 0.01)
    assert math.isnan(first.ms_ssim)
    assert first.encode_seconds >= 0
    assert first.decode_seconds >= 0


def test_only_counted_bytes_are_rate(images: list[Path]) -> None:
    results = evaluate_codec(OneDarker(), images, 0.01, counted_bytes=lambda data: len(data) - 5)
    assert [result.bpp for result in results] == [2, 1]


def test_a_point_averages_over_images(images: list[Path]) -> None:
    point = RatePoint("codec", 0.01, tuple(evaluate_codec(OneDarker(), images, 0.01)))
    assert point.bpp == 3  # not 160 bits / 60 pixels
    assert point.rd_loss == pytest.approx(3 + 0.01)
    assert point.mse == pytest.approx(1 / 255**2)
    assert math.isnan(point.ms_ssim)


def test_a_point_without_images_is_refused() -> None:
    with pytest.raises(DataError, match="no images were measured"):
        RatePoint("codec", 0.01, ())


def test_a_curve_finds_its_points(images: list[Path]) -> None:
    point = RatePoint("codec", 0.013, tuple(evaluate_codec(OneDarker(), images, 0.013)))
    curve = Curve("codec", (point,))
    assert curve.at(0.0130000001) is point
    assert curve.at(0.025) is None
    with pytest.raises(DataError, match="at least 4 points"):
        curve.bd_rate(curve)
