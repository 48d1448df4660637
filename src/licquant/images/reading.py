"""Image files in. Everywhere in licquant an image is ``rgb``: uint8, H×W×3, C-contiguous, H ≥ 1 and W ≥ 1.

A file that is not 8-bit RGB is converted where nothing visible is lost, and refused with the way out where something
would be, unless ``Reading`` says what to do:

    converted   greyscale, palette, 1-bit, CMYK, YCbCr, alpha that is opaque everywhere, EXIF orientation
    refused     real transparency, more than 8 bits per sample, floating point, several frames

Samples are those that are stored; what they mean is said by the colour profile, which ``read_picture`` hands on. CMYK
and grey have become RGB, so a profile for them has been applied.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageColor

from licquant.errors import ImageError
from licquant.images import colour, metadata, netpbm
from licquant.images.formats import READ_FORMATS, open_image, sample_bits
from licquant.images.picture import RGB, ROWS, Extras, Picture, Plane, check_size, flattened, turned

CONVERTIBLE_MODES = {"1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "LA", "PA", "RGBA", "La", "RGBa"}
_GREY_MODES = {"1", "L", "LA"}
_WIDE_MODES = {"I", "I;16", "I;16L", "I;16B", "I;16N"}


@dataclass(frozen=True)
class Reading:
    """What becomes of that which RGB of 8 bits has no place for.

    srgb:       colours are converted to sRGB, and the profile is not kept
    metadata:   EXIF, XMP and density are kept
    alpha:      transparency is kept; else it is refused
    background: what shows through instead of keeping it, (red, green, blue)
    reduce:     16 bits per sample become 8, by their upper byte; else they are refused
    frame:      which one of several, from 0; else several are refused
    """

    srgb: bool = False
    metadata: bool = False
    alpha: bool = True
    background: tuple[int, int, int] | None = None
    reduce: bool = False
    frame: int | None = None


PLAIN = Reading(alpha=False)


def read_image(path: str | Path | BinaryIO) -> RGB:
    """The image in a file as uint8 H×W×3.

    Raises ``ImageError`` for a file that is missing, damaged, truncated, not an image, too large to be coded
    (2^20 pixels a side, 2^28 in all), or of a kind that is refused (see the top of this file).
    Pillow's remarks on odd metadata, which is not used, are left to the caller's filters: filters are the whole
    process's, and changing them here would change them for other threads.
    """
    return read_picture(path, PLAIN).rgb


def read_picture(path: str | Path | BinaryIO, reading: Reading = Reading()) -> Picture:
    """The image in a file and what it has beside its samples; ``ImageError`` as ``read_image``.

    path: or an open file that can seek
    """
    name = getattr(path, "name", "the image") if hasattr(path, "read") else path
    try:
        with _opened(path) as file:
            header = netpbm.header_of(file)
            file.seek(0)
            picture = _netpbm(file, header, reading) if header and header.read_here else _other(file, header, reading)
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from error
    except FileNotFoundError as error:
        raise ImageError(f"{name}: there is no such file") from error
    except IsADirectoryError as error:
        raise ImageError(f"{name}: a folder, not an image file") from error
    except Image.UnidentifiedImageError as error:
        raise ImageError(f"{name}: not an image of a kind that is read: {', '.join(READ_FORMATS)}") from error
    except Exception as error:  # damaged files make Pillow raise OSError, SyntaxError, struct.error, ...
        raise ImageError(f"{name}: cannot be read: {_one_line(error)}") from error
    return picture


def displayed(picture: Picture, srgb: bool, background: tuple[int, int, int] | None) -> Picture:
    """The picture as it looks: converted to sRGB by its profile, flattened onto a background; as it is without either.

    Raises ``ImageError`` for a profile that cannot be used.
    """
    if srgb and picture.extras.profile:
        rgb = np.array(colour.to_srgb(Image.fromarray(picture.rgb), picture.extras.profile))
        picture = replace(picture, rgb=rgb, extras=replace(picture.extras, profile=b""))
    if background is not None and picture.extras.alpha is not None:
        rgb = flattened(picture.rgb.copy(), picture.extras.alpha, background)
        picture = replace(picture, rgb=rgb, extras=replace(picture.extras, alpha=None))
    return picture


def parse_colour(text: str) -> tuple[int, int, int]:
    """``white``, ``#ffcc00``, ``rgb(255,204,0)``, …; ``ImageError`` for another text."""
    try:
        return ImageColor.getrgb(text)[:3]
    except ValueError as error:
        raise ImageError(f"{text[:40]!r} is no colour: write for instance white or #ffcc00") from error


@contextmanager
def _opened(path: str | Path | BinaryIO) -> Iterator[BinaryIO]:
    if isinstance(path, str | Path):
        with open(path, "rb") as file:
            yield file
    else:
        yield path


def _netpbm(file: BinaryIO, header: netpbm.Header, reading: Reading) -> Picture:
    if header.maximum > 255 and not reading.reduce:
        raise _too_deep(16)
    found = netpbm.samples(file, header)
    if header.depth in (1, 2):
        rgb = np.repeat(found[:, :, :1], 3, axis=2)
    else:
        rgb = found if header.depth == 3 else np.ascontiguousarray(found[:, :, :3])
    alpha = np.ascontiguousarray(found[:, :, -1]) if header.depth in (2, 4) else None
    return _with_alpha(Picture(rgb), alpha, reading)


def _other(file: BinaryIO, header: netpbm.Header | None, reading: Reading) -> Picture:
    """A file that Pillow reads."""
    if header and header.maximum > 255 and not reading.reduce:
        raise _too_deep(16)
    return picture_of(_loaded(file, reading), reading)


