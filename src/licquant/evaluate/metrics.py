"""One definition for each metric, on decoded uint8 images and real file sizes.

MSE    mean of ((a - b)/255)²                    on the [0, 1] scale
PSNR   -10·log10(MSE)                            dB
bpp    8 · file bytes / (width · height)         bits per pixel

The RD loss is in ``rd.py``.
"""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pytorch_msssim
import torch
from numpy.typing import NDArray

from licquant.errors import DataError
from licquant.images import RGB

# MS-SSIM filters with an 11-wide window at five scales, each half the size of the last: (11 - 1)·2⁴ pixels or
# fewer on a side leave the smallest scale without a single window.
MS_SSIM_SMALLEST_SIDE = 161

BDMethod = Literal["pchip", "akima", "cubic"]


def mse(a: RGB, b: RGB) -> float:
    """Mean squared error over all samples, on the [0, 1] scale: 0 (equal) to 1 (black against white)."""
    if a.shape != b.shape or a.dtype != np.uint8 or b.dtype != np.uint8:
        raise ValueError(f"two uint8 images of one shape are needed, not {a.dtype} {a.shape}, {b.dtype} {b.shape}")
    difference = a.astype(np.int32) - b
    return float(np.mean(np.square(difference), dtype=np.float64)) / 255**2


def psnr(a: RGB, b: RGB) -> float:
    """Peak signal-to-noise ratio in dB, over all samples of the three channels; infinite for equal images."""
    return psnr_of_mse(mse(a, b))


def psnr_of_mse(error: float) -> float:
    """PSNR in dB of a mean squared error on the [0, 1] scale; infinite for 0."""
    return math.inf if error == 0 else -10 * math.log10(error)


def ms_ssim(a: RGB, b: RGB) -> float:
    """Multi-scale structural similarity, mean of the R, G and B channels, 0 to 1 (equal).

    NaN where a side is shorter than ``MS_SSIM_SMALLEST_SIDE``: the metric has five scales, and such an image
    has no pixel left at the smallest. Dropping scales would be another metric under the same name.
    """
    if min(a.shape[:2]) < MS_SSIM_SMALLEST_SIDE:
        return math.nan
    images = (torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None] for image in (a, b))
    return float(pytorch_msssim.ms_ssim(*images, data_range=255))


def bpp(file_bytes: int, width: int, height: int) -> float:
    """Bits per pixel of a file, everything in it included."""
    return 8 * file_bytes / (width * height)


def bd_rate(
    rates_ref: Sequence[float],
    psnr_ref: Sequence[float],
    rates: Sequence[float],
    psnr: Sequence[float],
    method: BDMethod = "pchip",
) -> float:
    """Bjøntegaard's mean rate difference at equal quality, in percent: +10 means ten percent more bits.

    Log-rate over PSNR, integrated over the PSNR range that both curves cover. PCHIP is the headline, the
    cubic of the original proposal stands beside it. Raises ``DataError`` for fewer than four points, points
    that do not rise in both rate and PSNR, and curves without common PSNR range.
    """
    import bjontegaard  # only where curves are compared: training machines may lack it

    reference = _rising_curve(rates_ref, psnr_ref)
    tested = _rising_curve(rates, psnr)
    if max(reference[1, 0], tested[1, 0]) >= min(reference[1, -1], tested[1, -1]):
        raise DataError("BD-rate needs two curves that share a range of PSNR")
    return float(bjontegaard.bd_rate(*reference, *tested, method=method, require_matching_points=False, min_overlap=0))


def _rising_curve(rates: Sequence[float], quality: Sequence[float]) -> NDArray[np.float64]:
    """The points as 2×N (rate, quality), sorted by rate and found fit for interpolation."""
    if len(rates) != len(quality) or len(rates) < 4:
        raise DataError(f"BD-rate needs at least 4 points a curve, not {len(rates)} rates, {len(quality)} PSNR")
    curve = np.array([rates, quality], dtype=np.float64)
    curve = curve[:, np.argsort(curve[0])]
    if not np.isfinite(curve).all() or curve[0, 0] <= 0 or (np.diff(curve) <= 0).any():
        raise DataError("BD-rate needs finite points that rise in both rate and PSNR")
    return curve
