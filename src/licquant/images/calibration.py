"""The calibration images: some of those that are meant, read as far as they are needed.

Hundreds of photographs say what thousands do, and the middle of a large one what all of it does.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from licquant.errors import DataError, ImageError
from licquant.images.folders import evenly, find_images
from licquant.images.formats import open_image
from licquant.images.picture import RGB
from licquant.images.reading import read_image

LARGEST = 1024  # pixels a side of what is used of each
SMALLEST = 64
MOST = 2048  # files that are used
PIXELS = 256 * LARGEST**2  # of all files together, so 256 where they are large
_PROBED = 32  # files whose size says how large they are


@dataclass(frozen=True)
class Calibration:
    """images: uint8 H×W×3;  skipped: one line for each file that could not be used, its name in it"""

    images: list[RGB]
    skipped: list[str]


def calibration_files(source: Path) -> list[Path]:
    """The files that are used of those that ``find_images`` finds, evenly spaced among them: the same every time.

    As many as hold ``PIXELS`` together, by the size of some: hundreds of photographs, all of a few thousand small ones.
    """
    found = find_images(source)
    sizes = [pixels for path in evenly(found, _PROBED) if (pixels := _pixels_used(path))]
    count = PIXELS // int(median(sizes)) if sizes else MOST
    return list(evenly(found, min(count, MOST)))


def read_calibration(paths: Sequence[Path], strict: bool) -> Calibration:
    """The images of those files, cut to their middle; what cannot be read, is transparent or too small is skipped.

    Raises ``ImageError`` for the first such file if ``strict``, ``DataError`` if none is left.
    """
    images, skipped = [], []
    for path in paths:
        try:
            images.append(_middle(read_image(path), path))
        except ImageError as error:
            if strict:
                raise
            skipped.append(str(error))
    if not images:
        raise DataError(f"none of the {len(skipped)} calibration images can be used: {skipped[0]}")
    return Calibration(images, skipped)


def _pixels_used(path: Path) -> int:
    """How many of a file's pixels are used, by its header; 0 for one that reading will refuse or skip."""
    try:
        with path.open("rb") as file:
            return math.prod(min(side, LARGEST) for side in open_image(file).size)
    except Exception:  # of damaged files, any kind
        return 0


def _middle(rgb: RGB, path: Path) -> RGB:
    height, width = rgb.shape[:2]
    if min(height, width) < SMALLEST:
        raise ImageError(f"{path}: a calibration image of {width}×{height}: at least {SMALLEST}×{SMALLEST} are needed")
    top, left = max(height - LARGEST, 0) // 2, max(width - LARGEST, 0) // 2
    return np.ascontiguousarray(rgb[top : top + LARGEST, left : left + LARGEST])
