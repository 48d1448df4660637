"""Image files in and out, and the padding that a strided network needs.

Everywhere in licquant an image is ``rgb``: uint8, H×W×3, C-contiguous, H ≥ 1 and W ≥ 1. A file that is not
8-bit RGB is converted where nothing visible is lost, and refused with the way out where something would be:

    converted   greyscale, palette, 1-bit, CMYK, YCbCr, alpha that is opaque everywhere, EXIF orientation
    refused     real transparency, more than 8 bits per sample, floating point, several frames

Colour profiles are not applied: samples are coded as they are stored.
"""

import contextlib
import os
import secrets
import stat
import tempfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from licquant.errors import DataError, ImageError, LicquantError

RGB = NDArray[np.uint8]

# Only these of Pillow's many readers: each one more is a further surface for hostile files.
READ_FORMATS = ("PNG", "JPEG", "PPM", "BMP", "TIFF", "WEBP", "GIF")
READ_SUFFIXES = (".png", ".jpg", ".jpeg", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".webp")
# Lossless ones only: a decoded image must reach the disk as it is.
WRITE_FORMATS = {".png": "PNG", ".ppm": "PPM", ".bmp": "BMP", ".tif": "TIFF", ".tiff": "TIFF"}

MAX_SIDE = 1 << 20  # pixels: as of a coded image. Pillow makes room for rows before it finds that there are none.

_CONVERTIBLE_MODES = {"1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "LA", "PA", "RGBA"}


# --- reading ------------------------------------------------------------------------------------------------


def read_image(path: str | Path) -> RGB:
    """The image in a file as uint8 H×W×3.

    Raises ``ImageError`` for a file that is missing, damaged, truncated, not an image, unreasonably large
    (Pillow's limit, about 89 million pixels), or of a kind that is refused (see the top of this file).
    Pillow's remarks on odd metadata, which is not used, are left to the caller's filters: filters are the whole
    process's, and changing them here would change them for other threads.
    """
    try:
        with Image.open(path, formats=READ_FORMATS) as image:
            _refuse_bomb(image)
            _refuse_what_would_lose(image, path)
            image.load()
            upright = ImageOps.exif_transpose(image)
            rgb = np.array(_without_alpha(upright, path).convert("RGB"))
    except ImageError:
        raise
    except FileNotFoundError as error:
        raise ImageError(f"{path}: there is no such file") from error
    except Image.UnidentifiedImageError as error:
        raise ImageError(f"{path}: not an image of a kind that is read: {', '.join(READ_FORMATS)}") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        limit = Image.MAX_IMAGE_PIXELS
        raise ImageError(f"{path}: claims more than {limit} pixels; cut it into tiles") from error
    except Exception as error:  # damaged files make Pillow raise OSError, SyntaxError, struct.error, ...
        raise ImageError(f"{path}: cannot be read: {_one_line(error)}") from error
    if rgb.size == 0:
        raise ImageError(f"{path}: the image has no pixels")
    return rgb


def _refuse_bomb(image: Image.Image) -> None:
    """Pillow itself refuses twice its limit, and only remarks on what lies between."""
    limit, (width, height) = Image.MAX_IMAGE_PIXELS, image.size
    if limit is not None and width * height > limit:
        raise Image.DecompressionBombError


def _refuse_what_would_lose(image: Image.Image, path: str | Path) -> None:
    """Raise ``ImageError`` for the kinds that cannot become 8-bit RGB without loss, by the header alone."""
    frames = getattr(image, "n_frames", 1)
    # MPO is the JPEG of many cameras with a preview as further frame: the first frame is the picture.
    if frames > 1 and image.format != "MPO":
        raise ImageError(f"{path}: has {frames} frames; save the wanted one as its own file")
    if image.mode == "F":
        raise ImageError(f"{path}: has floating-point samples; convert it to 8-bit RGB first")
    if max(image.size) > MAX_SIDE:
        raise ImageError(f"{path}: claims {image.width}×{image.height} pixels; at most {MAX_SIDE} a side are read")
    depth = _sample_bits(image, path)
    if depth > 8 or image.mode.startswith("I"):
        raise ImageError(f"{path}: has {max(depth, 16)} bits per sample; convert it to 8-bit RGB first")
    if image.mode not in _CONVERTIBLE_MODES:
        raise ImageError(f"{path}: has colour mode {image.mode}; convert it to 8-bit RGB first")


def _sample_bits(image: Image.Image, path: str | Path) -> int:
    """Bits per sample that the file declares, where Pillow would reduce them to 8 without a word; else 8."""
    if image.format == "PNG":
        with open(path, "rb") as file:
            header = file.read(25)  # signature 8, IHDR length and name 8, width and height 8, bit depth
        return header[24]
    if image.format == "TIFF":
        tags: Any = getattr(image, "tag_v2", {})
        return max(tags.get(258, (8,)))  # BitsPerSample, one per channel
    if image.format == "PPM":
        with open(path, "rb") as file:
            return 16 if _ppm_maximum(file.read(1024)) > 255 else 8
    return 8


def _ppm_maximum(header: bytes) -> int:
    """Largest sample value of a PPM or PGM header; 1 for the bitmap kinds, which state none."""
    lines = (line.split(b"#")[0] for line in header.splitlines())  # a comment runs to the end of its line
    fields = b" ".join(lines).split()
    if fields[0] not in (b"P2", b"P3", b"P5", b"P6"):
        return 1
    return int(fields[3])


def _without_alpha(image: Image.Image, path: str | Path) -> Image.Image:
    """The image, its alpha channel removed if opaque everywhere; else ``ImageError``."""
    if not image.has_transparency_data:
        return image
    rgba = image.convert("RGBA")
    darkest, _ = rgba.getchannel("A").getextrema()
    if darkest != 255:
        raise ImageError(f"{path}: has transparent pixels; flatten it onto a background first")
    return rgba


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def list_images(folder: str | Path) -> list[Path]:
    """The image files directly in ``folder``, by suffix, sorted by name; ``DataError`` if there are none."""
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: not a folder")
    paths = sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in READ_SUFFIXES and not path.name.startswith(".") and path.is_file()
    )
    if not paths:
        raise DataError(f"{folder}: holds no images ({', '.join(READ_SUFFIXES)})")
    return paths


