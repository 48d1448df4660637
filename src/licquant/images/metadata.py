"""EXIF, XMP and density as Pillow reads them, the orientation in them set to upright."""

import math
import re
import struct
from typing import Any

from PIL import Image

_ORIENTATION = 0x0112
_XMP_ORIENTATION = re.compile(rb'(tiff:Orientation(?:="|>\s*))[2-8]')
_XMP_TAG = 0x02BC
# Of a TIFF's own tags, those that describe the picture; the others say how that file stores it.
_DESCRIPTIVE = (
    0x010E, 0x010F, 0x0110, 0x0112, 0x0131, 0x0132, 0x013B, 0x013C, 0x8298, 0x8769, 0x8825,
)  # fmt: skip


def orientation_of(image: Image.Image) -> int:
    """1 to 8; 1 if the file says none, or nonsense."""
    found = image.getexif().get(_ORIENTATION, 1)
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def exif_of(image: Image.Image) -> bytes:
    """The TIFF structure, its orientation 1; empty if there is none, or none that can be read."""
    raw = image.info.get("exif", b"")
    if not isinstance(raw, bytes) or not raw:
        raw = _rebuilt(image)
    return _upright(raw.removeprefix(b"Exif\0\0"))


def xmp_of(image: Image.Image) -> bytes:
    """The packet, its orientation 1; empty if there is none."""
    raw = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b""
    packet = raw.encode() if isinstance(raw, str) else bytes(raw)
    return _XMP_ORIENTATION.sub(rb"\g<1>1", packet)


def density_of(image: Image.Image) -> tuple[float, float] | None:
    """Dots per inch, horizontally and vertically; None if the file does not say."""
    found: Any = image.info.get("dpi")
    try:
        horizontal, vertical = (float(value) for value in found)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    known = all(math.isfinite(value) and 0 < value < 1e6 for value in (horizontal, vertical))
    return (horizontal, vertical) if known else None


def tiff_tags(exif: bytes, xmp: bytes) -> Image.Exif:
    """Both as the tags of a TIFF file: those that describe the picture, not those that say how a file stores one."""
    found = Image.Exif()
    if exif:
        found.load(exif)
    for tag in [tag for tag in found if tag not in _DESCRIPTIVE]:
        del found[tag]
    if xmp:
        found[_XMP_TAG] = xmp
    return found


def _rebuilt(image: Image.Image) -> bytes:
    """From the tags, for files that have no block of EXIF: TIFF, and PNG as ImageMagick used to write it."""
    found, kept = image.getexif(), Image.Exif()
    for tag in _DESCRIPTIVE:
        if tag in found:
            kept[tag] = found.get_ifd(tag) if tag in (0x8769, 0x8825) else found[tag]
    return kept.tobytes() if len(kept) else b""


def _upright(exif: bytes) -> bytes:
    """The same structure with 1 in the place of its orientation; empty if it is no TIFF structure.

    In place: what else there is (a maker's notes, say) may count on standing where it stands.
    """
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return b""
    data = bytearray(exif)
    try:
        (first,) = struct.unpack_from(f"{order}I", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, first)
        for at in range(first + 2, first + 2 + 12 * count, 12):
            if struct.unpack_from(f"{order}H", data, at)[0] == _ORIENTATION:
                struct.pack_into(f"{order}HIHH", data, at + 2, 3, 1, 1, 0)  # one SHORT
    except struct.error:
        return b""
    return bytes(data)
