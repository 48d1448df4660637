"""image.lic: layout by hand, overhead, and one clear line for every kind of bad file."""

import struct
import zlib

import pytest

from licquant.codec.files.bitstream import MAX_PIXELS, MAX_SIDE, Bitstream
from licquant.errors import BitstreamError

STREAM = Bitstream(b"\x01\x02\x03\x04\x05\x06\x07\x08", 768, 512, (b"abc", b""))


def _sealed(body: bytes) -> bytes:
    return body + struct.pack("<I", zlib.crc32(body))


def test_layout_by_hand():
    expected = bytes.fromhex("4c494349 01 0102030405060708 00030000 00020000 02 03000000 00000000 616263")
    assert STREAM.to_bytes() == _sealed(expected)
    assert len(STREAM.to_bytes()) - 3 == 34
    assert Bitstream.from_bytes(STREAM.to_bytes()) == STREAM


@pytest.mark.parametrize("strings", [(), (b"",), (b"x" * 1000,) * 255])
def test_round_trip(strings):
    stream = Bitstream(b"8 bytes!", MAX_SIDE, MAX_PIXELS // MAX_SIDE, strings)
    assert Bitstream.from_bytes(stream.to_bytes()) == stream


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty"),
        (b"\xff\xd8\xff\xe0 and so on", "JPEG"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (b"LICQ\x01", "model"),
        (b"hello", "not a .lic"),
        (b"LI", "truncated"),
        (STREAM.to_bytes()[:20], "truncated"),
        (STREAM.to_bytes()[:27], "truncated"),
        (STREAM.to_bytes()[:-1], "truncated"),
        (STREAM.to_bytes() + b"\0", "too long"),
        (b"LICI\x02" + STREAM.to_bytes()[5:], "version 2"),
        (STREAM.to_bytes()[:-6] + b"!" + STREAM.to_bytes()[-5:], "checksum"),
        (STREAM.to_bytes()[:14] + b"!" + STREAM.to_bytes()[15:], "checksum"),
    ],
)
def test_bad_files_are_named(data, says):
    with pytest.raises(BitstreamError, match=says) as caught:
        Bitstream.from_bytes(data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("width", "height", "says"),
    [(0, 5, "no pixels"), (5, 0, "no pixels"), (MAX_SIDE + 1, 1, "too large"), (2**15, 2**14, "too large")],
)
def test_absurd_sizes_are_refused_both_ways(width, height, says):
    with pytest.raises(BitstreamError, match=says):
        Bitstream(b"8 bytes!", width, height, ())
    with pytest.raises(BitstreamError, match=says):
        Bitstream.from_bytes(_sealed(b"LICI\x01" + b"8 bytes!" + struct.pack("<IIB", width, height, 0)))


def test_wrong_artifact_id_and_too_many_strings():
    with pytest.raises(BitstreamError):
        Bitstream(b"short", 1, 1, ())
    with pytest.raises(BitstreamError):
        Bitstream(b"8 bytes!", 1, 1, (b"",) * 256)