# Enough to notice a full disk or a quota, little enough to be written in no time.
_PROBE_BYTES = 1 << 16

# --- writing ------------------------------------------------------------------------------------------------


def write_image(path: str | Path, rgb: RGB) -> None:
    """Write ``rgb`` (uint8 H×W×3) in the lossless format of the suffix: .png, .ppm, .bmp, .tif or .tiff.

    Raises ``ImageError`` for another suffix, another array, or a place that cannot be written; then nothing
    is left behind.
    """
    check_suffix(path)
    check_rgb(rgb)
    encoded = BytesIO()
    Image.fromarray(np.ascontiguousarray(rgb)).save(encoded, format=WRITE_FORMATS[Path(path).suffix.lower()])
    try:
        write_atomically(path, encoded.getvalue())
    except LicquantError as error:
        raise ImageError(str(error)) from error


def check_suffix(path: str | Path) -> None:
    """``ImageError`` for a name that ``write_image`` does not write."""
    if Path(path).suffix.lower() not in WRITE_FORMATS:
        raise ImageError(f"{path}: choose one of the suffixes {', '.join(WRITE_FORMATS)} to write an image")


def check_rgb(rgb: RGB) -> None:
    """Raise ``ImageError`` unless ``rgb`` is uint8, H×W×3, with at least one pixel."""
    wanted = "an image must be a uint8 array of shape (height, width, 3)"
    if not isinstance(rgb, np.ndarray):
        raise ImageError(f"{wanted}, not {type(rgb).__name__}")
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.size == 0:
        raise ImageError(f"{wanted}, not {rgb.dtype} {rgb.shape}")


def write_atomically(path: str | Path, data: bytes) -> None:
    """Write ``data`` to ``path`` whole or not at all: to a temporary name in the same folder, then renamed.

    Raises ``LicquantError`` if the place cannot be written; nothing is left behind then, and a file that was
    there before is unchanged.
    """
    path = Path(path)
    temporary = path.parent / f".licquant-{secrets.token_hex(8)}.tmp"
    try:
        # Renaming onto a device would replace it.
        if path.exists() and not path.is_file():
            raise LicquantError(f"{path}: cannot be written: not a regular file")
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except (OSError, ValueError) as error:  # ValueError: a name that cannot be one of a file
        raise LicquantError(f"{path}: cannot be written: {getattr(error, 'strerror', None) or error}") from error
    finally:
        with contextlib.suppress(OSError):  # after the rename it is gone already
            temporary.unlink()


def write_result(path: str | Path, data: bytes) -> None:
    """``write_atomically`` for what took long to make: if that fails, the data goes to a file in the system's folder
    for temporary ones, and the error, ``LicquantError`` still, names it."""
    try:
        write_atomically(path, data)
    except LicquantError as error:
        raise LicquantError(f"{error}; {_rescued(data, Path(path).suffix)}") from error


def _rescued(data: bytes, suffix: str) -> str:
    """Write the data somewhere else; say where, or why not."""
    try:
        plain = suffix if suffix.isascii() and len(suffix) < 8 else ""
        rescue = Path(tempfile.gettempdir()) / f"licquant-rescue-{secrets.token_hex(4)}{plain}"
        write_atomically(rescue, data)
    except (OSError, LicquantError) as error:
        return f"nor could it be kept elsewhere: {error}"
    return f"the result is kept as {rescue}"


def check_places(*paths: Path) -> None:
    """``LicquantError`` if a file cannot be written under one of the names: asked before long work, not after it.

    The folder must be there and take a file, the name must be one that the file system takes, and what stands there
    already must be a file.
    """
    for path in paths:
        if not path.parent.is_dir():
            raise LicquantError(f"{path.parent}: there is no such folder")
        try:
            regular = stat.S_ISREG(path.stat().st_mode)
        except FileNotFoundError:
            regular = True
        except (OSError, ValueError) as error:
            raise LicquantError(f"{path}: cannot be written: {getattr(error, 'strerror', None) or error}") from error
        if not regular:
            raise LicquantError(f"{path}: cannot be written: not a regular file")
    for folder in {path.parent for path in paths}:
        probe = folder / f".licquant-{secrets.token_hex(8)}.tmp"
        write_atomically(probe, bytes(_PROBE_BYTES))
        probe.unlink(missing_ok=True)


def utf8(text: str) -> bytes:
    """JSON in bytes; what stands for a byte of a file name that is not UTF-8 becomes JSON's escape for it."""
    return text.encode("utf-8", "backslashreplace")


# --- padding ------------------------------------------------------------------------------------------------


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
