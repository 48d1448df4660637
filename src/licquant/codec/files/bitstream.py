"""``image.lic``, the file of one coded image. Everything little-endian; fields are only ever appended.

    HEADER (below, 22 bytes) | length of each string (uint32 each) | the strings | FIELDS | CRC32 of everything before

FIELDS: nothing in version 1. Version 2 is version 1 with what a picture carries beside its colours:

    how many (uint8) | kind (uint8) and length (uint32) of each, kinds ascending | their contents

A picture without fields is written as version 1, so a reader of version 1 reads it, and refuses by the version whatever
it could not show as it is meant. A kind that is not known (``FIELD_KINDS``) is a newer licquant's, and left out: what
changes the colours gets a version of its own.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from licquant.errors import BitstreamError

__all__ = ["FIELD_KINDS", "MAX_PIXELS", "MAX_SIDE", "MAX_STRINGS", "VERSION", "VERSION_WITH_FIELDS", "Bitstream"]

MAGIC = b"LICI"
VERSION, VERSION_WITH_FIELDS = 1, 2
MAX_PIXELS = 1 << 28
MAX_SIDE = 1 << 20
MAX_STRINGS = 255

# The one description of the header: name and struct code of every field, in file order.
HEADER: tuple[tuple[str, str], ...] = (
    ("magic", "4s"),
    ("version", "B"),
    ("artifact_id", "8s"),  # the first bytes of the SHA-256 of the artifact that coded the image
    ("width", "I"),  # pixels
    ("height", "I"),  # pixels
    ("strings", "B"),  # how many
)
_HEADER = struct.Struct("<" + "".join(code for _, code in HEADER))
_CRC = struct.Struct("<I")
_FIELD = struct.Struct("<BI")

# The one list of optional fields: name → kind. ``extra_fields.py`` and ``regions.py`` say what is in them.
FIELD_KINDS: Mapping[str, int] = {
    "profile": 1,  # ICC, compressed
    "exif": 2,  # compressed
    "xmp": 3,  # compressed
    "density": 4,  # dots per inch
    "alpha": 5,  # the plane, compressed
    "regions": 6,  # how a large picture's strings are divided
}

_OTHER_FORMATS = (
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x89PNG", "a PNG image"),
    (b"LICQ", "a model (.licq)"),
    (b"GIF8", "a GIF image"),
    (b"RIFF", "a WebP or another RIFF file"),
)


@dataclass(frozen=True)
class Bitstream:
    """One coded image, checked on construction (``BitstreamError``).

    artifact_id:   8 bytes, the first of the artifact's SHA-256
    width, height: pixels, each in [1, 2^20], at most 2^28 together
    strings:       the payloads, in the order that the model's family defines; at most 255
    fields:        kind, in [1, 255], → contents; at most 255
    """

    artifact_id: bytes
    width: int
    height: int
    strings: tuple[bytes, ...]
    fields: Mapping[int, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.artifact_id) != 8:
            raise BitstreamError(f"the artifact id has {len(self.artifact_id)} bytes instead of 8")
        if self.width < 1 or self.height < 1:
            raise BitstreamError(f"the image has no pixels: {self.width}×{self.height}")
        if max(self.width, self.height) > MAX_SIDE or self.width * self.height > MAX_PIXELS:
            limit = f"{MAX_SIDE} a side, {MAX_PIXELS} in all"
            raise BitstreamError(f"the image is too large: {self.width}×{self.height} pixels (limit {limit})")
        if len(self.strings) > MAX_STRINGS or any(len(s) >> 32 for s in self.strings):
            raise BitstreamError("too many or too long strings for one file")
        if any(not 1 <= kind <= 255 or len(content) >> 32 for kind, content in self.fields.items()):
            raise BitstreamError("a field of an impossible kind, or too long for one file")

    def to_bytes(self) -> bytes:
        """The file's bytes: ``26 + 4·strings`` more than the strings themselves where there are no fields."""
        version = VERSION_WITH_FIELDS if self.fields else VERSION
        values = {"magic": MAGIC, "version": version, **vars(self), "strings": len(self.strings)}
        header = _HEADER.pack(*(values[name] for name, _ in HEADER))
        lengths = struct.pack(f"<{len(self.strings)}I", *map(len, self.strings))
        body = b"".join((header, lengths, *self.strings, *self._packed_fields()))
        return body + _CRC.pack(zlib.crc32(body))

    def field(self, name: str) -> bytes | None:
        """The contents of the field that ``FIELD_KINDS`` calls so; None if it is not there."""
        return self.fields.get(FIELD_KINDS[name])

    def _packed_fields(self) -> list[bytes]:
        if not self.fields:
            return []
        ordered = sorted(self.fields.items())
        heads = [_FIELD.pack(kind, len(content)) for kind, content in ordered]
        return [bytes([len(ordered)]), *heads, *(content for _, content in ordered)]

    @classmethod
    def from_bytes(cls, data: bytes) -> Bitstream:
        """The inverse of :meth:`to_bytes`.

        Raises ``BitstreamError`` with what is wrong: empty, of another format, truncated, longer than it
        says, of an unknown version, damaged, or of a size that no image has. Allocates nothing beyond copies
        of ``data``.
        """
        _check_kind(data)
        if len(data) < _HEADER.size + _CRC.size:
            raise BitstreamError(f"truncated .lic file: {len(data)} bytes do not even hold the header")
        values = dict(zip((name for name, _ in HEADER), _HEADER.unpack_from(data), strict=True))
        at = _HEADER.size + 4 * values["strings"]
        if len(data) < at + _CRC.size:
            raise BitstreamError(f"truncated .lic file: {len(data)} bytes do not hold the lengths of its strings")
        lengths = struct.unpack_from(f"<{values['strings']}I", data, _HEADER.size)
        with_fields = values["version"] == VERSION_WITH_FIELDS
        kinds, sizes, after = _field_table(data, at + sum(lengths)) if with_fields else ((), (), at + sum(lengths))
        size = after + sum(sizes) + _CRC.size
        if len(data) != size:
            problem = "truncated" if len(data) < size else "too long a"
            raise BitstreamError(f"{problem} .lic file: {len(data)} bytes instead of {size}")
        if _CRC.unpack_from(data, size - _CRC.size)[0] != zlib.crc32(memoryview(data)[: size - _CRC.size]):
            raise BitstreamError("damaged .lic file: the checksum does not match")
        fields = dict(zip(kinds, _cut(data, after, sizes), strict=True))
        return cls(values["artifact_id"], values["width"], values["height"], tuple(_cut(data, at, lengths)), fields)


