"""``image.lic``, the file of one coded image. Everything little-endian; fields are only ever appended.

HEADER (below, 22 bytes) | length of each string (uint32 each) | the strings | CRC32 of everything before
(uint32)
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from licquant.errors import BitstreamError

__all__ = ["MAX_PIXELS", "MAX_SIDE", "MAX_STRINGS", "VERSION", "Bitstream"]

MAGIC = b"LICI"
VERSION = 1
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
    """

    artifact_id: bytes
    width: int
    height: int
    strings: tuple[bytes, ...]

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

    def to_bytes(self) -> bytes:
        """The file's bytes: ``26 + 4·strings`` more than the strings themselves."""
        fields = {"magic": MAGIC, "version": VERSION, **vars(self), "strings": len(self.strings)}
        header = _HEADER.pack(*(fields[name] for name, _ in HEADER))
        lengths = struct.pack(f"<{len(self.strings)}I", *map(len, self.strings))
        body = b"".join((header, lengths, *self.strings))
        return body + _CRC.pack(zlib.crc32(body))

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
        fields = dict(zip((name for name, _ in HEADER), _HEADER.unpack_from(data), strict=True))
        at = _HEADER.size + 4 * fields["strings"]
        if len(data) < at + _CRC.size:
            raise BitstreamError(f"truncated .lic file: {len(data)} bytes do not hold the lengths of its strings")
        lengths = struct.unpack_from(f"<{fields['strings']}I", data, _HEADER.size)
        size = at + sum(lengths) + _CRC.size
        if len(data) != size:
            problem = "truncated" if len(data) < size else "too long a"
            raise BitstreamError(f"{problem} .lic file: {len(data)} bytes instead of {size}")
        if _CRC.unpack_from(data, size - _CRC.size)[0] != zlib.crc32(data[: size - _CRC.size]):
            raise BitstreamError("damaged .lic file: the checksum does not match")
        strings = []
        for length in lengths:
            strings.append(data[at : at + length])
            at += length
        return cls(fields["artifact_id"], fields["width"], fields["height"], tuple(strings))


def _check_kind(data: bytes) -> None:
    """Raise ``BitstreamError`` unless the data begins like a .lic file of the known version."""
    if not data:
        raise BitstreamError("not a .lic file: it is empty")
    if data[:4] != MAGIC[: len(data)]:
        for start, name in _OTHER_FORMATS:
            if data.startswith(start):
                raise BitstreamError(f"not a .lic file: this is {name}")
        raise BitstreamError("not a .lic file: it does not begin with LICI")
    if len(data) > 4 and data[4] != VERSION:
        raise BitstreamError(f"unknown version {data[4]} of the .lic format; this licquant reads version {VERSION}")
