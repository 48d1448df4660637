"""What a codec does to images, measured on the bytes it really writes.

A ``RatePoint`` is one codec at one λ over a set of images, a ``Curve`` one codec over several λ. Averages are
always over images of per-image values, so that a small image counts as much as a large one.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Protocol

from licquant.config import check_lmbda
from licquant.errors import DataError
from licquant.evaluate import metrics
from licquant.evaluate.rd import MSE, rd_loss
from licquant.evaluate.widths import AverageBits
from licquant.images import RGB, read_image

# Called with an image, its coded file and what that decodes to (uint8 H×W×3), once they are measured.
OnCoded = Callable[[RGB, bytes, RGB], object]


class Codec(Protocol):
    """Anything that turns an image (uint8 H×W×3) into bytes and back."""

    def encode(self, rgb: RGB, /) -> bytes:
        """An image, uint8 H×W×3, to the bytes of its file."""

    def decode(self, data: bytes, /) -> RGB:
        """The bytes back to an image of the same size."""


@dataclass(frozen=True)
class ImageResult:
    """One image through one codec. Rates count ``bytes``; seconds are array to bytes, and bytes to array.

    ``widths``: stage → bits, where they depend on the image.
    """

    name: str
    width: int
    height: int
    bytes: int
    bpp: float
    mse: float  # on the [0, 1] scale
    psnr: float  # dB, infinite for a lossless result
    ms_ssim: float  # NaN for images too small for it
    rd_loss: float
    encode_seconds: float
    decode_seconds: float
    widths: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class RatePoint:
    """One codec at one λ: per-image results, at least one, and their averages.

    ``model_bytes`` is the size of the artifact file; for an FP32 reference, 4 bytes a parameter.
    ``bits`` and ``bops``, bit operations per pixel, are those of a quantized model; where they depend on the image,
    averages over these images.
    """

    label: str
    lmbda: float
    images: tuple[ImageResult, ...]
    model_bytes: int | None = None
    bits: AverageBits | None = None
    bops: float | None = None

    def __post_init__(self) -> None:
        if not self.images:
            raise DataError(f"{self.label}: no images were measured")

    @property
    def choices(self) -> list[Mapping[str, int]]:
        """The widths of every image; empty where they do not depend on it."""
        return [image.widths for image in self.images if image.widths]

    @property
    def bpp(self) -> float:
        """Bits of the file a pixel."""
        return fmean(image.bpp for image in self.images)

    @property
    def mse(self) -> float:
        """Mean squared error on the [0, 1] scale."""
        return fmean(image.mse for image in self.images)

    @property
    def psnr(self) -> float:
        """dB: the average of the images' PSNR, not that of their average error."""
        return fmean(image.psnr for image in self.images)

    @property
    def ms_ssim(self) -> float:
        """Average over the images that are large enough for it; NaN if none is."""
        values = [image.ms_ssim for image in self.images if not math.isnan(image.ms_ssim)]
        return fmean(values) if values else math.nan

    @property
    def rd_loss(self) -> float:
        """J = R + λ·w·D of ``rd.py``, R the bits of the file a pixel."""
        return fmean(image.rd_loss for image in self.images)

    @property
    def encode_seconds(self) -> float:
        """From an array to bytes."""
        return fmean(image.encode_seconds for image in self.images)

    @property
    def decode_seconds(self) -> float:
        """From bytes to an array."""
        return fmean(image.decode_seconds for image in self.images)


@dataclass(frozen=True)
class Curve:
    """One codec over several λ.

    ``method``: what curves of one method at several budgets have in common, if there is such a thing; pictures
    of loss against bytes join their points.
    """

    label: str
    points: tuple[RatePoint, ...]
    method: str | None = None

    def at(self, lmbda: float) -> RatePoint | None:
        """The point of this λ, or None."""
        return next((point for point in self.points if math.isclose(point.lmbda, lmbda, rel_tol=1e-6)), None)

    def bd_rate(self, reference: "Curve", method: metrics.BDMethod = "pchip") -> float:
        """BD-rate of this curve against ``reference``, in percent; errors as ``metrics.bd_rate``."""
        return metrics.bd_rate(
            [point.bpp for point in reference.points],
            [point.psnr for point in reference.points],
            [point.bpp for point in self.points],
            [point.psnr for point in self.points],
            method,
        )


def evaluate_codec(
    codec: Codec,
    image_paths: Iterable[Path],
    lmbda: float,
    *,
    metric: str = MSE,
    counted_bytes: Callable[[bytes], int] = len,
    on_result: Callable[[ImageResult], object] | None = None,
    on_coded: OnCoded | None = None,
) -> list[ImageResult]:
    """Encode and decode each image and measure the result, in the order of ``image_paths``.

    ``metric`` is the RD loss's, which is NaN where an image is too small for MS-SSIM. ``counted_bytes`` says how many
    of a coded image's bytes count as rate: all of them, unless the container is not the codec's own. ``on_result`` is
    called after each image (progress), ``on_coded`` with what came of it.
    """
    check_lmbda(lmbda)
    results = []
    for path in image_paths:
        result = _evaluate_image(codec, Path(path), lmbda, metric, counted_bytes, on_coded)
        results.append(result)
        if on_result is not None:
            on_result(result)
    return results


def _evaluate_image(
    codec: Codec,
    path: Path,
    lmbda: float,
    metric: str,
    counted_bytes: Callable[[bytes], int],
    on_coded: OnCoded | None,
) -> ImageResult:
    rgb = read_image(path)
    height, width = rgb.shape[:2]
    start = time.perf_counter()
    data = codec.encode(rgb)
    encoded = time.perf_counter()
    decoded_rgb = codec.decode(data)
    decoded = time.perf_counter()

    if on_coded is not None:
        on_coded(rgb, data, decoded_rgb)
    size = counted_bytes(data)
    rate = metrics.bpp(size, width, height)
    error, similarity = metrics.mse(rgb, decoded_rgb), metrics.ms_ssim(rgb, decoded_rgb)
    return ImageResult(
        name=path.name,
        width=width,
        height=height,
        bytes=size,
        bpp=rate,
        mse=error,
        psnr=metrics.psnr_of_mse(error),
        ms_ssim=similarity,
        rd_loss=rd_loss(rate, error if metric == MSE else 1 - similarity, lmbda, metric),
        encode_seconds=encoded - start,
        decode_seconds=decoded - encoded,
    )
