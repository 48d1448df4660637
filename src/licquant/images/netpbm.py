"""Netpbm files. P5, P6 and P7 (PAM) are read here, straight into one array; of P1 to P4 the header, Pillow the rest.

Pillow reads no PAM, and makes its own copy of what is stored as it is needed.
"""

from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from licquant.errors import ImageError
from licquant.images.picture import check_size

_KINDS = (b"P1", b"P2", b"P3", b"P4", b"P5", b"P6", b"P7")
_BITMAPS = (b"P1", b"P4")
_HERE = (b"P5", b"P6", b"P7")
_SPACE = b" \t\n\v\f\r"
_MAX_HEADER = 1 << 20  # bytes, comments included
_TUPLES = {  # samples a pixel → what they may be called
    1: (b"GRAYSCALE", b"BLACKANDWHITE"),
    2: (b"GRAYSCALE_ALPHA", b"BLACKANDWHITE_ALPHA"),
    3: (b"RGB",),
    4: (b"RGB_ALPHA",),
}
_PAM = (b"WIDTH", b"HEIGHT", b"DEPTH", b"MAXVAL")
_CHUNK = 1 << 22  # samples that are read at a time


@dataclass(frozen=True)
class Header:
    """maximum: the largest sample value;  depth: samples a pixel;  start: of the samples in the file"""

    kind: bytes
    width: int
    height: int
    depth: int
    maximum: int
    start: int

    @property
    def read_here(self) -> bool:
        """Whether this module reads the pixels; Pillow reads those of the other kinds."""
        return self.kind in _HERE


def header_of(file: BinaryIO) -> Header | None:
    """The header of a Netpbm file, which begins where ``file`` stands; None for any other file.

    Raises ``ImageError`` for a header that says nonsense.
    """
    kind = file.read(2)
    following = file.read(1)
    if kind not in _KINDS or not following or following not in _SPACE + b"#":
        return None
    text = _Text(file, following)
    header = _pam(text) if kind == b"P7" else _plain(kind, text)
    if not 1 <= header.maximum <= 65535:
        raise ImageError(f"its largest sample value is {header.maximum}: 1 to 65535 are known")
    return header


def samples(file: BinaryIO, header: Header) -> NDArray[np.uint8]:
    """uint8 H×W×C, scaled to 255 for its largest value.  Raises ``ImageError`` if the file is too short."""
    check_size(header.width, header.height)
    shape = header.height, header.width, header.depth
    wide = header.maximum > 255
    file.seek(0, 2)
    if file.tell() - header.start < header.height * header.width * header.depth * (2 if wide else 1):
        raise ImageError("cannot be read: truncated")
    file.seek(header.start)
    found = np.empty(shape, np.uint8)
    flat, kind = found.reshape(-1), np.dtype(">u2" if wide else "u1")
    for first in range(0, flat.size, _CHUNK):
        part = flat[first : first + _CHUNK]
        values = np.frombuffer(file.read(part.size * kind.itemsize), kind)
        part[:] = values if header.maximum == 255 else _scaled(values, header.maximum)
    return found


def _scaled(values: NDArray[np.integer], maximum: int) -> NDArray[np.uint8]:
    return np.rint(np.minimum(values, maximum) * 255.0 / maximum).astype(np.uint8)


class _Text:
    """The words of a header; a comment runs from # to the end of its line."""

    def __init__(self, file: BinaryIO, begun: bytes) -> None:
        self._file, self._next, self._left = file, begun, _MAX_HEADER

    def _byte(self) -> bytes:
        found, self._next = self._next or self._file.read(1), b""
        self._left -= 1
        if not found or not self._left:
            raise ImageError("cannot be read: its header has no end")
        return found

    def word(self) -> bytes:
        """The next word; the one space behind it is read too."""
        found = b""
        while True:
            byte = self._byte()
            if byte == b"#" and not found:
                self.rest_of_line()
            elif byte in _SPACE:
                if found:
                    return found
            elif len(found) > 20:
                raise ImageError("cannot be read: a word of its header is too long")
            else:
                found += byte

    def number(self) -> int:
        word = self.word()
        if not word.isdigit():
            raise ImageError(f"cannot be read: {word[:20]!r} in its header is no number")
        return int(word)

    def rest_of_line(self) -> None:
        while self._byte() not in b"\r\n":
            pass

    def here(self) -> int:
        return self._file.tell()


def _plain(kind: bytes, text: _Text) -> Header:
    width, height = text.number(), text.number()
    maximum = 1 if kind in _BITMAPS else text.number()
    return Header(kind, width, height, 3 if kind in (b"P3", b"P6") else 1, maximum, text.here())


def _pam(text: _Text) -> Header:
    fields: dict[bytes, int] = {}
    tuple_type = b""
    while (name := text.word()) != b"ENDHDR":
        if name in _PAM:
            fields[name] = text.number()
        elif name == b"TUPLTYPE":
            tuple_type = text.word()
        else:
            raise ImageError(f"cannot be read: its header has an unknown line {name[:20]!r}")
    missing = [name for name in _PAM if name not in fields]
    if missing:
        raise ImageError(f"cannot be read: its header lacks {missing[0].decode()}")
    width, height, depth, maximum = (fields[name] for name in _PAM)
    if not 1 <= depth <= 4 or tuple_type not in (b"", *_TUPLES[depth]):
        said = f" of type {tuple_type.decode('latin-1')!r}" if tuple_type else ""
        raise ImageError(f"has {depth} samples a pixel{said}: grey and RGB are read, with alpha or without")
    return Header(b"P7", width, height, depth, maximum, text.here())
