"""Image files out, in lossless formats only: a decoded image must reach the disk as it is."""

import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from licquant.errors import ImageError, LicquantError
from licquant.images import metadata
from licquant.images.picture import RGB, Extras, check_rgb
from licquant.images.places import written_aside

WRITE_FORMATS = {".png": "PNG", ".ppm": "PPM", ".bmp": "BMP", ".tif": "TIFF", ".tiff": "TIFF"}
# Photographs take 1.3 % more bytes than at Pillow's 6, and a third of the time, which was more than decoding takes.
_PNG_LEVEL = 3
_EVERYTHING = {"profile", "exif", "xmp", "density", "alpha"}
_HOLDS = {"PNG": _EVERYTHING, "TIFF": _EVERYTHING, "BMP": {"density"}, "PPM": set()}


def write_image(path: str | Path, rgb: RGB, extras: Extras = Extras()) -> None:  # noqa: B008 (is frozen)
    """Write ``rgb`` (uint8 H×W×3) in the lossless format of the suffix: .png, .ppm, .bmp, .tif or .tiff.

    Of ``extras``, what the format has a place for (``left_out`` tells the rest).
    Raises ``ImageError`` for another suffix, another array, transparency that the format cannot hold, or a place that
    cannot be written; then nothing is left behind.
    """
    kind = check_suffix(path)
    check_rgb(rgb)
    left_out(kind, extras)
    try:
        with written_aside(path) as file:
            save(file, kind, rgb, extras)
    except LicquantError as error:
        raise ImageError(str(error)) from error
    except (
        SyntaxError,
        TypeError,
        AttributeError,
        struct.error,
    ) as error:  # Pillow, of metadata of nonsense
        raise ImageError(f"{path}: its metadata cannot be written: {error}") from error


def check_suffix(path: str | Path) -> str:
    """The format of ``write_image`` for a name; ``ImageError`` for one that it does not write."""
    kind = WRITE_FORMATS.get(Path(path).suffix.lower())
    if kind is None:
        raise ImageError(f"{path}: choose one of the suffixes {', '.join(WRITE_FORMATS)} to write an image")
    return kind


def left_out(kind: str, extras: Extras) -> list[str]:
    """What people call the parts that a format of ``WRITE_FORMATS`` has no place for.

    Raises ``ImageError`` for transparency: without it, the picture would look otherwise.
    """
    lost = [word for name, word in extras.names().items() if name not in _HOLDS[kind]]
    if extras.alpha is not None and "alpha" not in _HOLDS[kind]:
        raise ImageError(f"the image is transparent, {kind} files are not: write .png or .tif, or add --background")
    return lost


def save(file: BinaryIO, kind: str, rgb: RGB, extras: Extras = Extras()) -> None:  # noqa: B008 (is frozen)
    """Write the bytes of an image file of a format of ``WRITE_FORMATS``."""
    if kind == "PPM":  # without the copy that Pillow makes
        file.write(b"P6\n%d %d\n255\n" % (rgb.shape[1], rgb.shape[0]))
        file.write(np.ascontiguousarray(rgb).data)
        return
    pixels = np.ascontiguousarray(rgb) if extras.alpha is None else np.dstack([rgb, extras.alpha])
    Image.fromarray(pixels).save(file, format=kind, **_settings(kind, extras))


def _settings(kind: str, extras: Extras) -> dict[str, Any]:
    """What Pillow's writers call the parts."""
    found: dict[str, Any] = {}
    holds = _HOLDS[kind]
    if extras.density and "density" in holds:
        found["dpi"] = extras.density
    if extras.profile and "profile" in holds:
        found["icc_profile"] = extras.profile
    if kind == "TIFF" and (extras.exif or extras.xmp):
        found["exif"] = metadata.tiff_tags(extras.exif, extras.xmp)
    elif kind == "PNG":
        found["compress_level"] = _PNG_LEVEL
        found["exif"], found["pnginfo"] = extras.exif, PngInfo()
        if extras.xmp:
            found["pnginfo"].add_itxt("XML:com.adobe.xmp", extras.xmp.decode("utf-8", "replace"))
    return found