def _field_table(data: bytes, at: int) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """(kind of each field, length of each, where the first begins); the table stands at ``at``."""
    count = data[at] if at < len(data) else 0
    end = at + 1 + _FIELD.size * count
    if len(data) < end + _CRC.size:
        raise BitstreamError(f"truncated .lic file of version {data[4]}: {len(data)} bytes do not hold its fields")
    entries = [_FIELD.unpack_from(data, place) for place in range(at + 1, end, _FIELD.size)]
    kinds, sizes = (tuple(column) for column in zip(*entries, strict=True)) if entries else ((), ())
    if not entries or sorted({0, *kinds}) != [0, *kinds]:
        raise BitstreamError("damaged .lic file: its fields are not one of each kind, in ascending order")
    return kinds, sizes, end


def _cut(data: bytes, at: int, lengths: tuple[int, ...]) -> list[bytes]:
    """Pieces of those lengths, one behind the other, from ``at`` on."""
    pieces = []
    for length in lengths:
        pieces.append(data[at : at + length])
        at += length
    return pieces


def _check_kind(data: bytes) -> None:
    """Raise ``BitstreamError`` unless the data begins like a .lic file of the known version."""
    if not data:
        raise BitstreamError("not a .lic file: it is empty")
    if data[:4] != MAGIC[: len(data)]:
        for start, name in _OTHER_FORMATS:
            if data.startswith(start):
                raise BitstreamError(f"not a .lic file: this is {name}")
        raise BitstreamError("not a .lic file: it does not begin with LICI")
    if len(data) > 4 and data[4] not in (VERSION, VERSION_WITH_FIELDS):
        raise BitstreamError(
            f"unknown version {data[4]} of the .lic format; this licquant reads versions {VERSION} and "
            f"{VERSION_WITH_FIELDS}"
        )
