"""Curves with chosen averages, for reports and pictures."""

import math

from licquant.evaluate.codec_results import Curve, ImageResult, RatePoint
from licquant.evaluate.rd import rd_loss

POINTS = {0.0067: (0.4, 30.5), 0.013: (0.6, 32.3), 0.025: (0.9, 34.2), 0.0483: (1.2, 36.1)}  # λ: bpp, dB


def curve(label: str, more_bits: float = 0.0, count: int = 4, model_bytes: int = 20_000_000) -> Curve:
    """``count`` points that lie ``more_bits`` (0.1: ten percent) to the right of ``POINTS``."""
    points = []
    for lmbda, (rate, quality) in list(POINTS.items())[:count]:
        rate *= 1 + more_bits
        error = 10 ** (-quality / 10)
        loss = rd_loss(rate, error, lmbda)
        image = ImageResult("a.png", 100, 80, round(rate * 1000), rate, error, quality, math.nan, loss, 0.3, 0.2)
        points.append(RatePoint(label, lmbda, (image,), model_bytes))
    return Curve(label, tuple(points))
