"""What a picture carries beside its colours, as fields of its coded file.

    profile, exif, xmp   bytes that they unpack to (uint32) | deflate
    density              dots per inch · 1000, horizontally and vertically (uint32 each)
    alpha                deflate of H×W bytes, each row less the one above it, modulo 256

A plane of transparency has large areas of one value and edges that go on in the next row: the differences are nearly
all 0. What fields claim is checked before there is memory for it: deflate packs at most 1032 bytes into one.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from licquant.codec.files.bitstream import FIELD_KINDS, Bitstream
from licquant.errors import BitstreamError, ImageError
from licquant.images import Extras

MAX_BYTES = 1 << 24  # of a profile, EXIF or XMP, unpacked
_BYTES = ("profile", "exif", "xmp")
_DENSEST = 1032  # bytes that deflate makes of one
_SIZE, _DENSITY = struct.Struct("<I"), struct.Struct("<II")
_LEVEL = 9
_PIECE = 1 << 16  # bytes that are unpacked at a time


def to_fields(extras: Extras, height: int, width: int) -> dict[int, bytes]:
    """Kind → contents. Raises ``ImageError`` for extras that do not fit an image of that size, or the format."""
    found: dict[str, bytes] = {}
    for name in _BYTES:
        content = getattr(extras, name)
        if len(content) > MAX_BYTES:
            raise ImageError(f"its {extras.names()[name]} has {len(content)} bytes: at most {MAX_BYTES} are kept")
        if content:
            found[name] = _SIZE.pack(len(content)) + zlib.compress(content, _LEVEL)
    if extras.density is not None:
        found["density"] = _DENSITY.pack(*(_thousandths(value) for value in extras.density))
    if extras.alpha is not None:
        found["alpha"] = _packed_plane(extras.alpha, height, width)
    return {FIELD_KINDS[name]: content for name, content in found.items()}


def from_fields(stream: Bitstream) -> Extras:
    """The inverse; raises ``BitstreamError`` for fields that are damaged or claim what no picture has."""
    found: dict[str, Any] = {}
    for name in _BYTES:
        content = stream.field(name)
        if content is not None:
            found[name] = _unpacked(name, content)
    density, alpha = stream.field("density"), stream.field("alpha")
    if density is not None:
        if len(density) != _DENSITY.size or 0 in _DENSITY.unpack(density):
            raise BitstreamError("damaged .lic file: its density is none")
        found["density"] = tuple(value / 1000 for value in _DENSITY.unpack(density))
    if alpha is not None:
        found["alpha"] = _unpacked_plane(alpha, stream.height, stream.width)
    return Extras(**found)


def unknown_fields(fields: Mapping[int, bytes]) -> list[int]:
    """Kinds that a newer licquant has written."""
    return sorted(set(fields) - set(FIELD_KINDS.values()))


def _thousandths(value: float) -> int:
    if not math.isfinite(value) or not 0 < round(1000 * value) < 1 << 32:
        raise ImageError(f"a density of {value} dots per inch cannot be kept")
    return round(1000 * value)


def _unpacked(name: str, content: bytes) -> bytes:
    size = _SIZE.unpack_from(content)[0] if len(content) > _SIZE.size else 0
    if not 1 <= size <= MAX_BYTES:
        raise BitstreamError(f"damaged .lic file: its {name} claims {size} bytes: 1 to {MAX_BYTES} are possible")
    data = bytearray(size) if size <= _DENSEST * len(content) else bytearray()
    _inflate(name, memoryview(content)[_SIZE.size :], memoryview(data), size)
    return bytes(data)


def _packed_plane(alpha: np.ndarray, height: int, width: int) -> bytes:
    if alpha.shape != (height, width) or alpha.dtype != np.uint8:
        raise ImageError(f"transparency must be uint8 of shape {(height, width)}, not {alpha.dtype} {alpha.shape}")
    packer, above, pieces = zlib.compressobj(_LEVEL), np.zeros(width, np.uint8), []
    for row in alpha:
        pieces.append(packer.compress((row - above).tobytes()))
        above = row
    return b"".join([*pieces, packer.flush()])


def _unpacked_plane(content: bytes, height: int, width: int) -> np.ndarray:
    size = height * width
    plane = np.empty(size if size <= _DENSEST * len(content) else 0, np.uint8)
    _inflate("alpha", memoryview(content), plane.data, size)
    plane = plane.reshape(height, width)
    return np.add.accumulate(plane, axis=0, dtype=np.uint8, out=plane)


def _inflate(name: str, packed: memoryview, target: memoryview, size: int) -> None:
    """Fill the target with what the packed bytes hold: exactly ``size``, else ``BitstreamError``.

    target: that many bytes, or none where so few packed ones cannot hold them
    """
    unpacker, at = zlib.decompressobj(), 0
    try:
        for first in range(0, len(packed), _PIECE):
            pending: bytes | memoryview = packed[first : first + _PIECE]
            while True:
                limit = min(len(target) - at, _PIECE) + 1  # one more than there is room for shows what is too long
                piece = unpacker.decompress(pending, limit)
                pending = unpacker.unconsumed_tail
                target[at : at + len(piece)] = piece  # ValueError if it is longer
                at += len(piece)
                if not pending and len(piece) < limit:
                    break
    except (zlib.error, ValueError) as error:
        raise BitstreamError(f"damaged .lic file: its {name} cannot be unpacked to {size} bytes") from error
    if at != size or not unpacker.eof or unpacker.unused_data:
        raise BitstreamError(f"damaged .lic file: its {name} does not unpack to {size} bytes")
