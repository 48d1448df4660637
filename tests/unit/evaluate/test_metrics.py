"""Metrics against values worked out by hand."""

import math

import numpy as np
import pytest

from licquant.errors import DataError
from licquant.evaluate import metrics
from licquant.evaluate.rd import rd_loss

BLACK = np.zeros((2, 3, 3), np.uint8)
WHITE = np.full((2, 3, 3), 255, np.uint8)

# Four points of a plausible codec: bits per pixel, dB.
RATES = [0.2, 0.4, 0.8, 1.6]
PSNR = [30.0, 32.5, 35.5, 39.0]


def test_mse_is_on_the_unit_scale() -> None:
    assert metrics.mse(BLACK, BLACK) == 0
    assert metrics.mse(BLACK, WHITE) == 1
    one_off = BLACK.copy()
    one_off[0, 0, 0] = 3  # one of 18 samples, by 3: 9/18/255²
    assert metrics.mse(BLACK, one_off) == pytest.approx(0.5 / 65025, rel=1e-12)
    assert metrics.mse(one_off, BLACK) == metrics.mse(BLACK, one_off)


def test_psnr() -> None:
    assert metrics.psnr(BLACK, WHITE) == 0
    assert metrics.psnr(WHITE, WHITE) == math.inf
    assert metrics.psnr(BLACK, BLACK + 1) == pytest.approx(48.1308036, abs=1e-6)  # 20·log10(255)


@pytest.mark.parametrize("other", [np.zeros((2, 2, 3), np.uint8), np.zeros((2, 3, 3), np.float32)])
def test_mse_wants_two_uint8_images_of_one_shape(other: np.ndarray) -> None:
    with pytest.raises(ValueError, match="uint8 images of one shape"):
        metrics.mse(BLACK, other)


def test_ms_ssim() -> None:
    image = np.random.default_rng(0).integers(0, 256, (161, 170, 3), dtype=np.uint8)
    assert metrics.ms_ssim(image, image) == pytest.approx(1, abs=1e-6)
    assert metrics.ms_ssim(image, 255 - image) < 0.1
    assert math.isnan(metrics.ms_ssim(image[:160], image[:160]))


def test_bpp_and_rd_loss() -> None:
    assert metrics.bpp(1000, 100, 40) == 2
    assert rd_loss(0.5, 1e-3, 0.013) == pytest.approx(0.5 + 0.845325)


@pytest.mark.parametrize("method", ["pchip", "akima", "cubic"])
def test_bd_rate_of_known_curves(method: metrics.BDMethod) -> None:
    assert metrics.bd_rate(RATES, PSNR, RATES, PSNR, method) == pytest.approx(0, abs=1e-9)
    more = [1.1 * rate for rate in RATES]
    assert metrics.bd_rate(RATES, PSNR, more, PSNR, method) == pytest.approx(10, abs=1e-9)
    assert metrics.bd_rate(more, PSNR, RATES, PSNR, method) == pytest.approx(-100 / 11, abs=1e-9)


def test_bd_rate_does_not_depend_on_the_order_of_points() -> None:
    assert metrics.bd_rate(RATES[::-1], PSNR[::-1], [*RATES[2:], *RATES[:2]], [*PSNR[2:], *PSNR[:2]]) == 0


@pytest.mark.parametrize(
    ("rates", "psnr"),
    [
        (RATES[:3], PSNR[:3]),  # too few
        (RATES, PSNR[:3]),  # not pairs
        ([0.2, 0.4, 0.4, 1.6], PSNR),  # two points of one rate
        (RATES, [30.0, 33.0, 32.0, 39.0]),  # more bits, less quality
        (RATES, [30.0, 33.0, 34.0, math.inf]),
        ([0.0, 0.4, 0.8, 1.6], PSNR),
        (RATES, [50.0, 51.0, 52.0, 53.0]),  # no common quality
    ],
)
def test_bd_rate_refuses_what_it_is_not_defined_for(rates: list[float], psnr: list[float]) -> None:
    with pytest.raises(DataError, match="BD-rate needs"):
        metrics.bd_rate(RATES, PSNR, rates, psnr)
