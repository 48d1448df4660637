"""The latents of a large picture, coded region by region: memory grows with the region, not with the picture.

The transforms g_a and g_s run on the whole picture, piece by piece (``tiling.py``), so there are no seams. What is
coded starts anew in each region, a square of ``SIDE`` pixels, as if it were a picture: h_a, h_s, contexts and strings.
That costs a few bytes for each. A picture of up to ``WHOLE_PIXELS`` is one region, and its file says nothing of it.

    field "regions":  side in pixels (uint32) | length of each string of each region (uint32)

The file's strings are those of the regions one behind the other, row by row: the first of each, then the second.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from licquant.codec.files.bitstream import FIELD_KINDS, Bitstream
from licquant.errors import BitstreamError
from licquant.images import RGB
from licquant.program.arithmetic import Ints

WHOLE_PIXELS = 1 << 24
SIDE = 2048  # pixels
MIN_SIDE = 1024  # of what is read: each region takes its time, however small it is
_SIDE = struct.Struct("<I")


@dataclass(frozen=True)
class Regions:
    """size: (height, width) of the picture;  side: of a region, 0 if there is one only; all in coded positions
    ratio: positions of y for a coded one

    Iteration gives (rows, columns) of each in coded positions.
    """

    size: tuple[int, int]
    side: int
    ratio: int

    def __iter__(self) -> Iterator[tuple[slice, slice]]:
        side = self.side or max(self.size)
        for top in range(0, self.size[0], side):
            for left in range(0, self.size[1], side):
                yield slice(top, min(top + side, self.size[0])), slice(left, min(left + side, self.size[1]))

    def __len__(self) -> int:
        side = self.side or max(self.size)
        return -(-self.size[0] // side) * -(-self.size[1] // side)

    def of_y(self, y: Ints, rows: slice, columns: slice) -> Ints:
        """The part of y [M, H, W] that belongs to a region."""
        r = self.ratio
        return y[:, rows.start * r : rows.stop * r, columns.start * r : columns.stop * r]

    def joined(self, parts: Sequence[Ints], ratio: int) -> Ints:
        """Parts of all regions as one [C, H, W], with ``ratio`` positions for each coded one."""
        if len(parts) == 1 or not parts[0].size:
            return parts[0]
        whole = np.empty((len(parts[0]), self.size[0] * ratio, self.size[1] * ratio), parts[0].dtype)
        for (rows, columns), part in zip(self, parts, strict=True):
            Regions(self.size, self.side, ratio).of_y(whole, rows, columns)[:] = part
        return whole

    def largest(self) -> tuple[int, int]:
        """(height, width) in coded positions."""
        side = self.side or max(self.size)
        return min(side, self.size[0]), min(side, self.size[1])


def regions_for(size: tuple[int, int], strides: tuple[int, int]) -> Regions:
    """How an encoder divides a picture.

    size: (height, width) in coded positions;  strides: pixels for each element of y, and for each coded position
    """
    large = size[0] * size[1] * strides[1] ** 2 > WHOLE_PIXELS
    return Regions(size, -(-SIDE // strides[1]) if large else 0, strides[1] // strides[0])


def regions_of(stream: Bitstream, size: tuple[int, int], strides: tuple[int, int]) -> Regions:
    """How the picture of a file is divided; ``BitstreamError`` for a side that no encoder chooses."""
    content = stream.field("regions")
    side = 0
    if content is not None:
        side = _SIDE.unpack_from(content)[0] if len(content) >= _SIDE.size else 0
        if side < MIN_SIDE or side % strides[1]:
            raise BitstreamError(f"damaged .lic file: regions of {side} pixels a side")
    return Regions(size, side // strides[1], strides[1] // strides[0])


def packed(
    regions: Regions, strings: Sequence[tuple[bytes, ...]], stride: int
) -> tuple[tuple[bytes, ...], dict[int, bytes]]:
    """(strings of the file, its field) for those of every region; no field where there is one region."""
    if not regions.side:
        return strings[0], {}
    lengths = [len(string) for of_region in strings for string in of_region]
    field = _SIDE.pack(regions.side * stride) + np.array(lengths, "<u4").tobytes()
    return tuple(b"".join(column) for column in zip(*strings, strict=True)), {FIELD_KINDS["regions"]: field}


def unpacked(regions: Regions, stream: Bitstream) -> list[tuple[bytes, ...]]:
    """The strings of every region; ``BitstreamError`` if they are not what the field says."""
    if not regions.side:
        return [stream.strings]
    lengths = (stream.field("regions") or b"")[_SIDE.size :]
    if len(lengths) != 4 * len(regions) * len(stream.strings):
        raise BitstreamError(f"damaged .lic file: {len(lengths)} bytes of lengths for {len(regions)} regions")
    table = np.frombuffer(lengths, "<u4").astype(np.int64).reshape(len(regions), len(stream.strings))
    ends = np.cumsum(table, axis=0)
    if [len(string) for string in stream.strings] != ends[-1].tolist():
        raise BitstreamError("damaged .lic file: its regions do not have the strings that it holds")
    return [
        tuple(s[end - n : end] for s, n, end in zip(stream.strings, row, row_ends, strict=True))
        for row, row_ends in zip(table.tolist(), ends.tolist(), strict=True)
    ]


class EdgePadded:
    """``pad_to_multiple`` of a picture as planes [3, H', W'], made where it is asked for: a large one has no copy."""

    def __init__(self, rgb: RGB, multiple: int) -> None:
        self._rgb = rgb
        self.shape = (3, *(n + -n % multiple for n in rgb.shape[:2]))

    def __getitem__(self, index: tuple[slice, slice, slice]) -> Ints:
        _, rows, columns = index
        return self.at(np.arange(*rows.indices(self.shape[1])), np.arange(*columns.indices(self.shape[2])))

    def at(self, rows: Ints, columns: Ints) -> Ints:
        """[3, R, K] at those rows and columns."""
        height, width = self._rgb.shape[:2]
        found = self._rgb[np.minimum(rows, height - 1)[:, None], np.minimum(columns, width - 1)]
        return np.moveaxis(found, -1, 0)


Planes = Ints | EdgePadded