def _loaded(file: BinaryIO, reading: Reading) -> Image.Image:
    image = open_image(file)
    _refuse_what_would_lose(image, file, reading)
    image.load()
    return image


def picture_of(image: Image.Image, reading: Reading) -> Picture:
    """A loaded image of Pillow's as the picture that is coded; upright, as the EXIF or XMP in its ``info`` says.

    Its mode is one of ``CONVERTIBLE_MODES``, or of 16-bit grey. Whoever keeps no reference saves the memory of it.
    Raises ``ImageError`` for a colour profile that cannot be used, and for transparency that is refused.
    """
    orientation = metadata.orientation_of(image)
    base, extras, notes = _in_colour(_in_eight_bits(image), reading)
    alpha = _alpha_of(image) if image.has_transparency_data else None
    if reading.metadata:
        exif, xmp, density = metadata.exif_of(image), metadata.xmp_of(image), metadata.density_of(image)
        swapped = density and (density if orientation < 5 else density[::-1])
        extras = replace(extras, exif=exif, xmp=xmp, density=swapped)
    del image  # a large one has its own copy of all samples
    rgb = _samples(base)
    del base
    if orientation > 1:
        rgb, alpha = turned(rgb, orientation), None if alpha is None else turned(alpha, orientation)
    return _with_alpha(Picture(rgb, extras, notes), alpha, reading)


def _refuse_what_would_lose(image: Image.Image, file: BinaryIO, reading: Reading) -> None:
    """Raise ``ImageError`` for the kinds that cannot become 8-bit RGB without loss, by the header alone.

    Afterwards the image stands at the frame that is wanted.
    """
    check_size(*image.size)
    # MPO is the JPEG of many cameras with a preview as further frame: the first frame is the picture.
    frames = 1 if image.format == "MPO" and reading.frame is None else getattr(image, "n_frames", 1)
    if frames > 1 and reading.frame is None:
        raise ImageError(f"has {frames} frames; choose one with --frame 0 to {frames - 1}")
    if reading.frame is not None:
        if not 0 <= reading.frame < frames:
            raise ImageError(f"has no frame {reading.frame}: there are {frames}, counted from 0")
        image.seek(reading.frame)
    if image.mode == "F":
        raise ImageError("has floating-point samples; convert it to 8-bit RGB first")
    depth = sample_bits(image, file)
    if depth > 16 or (image.mode == "I" and image.format == "TIFF"):
        raise ImageError(f"has {max(depth, 16)} bits per sample of no known range; convert it to 8-bit RGB first")
    if depth > 8 or image.mode.startswith("I"):
        if not reading.reduce:
            raise _too_deep(max(depth, 16) if depth == 8 else depth)
    elif image.mode not in CONVERTIBLE_MODES:
        raise ImageError(f"has colour mode {image.mode}; convert it to 8-bit RGB first")


def _too_deep(bits: int) -> ImageError:
    return ImageError(f"has {bits} bits per sample; convert it to 8-bit RGB first, or add --depth 8")


def _in_eight_bits(image: Image.Image) -> Image.Image:
    """The image, samples of 16 bits replaced by their upper byte; of colour, Pillow has done so already."""
    if image.mode not in _WIDE_MODES:
        return image
    reduced = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    reduced.info = image.info
    return reduced


def _in_colour(image: Image.Image, reading: Reading) -> tuple[Image.Image, Extras, tuple[str, ...]]:
    """The image in RGB, the profile that says what that means, and what was done about it."""
    profile = image.info.get("icc_profile") or b""
    if not isinstance(profile, bytes) or not profile:
        return _rgb(image), Extras(), ()
    space = colour.space_of(profile)
    fits = {"GRAY": image.mode in _GREY_MODES, "CMYK": image.mode == "CMYK", "RGB": image.mode != "CMYK"}
    if space is None or not fits.get(space, False):
        what = "cannot be read" if space is None else f"is for {space}, its samples are {image.mode}"
        return _rgb(image), Extras(), (f"its colour profile {what}: left out",)
    if space == "RGB" and not reading.srgb:
        return _rgb(image), Extras(profile=profile), ()
    converted = colour.to_srgb(image.convert(colour.MODES[space]), profile)
    return converted, Extras(), () if space == "RGB" else (f"converted from {space} to sRGB by its colour profile",)


def _rgb(image: Image.Image) -> Image.Image:
    return image if image.mode == "RGB" else image.convert("RGB")  # which copies in any case


def _samples(image: Image.Image) -> RGB:
    """uint8 H×W×3, copied some rows at a time."""
    found = np.empty((image.height, image.width, 3), np.uint8)
    for first in range(0, image.height, ROWS):
        last = min(first + ROWS, image.height)
        found[first:last] = np.asarray(image.crop((0, first, image.width, last)))
    return found


def _alpha_of(image: Image.Image) -> Plane:
    return np.array((image if image.mode in ("RGBA", "LA") else image.convert("RGBA")).getchannel("A"))


def _with_alpha(picture: Picture, alpha: Plane | None, reading: Reading) -> Picture:
    """The picture, its transparency kept, flattened, refused, or dropped where it is opaque everywhere."""
    if alpha is None or alpha.min() == 255:
        return picture
    if reading.background is not None:
        return replace(picture, rgb=flattened(picture.rgb, alpha, reading.background))
    if not reading.alpha:
        raise ImageError("has transparent pixels; flatten it onto a background first")
    return replace(picture, extras=replace(picture.extras, alpha=alpha))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
