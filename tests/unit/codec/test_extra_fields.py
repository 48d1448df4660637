"""What a picture carries, in its coded file: exactly what went in comes out, and what is altered is refused."""

import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable

import numpy as np
import pytest

from licquant.codec.files.bitstream import FIELD_KINDS, Bitstream
from licquant.codec.files.extra_fields import MAX_BYTES, from_fields, to_fields, unknown_fields
from licquant.errors import BitstreamError, ImageError
from licquant.images import Extras

HEIGHT, WIDTH = 37, 53
ALPHA = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)
FULL = Extras(b"profile" * 99, b"II*\0 and so on", b"<x/>", (72.009, 300.0), ALPHA)
KINDS = list(FIELD_KINDS.values())


def stream(fields: dict[int, bytes], height: int = HEIGHT, width: int = WIDTH) -> Bitstream:
    return Bitstream(b"8 bytes!", width, height, (b"abc", b""), fields)


def same(a: Extras, b: Extras) -> bool:
    planes = (a.alpha is None) == (b.alpha is None) and (a.alpha is None or np.array_equal(a.alpha, b.alpha))
    return planes and (a.profile, a.exif, a.xmp, a.density) == (b.profile, b.exif, b.xmp, b.density)


@pytest.mark.parametrize(
    "extras",
    [
        Extras(), FULL, Extras(profile=b"p"), Extras(exif=bytes(5000)), Extras(xmp=b"\xff\0"),
        Extras(density=(0.001, 4e6)),
        Extras(alpha=ALPHA), Extras(alpha=np.zeros((HEIGHT, WIDTH), np.uint8)),
        Extras(alpha=np.ascontiguousarray(ALPHA[::-1])),
    ],
)  # fmt: skip
def test_what_went_in_comes_out(extras: Extras) -> None:
    data = stream(to_fields(extras, HEIGHT, WIDTH)).to_bytes()
    found = Bitstream.from_bytes(data)
    assert found.to_bytes() == data
    assert same(from_fields(found), extras)


def test_without_fields_nothing_changes() -> None:
    assert to_fields(Extras(), HEIGHT, WIDTH) == {}
    assert stream({}).to_bytes()[4] == 1
    assert stream({1: b""}).to_bytes()[4] == 2


def test_a_mask_takes_next_to_nothing() -> None:
    rows, columns = np.ogrid[:1000, :1000]
    mask = (((rows - 500) ** 2 + (columns - 500) ** 2) < 160000).astype(np.uint8) * 255
    (packed,) = to_fields(Extras(alpha=mask), 1000, 1000).values()
    assert len(packed) < 5000  # of a million bytes


def test_what_does_not_fit_is_not_written() -> None:
    with pytest.raises(ImageError, match="transparency must be"):
        to_fields(Extras(alpha=ALPHA), WIDTH, HEIGHT)
    with pytest.raises(ImageError, match="EXIF has"):
        to_fields(Extras(exif=bytes(MAX_BYTES + 1)), HEIGHT, WIDTH)
    with pytest.raises(ImageError, match="density"):
        to_fields(Extras(density=(float("inf"), 1)), HEIGHT, WIDTH)


def test_kinds_of_a_newer_licquant_are_left_out() -> None:
    found = Bitstream.from_bytes(stream({200: b"what is this", **to_fields(FULL, HEIGHT, WIDTH)}).to_bytes())
    assert same(from_fields(found), FULL)
    assert unknown_fields(found.fields) == [200]


def sized(size: int, content: bytes) -> bytes:
    return struct.pack("<I", size) + content


