"""A picture and what it carries beside its colours, and the padding that a strided network needs."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from licquant.errors import ImageError

RGB = NDArray[np.uint8]
Plane = NDArray[np.uint8]

# As of a coded image. Readers make room for rows before they find that there are none.
MAX_SIDE, MAX_PIXELS = 1 << 20, 1 << 28


@dataclass(frozen=True, eq=False)
class Extras:
    """What a picture has beside its samples; every part may be absent.

    profile: an ICC profile for RGB
    exif:    a TIFF structure (what stands behind ``Exif\\0\\0`` in a JPEG), its orientation 1
    xmp:     UTF-8
    density: dots per inch, horizontally and vertically
    alpha:   uint8 H×W, 0 transparent, 255 opaque
    """

    profile: bytes = b""
    exif: bytes = b""
    xmp: bytes = b""
    density: tuple[float, float] | None = None
    alpha: Plane | None = None

    def names(self) -> dict[str, str]:
        """The parts that are there: field → what people call it."""
        called = {
            "profile": "colour profile",
            "exif": "EXIF",
            "xmp": "XMP",
            "density": "density",
            "alpha": "transparency",
        }
        parts = {name: getattr(self, name) for name in called}
        return {name: called[name] for name, part in parts.items() if part is not None and len(part)}


@dataclass(frozen=True, eq=False)
class Picture:
    """rgb: uint8 H×W×3;  notes: what of the file was left out or changed, a line each"""

    rgb: RGB
    extras: Extras = field(default_factory=Extras)
    notes: tuple[str, ...] = ()


def check_rgb(rgb: RGB) -> None:
    """Raise ``ImageError`` unless ``rgb`` is uint8, H×W×3, with at least one pixel."""
    wanted = "an image must be a uint8 array of shape (height, width, 3)"
    if not isinstance(rgb, np.ndarray):
        raise ImageError(f"{wanted}, not {type(rgb).__name__}")
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.size == 0:
        raise ImageError(f"{wanted}, not {rgb.dtype} {rgb.shape}")


def check_size(width: int, height: int) -> None:
    """Raise ``ImageError`` for a size that no coded image has."""
    if width < 1 or height < 1:
        raise ImageError(f"the image has no pixels: {width}×{height}")
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise ImageError(
            f"an image of {width}×{height} pixels: at most {MAX_SIDE} a side and {MAX_PIXELS} in all can be coded; "
            "cut it into tiles"
        )


def flattened(rgb: RGB, alpha: Plane, background: tuple[int, int, int]) -> RGB:
    """``rgb`` over a colour: (rgb·α + background·(255 - α)) / 255, rounded to the nearest; ``rgb`` is overwritten."""
    for first in range(0, len(rgb), ROWS):
        rows = slice(first, first + ROWS)
        a = alpha[rows, :, None].astype(np.uint16)
        mixed = rgb[rows] * a + np.array(background, np.uint16) * (255 - a)
        rgb[rows] = (mixed + 127) // 255
    return rgb


ROWS = 256  # of a large picture at a time: what is made on the way stays small


def turned(plane: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """H×W or H×W×C as it is to be seen, for EXIF's orientation of 1 to 8; contiguous."""
    if orientation >= 5:
        plane = plane.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        plane = plane[::-1]
    if orientation in (2, 3, 6, 7):
        plane = plane[:, ::-1]
    return np.ascontiguousarray(plane)


def pad_to_multiple(rgb: RGB, multiple: int) -> RGB:
    """``rgb`` extended at the bottom and the right to multiples of ``multiple`` by repeating the edge.

    H×W×3 → ⌈H/m⌉m × ⌈W/m⌉m × 3. The edge is repeated because a step to black would cost bits and ring into
    the image.
    """
    height, width = rgb.shape[:2]
    if not (height % multiple or width % multiple):
        return rgb
    return np.pad(rgb, ((0, -height % multiple), (0, -width % multiple), (0, 0)), mode="edge")


def crop(rgb: RGB, height: int, width: int) -> RGB:
    """The top left ``height``×``width`` of ``rgb``, contiguous: undoes ``pad_to_multiple``."""
    if not (1 <= height <= rgb.shape[0] and 1 <= width <= rgb.shape[1]):
        raise ValueError(f"cannot crop {rgb.shape[0]}x{rgb.shape[1]} to {height}x{width}")
    return np.ascontiguousarray(rgb[:height, :width])
