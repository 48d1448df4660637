"""Large pictures, with "large" made small: regions together are what the whole is, and hostile ones are refused."""

import struct

import numpy as np
import pytest

from licquant.codec import regions
from licquant.codec.codec import Codec
from licquant.codec.files.artifact import Artifact
from licquant.codec.files.bitstream import FIELD_KINDS, Bitstream
from licquant.codec.regions import EdgePadded, Regions
from licquant.errors import BitstreamError, ImageError
from licquant.images import pad_to_multiple
from tests.fuzz.altered_models import SEEDS, seed

FIELD = FIELD_KINDS["regions"]
SIDE = 128


@pytest.fixture
def small_regions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regions, "WHOLE_PIXELS", 1 << 14)
    monkeypatch.setattr(regions, "SIDE", SIDE)
    monkeypatch.setattr(regions, "MIN_SIDE", SIDE)


def codec_of(name: str) -> Codec:
    return Codec(Artifact.from_bytes(seed(name)), bytes(8), "exact", 1)


def scene(height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    small = rng.integers(0, 256, (-(-height // 16), -(-width // 16), 3)).astype(np.uint8)
    return np.ascontiguousarray(small.repeat(16, 0).repeat(16, 1)[:height, :width])


@pytest.mark.parametrize("name", SEEDS)
@pytest.mark.parametrize("size", [(200, 140), (128, 129), (65, 300)])
@pytest.mark.usefixtures("small_regions")
def test_regions_are_coded_as_pictures_are_and_transformed_as_one(name: str, size: tuple[int, int]) -> None:
    codec, rgb = codec_of(name), scene(*size)
    data = codec.encode(rgb)
    stream, latents, found = Bitstream.from_bytes(data), codec.analyse(rgb), codec.decode_symbols(data)
    assert FIELD in stream.fields
    assert np.array_equal(found.y, latents.y)
    assert np.array_equal(found.z, latents.z)
    assert np.array_equal(codec.decode(data), codec.synthesise(latents.y, *size))
    stride = codec.stride
    wanted = -(-size[0] // stride) * stride, -(-size[1] // stride) * stride
    assert (found.y.shape[1] * codec._strides[0], found.y.shape[2] * codec._strides[0]) == wanted
    assert 8 * sum(map(len, stream.strings)) < codec.entropy_bits(latents) * 1.02 + 8 * 16 * len(stream.strings) * 9


@pytest.mark.parametrize("name", SEEDS)
def test_y_is_that_of_the_whole(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No seams: what g_a makes does not depend on the regions."""
    codec, rgb = codec_of(name), scene(300, 170)
    whole, widths = codec._analysed(rgb)
    monkeypatch.setattr(regions, "WHOLE_PIXELS", 0)
    divided, same_widths = codec._analysed(rgb)
    assert np.array_equal(whole, divided)
    assert widths == same_widths


def test_a_picture_of_the_limit_is_one_region() -> None:
    strides = 16, 64
    assert regions.regions_for((64, 64), strides).side == 0  # 4096 × 4096 pixels
    assert regions.regions_for((64, 65), strides).side == 32
    assert len(regions.regions_for((192, 255), strides)) == 6 * 8


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (64, 65), (130, 3)])
def test_padding_where_it_is_asked_for_is_the_padding_of_all(size: tuple[int, int]) -> None:
    rgb = scene(*size)
    whole = np.moveaxis(pad_to_multiple(rgb, 64), -1, 0)
    lazy = EdgePadded(rgb, 64)
    assert lazy.shape == whole.shape
    assert np.array_equal(lazy[:, :, :], whole)
    assert np.array_equal(lazy[:, 30:64, 1:60], whole[:, 30:64, 1:60])


def test_regions_cover_every_position_once() -> None:
    for size, side in (((5, 7), 3), ((4, 4), 2), ((1, 9), 4), ((3, 3), 0)):
        divided, counts = Regions(size, side, 4), np.zeros(size, int)
        for rows, columns in divided:
            counts[rows, columns] += 1
        assert (counts == 1).all()
        assert len(divided) == len(list(divided))


def altered(data: bytes, content: bytes | None = None, strings: tuple[bytes, ...] | None = None) -> bytes:
    stream = Bitstream.from_bytes(data)
    fields = {**stream.fields, **({} if content is None else {FIELD: content})}
    return Bitstream(stream.artifact_id, stream.width, stream.height, strings or stream.strings, fields).to_bytes()


@pytest.mark.usefixtures("small_regions")
def test_hostile_regions_are_refused() -> None:
    codec = codec_of("scale-hyperprior")
    data = codec.encode(scene(300, 170))
    stream = Bitstream.from_bytes(data)
    valid = stream.fields[FIELD]
    side, lengths = valid[:4], list(struct.unpack(f"<{len(valid) // 4 - 1}I", valid[4:]))
    moved = [lengths[0] + 4, lengths[1], lengths[2] - 4, *lengths[3:]]
    wrapped = [lengths[0] + (1 << 32) - 8 & 0xFFFFFFFF, *lengths[1:]]
    hostile = [
        b"", b"\1", side, valid[:-1], valid + b"\0", valid + bytes(4), valid[:4],
        *(struct.pack("<I", n) + valid[4:] for n in (0, 1, 64, 65, 127, 192, 256, 1 << 20, 0xFFFFFFFF, 1 << 31)),
        side + struct.pack(f"<{len(lengths)}I", *moved), side + struct.pack(f"<{len(lengths)}I", *wrapped),
        side + struct.pack(f"<{len(lengths)}I", *[0xFFFFFFFF] * len(lengths)), side + bytes(4 * len(lengths)),
    ]  # fmt: skip
    for content in hostile:
        with pytest.raises(BitstreamError) as caught:
            codec.decode(altered(data, content))
        assert "\n" not in str(caught.value)
    longer = (stream.strings[0] + b"x", stream.strings[1])
    for strings in (stream.strings[::-1], stream.strings[:1], stream.strings * 2, longer):
        with pytest.raises(BitstreamError):
            codec.decode(altered(data, strings=strings))
    whole = Bitstream(stream.artifact_id, stream.width, stream.height, stream.strings).to_bytes()
    with pytest.raises(BitstreamError):
        codec.decode(whole)


def test_sizes_that_no_coded_image_has_are_refused_at_once() -> None:
    codec = codec_of("scale-hyperprior")
    for shape in ((8, 2_000_000, 3), (2_000_000, 8, 3), (1 << 15, 1 << 14, 3)):
        rgb = np.lib.stride_tricks.as_strided(np.zeros(3, np.uint8), shape, (0, 0, 1))
        with pytest.raises(ImageError, match="can be coded; cut it into tiles"):
            codec.encode(rgb)