BOMB = zlib.compress(bytes(1 << 26), 9)
PLANE = zlib.compress(bytes(HEIGHT * WIDTH))
HOSTILE: dict[str, tuple[str, bytes]] = {
    "nothing": ("profile", b""),
    "no size": ("exif", b"\1\0"),
    "size 0": ("profile", sized(0, zlib.compress(b""))),
    "huge size": ("profile", sized(0xFFFFFFFF, BOMB)),
    "largest size": ("xmp", sized(MAX_BYTES, zlib.compress(b"x"))),
    "bomb": ("exif", sized(100, BOMB)),
    "bomb of its size": ("profile", sized(1 << 26, BOMB)),
    "too short": ("xmp", sized(9, zlib.compress(b"12345678"))),
    "too long": ("xmp", sized(7, zlib.compress(b"12345678"))),
    "not packed": ("profile", sized(9, b"123456789")),
    "cut off": ("profile", sized(700, zlib.compress(bytes(range(256)) * 3)[:-5])),
    "more behind": ("xmp", sized(8, zlib.compress(b"12345678") + b"!")),
    "two behind each other": ("xmp", sized(8, zlib.compress(b"12345678") * 2)),
    "density of 7 bytes": ("density", bytes([1] * 7)),
    "density 0": ("density", struct.pack("<II", 0, 72000)),
    "empty plane": ("alpha", b""),
    "another plane's": ("alpha", zlib.compress(bytes(HEIGHT * WIDTH - 1))),
    "larger plane's": ("alpha", zlib.compress(bytes(HEIGHT * WIDTH + 1))),
    "bomb for a plane": ("alpha", BOMB),
    "cut off plane": ("alpha", PLANE[:-1]),
    "more behind a plane": ("alpha", PLANE + PLANE),
    "noise for a plane": ("alpha", np.random.default_rng(1).bytes(HEIGHT * WIDTH)),
}  # fmt: skip


def refused(data: bytes) -> None:
    with pytest.raises(BitstreamError) as caught:
        from_fields(Bitstream.from_bytes(data))
    assert "\n" not in str(caught.value)


def peak_of(work: Callable[[], None]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_contents_are_refused_in_little_time_and_memory(name: str) -> None:
    field, content = HOSTILE[name]
    data = stream({FIELD_KINDS[field]: content}).to_bytes()
    start = time.perf_counter()
    assert peak_of(lambda: refused(data)) < 4 * len(data) + (1 << 20)
    assert time.perf_counter() - start < 1


def test_a_plane_of_the_largest_picture_is_refused_before_it_is_made() -> None:
    data = stream({FIELD_KINDS["alpha"]: zlib.compress(bytes(1000))}, 1 << 14, 1 << 14).to_bytes()
    assert peak_of(lambda: refused(data)) < 1 << 20


@pytest.mark.parametrize(
    "table",
    [b"", b"\0", b"\1", b"\1\1\0\0\0", b"\1\0\0\0\0\0", b"\2\1\0\0\0\0\1\0\0\0\0", b"\2\2\0\0\0\0\1\0\0\0\0",
     b"\1\1\xff\xff\xff\xff", b"\1\1\1\0\0\0", b"\1\1\0\0\0\0x", b"\xff" * 40],
)  # fmt: skip
def test_tables_of_nonsense(table: bytes) -> None:
    """Behind the strings of a file of version 2, with a checksum that fits."""
    body = stream({}).to_bytes()[:-4]
    body = body[:4] + b"\2" + body[5:] + table
    refused(body + struct.pack("<I", zlib.crc32(body)))


@pytest.mark.parametrize("kind", KINDS)
def test_flipped_bits_of_contents(kind: int) -> None:
    """With a checksum that fits: accepted as other contents, or refused; nothing else."""
    rng, valid = np.random.default_rng(kind), to_fields(FULL, HEIGHT, WIDTH)
    if kind not in valid:
        pytest.skip("not a field of a picture")
    for _ in range(200):
        altered = bytearray(valid[kind])
        altered[rng.integers(len(altered))] ^= 1 << int(rng.integers(8))
        try:
            from_fields(Bitstream.from_bytes(stream({**valid, kind: bytes(altered)}).to_bytes()))
        except BitstreamError as error:
            assert "\n" not in str(error)
