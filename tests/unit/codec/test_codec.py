"""Whole images through the codec: every size, both engines, and the errors of damaged or hostile files."""

import struct
import zlib

import numpy as np
import pytest

from licquant.codec.codec import Codec, load
from licquant.codec.files.artifact import Artifact
from licquant.codec.files.bitstream import Bitstream
from licquant.codec.tiling import run_tiled
from licquant.errors import ArtifactError, BitstreamError, ImageError
from licquant.program.exact import ExactEngine
from licquant.quant.synthetic import dead_leaves


@pytest.mark.parametrize("size", [(1, 1), (1, 200), (63, 65), (64, 64), (130, 7), (129, 257)])
def test_any_size_survives(codec, size):
    rgb = np.resize(dead_leaves(1, 260)[0], (*size, 3)).astype(np.uint8)
    decoded = codec.decode(codec.encode(rgb))
    assert decoded.shape == rgb.shape
    assert decoded.dtype == np.uint8


@pytest.mark.parametrize("fixture", ["artifact_path", "hand_made_path"])
def test_every_latent_is_recovered(request, fixture, image):
    codec = load(request.getfixturevalue(fixture), threads=1)
    latents = codec.analyse(image)
    assert np.unique(latents.y).size > 2, "the model codes nothing: this test would prove nothing"
    decoded = codec.decode_symbols(codec.encode(image))
    np.testing.assert_array_equal(decoded.y, latents.y)
    np.testing.assert_array_equal(decoded.z, latents.z)


@pytest.mark.parametrize("extreme", [-(2**31) + 1, 2**31 - 1, 100_000 << 8])
def test_latents_far_outside_the_tables_survive(codec, image, extreme):
    latents = codec.analyse(image)
    y, z = latents.y.astype(np.int64) << 8, latents.z.copy()
    y[0, 0, 0], z[0, 0, 0] = extreme, extreme // 1000
    strings = codec.coder.encode(y, z)
    found_y, found_z = codec.coder.decode(strings, z.shape[1:])
    np.testing.assert_array_equal(found_y, (y + 128) >> 8)
    np.testing.assert_array_equal(found_z, z)


def test_exact_engine_decodes_the_same_symbols_and_almost_the_same_image(codec, artifact_path, image):
    exact = load(artifact_path, engine="exact")
    data = codec.encode(image)
    np.testing.assert_array_equal(exact.decode_symbols(data).y, codec.decode_symbols(data).y)
    assert abs(exact.decode(data).astype(int) - codec.decode(data).astype(int)).max() <= 3


def test_size_is_close_to_the_entropy(codec):
    rgb = dead_leaves(1, 256, seed=2)[0]
    data = codec.encode(rgb)
    assert len(data) * 8 <= codec.entropy_bits(codec.analyse(rgb)) * 1.005 + 8 * 64


def test_tiles_give_what_the_whole_gives(codec, image):
    program = codec.artifact.program
    for name, tile in (("g_a", 2), ("g_s", 40)):
        engine = ExactEngine(program[name])
        q = np.moveaxis(np.resize(image, (192, 128, 3)), -1, 0) if name == "g_a" else codec.analyse(image).y
        np.testing.assert_array_equal(run_tiled(engine.run, program[name], q, tile), engine.run(q))


def test_tiles_without_their_surroundings_would_differ(codec, image, monkeypatch):
    """The check above can fail."""
    from licquant.program.part import Part

    monkeypatch.setattr(Part, "receptive_field", lambda self, low, high: (low * 16, high * 16 + 15))
    part = codec.artifact.program["g_a"]
    q = np.moveaxis(np.resize(image, (192, 128, 3)), -1, 0)
    assert (run_tiled(ExactEngine(part).run, part, q, 2) != ExactEngine(part).run(q)).any()


@pytest.mark.parametrize(
    "rgb",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3)),
        np.zeros((0, 4, 3), np.uint8),
        "x",
    ],
)
def test_other_arrays_are_refused(codec, rgb):
    with pytest.raises(ImageError):
        codec.encode(rgb)


# --- damaged and hostile images -----------------------------------------------------------------------------


def test_truncated_at_every_length(codec, image):
    data = codec.encode(image)
    for length in range(len(data)):
        with pytest.raises(BitstreamError):
            codec.decode(data[:length])


def test_a_flipped_bit_anywhere(codec, image):
    data = codec.encode(image)
    for position in range(8 * len(data)):
        broken = bytearray(data)
        broken[position // 8] ^= 1 << position % 8
        with pytest.raises(BitstreamError):
            Bitstream.from_bytes(bytes(broken))


def resealed(data: bytearray) -> bytes:
    """The data with a checksum that fits: what an attacker would send."""
    return bytes(data[:-4]) + struct.pack("<I", zlib.crc32(bytes(data[:-4])))


def test_hostile_payloads_raise_nothing_else(codec, image):
    data = codec.encode(image)
    rng = np.random.default_rng(0)
    for _ in range(300):
        broken = bytearray(data)
        for position in rng.integers(22, len(data) - 4, 3):
            broken[position] = rng.integers(256)
        try:
            codec.decode(resealed(broken))
        except BitstreamError:
            pass


def test_claimed_sizes_are_refused_before_memory_is_spent(codec, image):
    stream = Bitstream.from_bytes(codec.encode(image))
    data = bytearray(stream.to_bytes())
    for width, height in ((2**31, 2**31), (2**20, 256), (16000, 16000)):
        data[13:21] = struct.pack("<II", width, height)
        with pytest.raises(BitstreamError):
            codec.decode(resealed(data))


def test_another_artifact_is_named(codec, hand_made_path, image):
    with pytest.raises(BitstreamError, match="another model"):
        load(hand_made_path).decode(codec.encode(image))


@pytest.mark.parametrize("data", [b"", b"\xff\xd8\xff\xe0 a JPEG", b"LICQ"])
def test_other_files(codec, data):
    with pytest.raises(BitstreamError):
        codec.decode(data)


# --- artifacts ----------------------------------------------------------------------------------------------


def test_artifact_round_trip(artifact_path):
    data = artifact_path.read_bytes()
    assert Artifact.from_bytes(data).to_bytes() == data


def test_damaged_artifacts(artifact_path, tmp_path):
    data = artifact_path.read_bytes()
    rng = np.random.default_rng(0)
    for length in [*range(60), *rng.integers(0, len(data), 40)]:
        with pytest.raises(ArtifactError):
            Artifact.from_bytes(data[:length])
    for position in rng.integers(0, len(data), 100):
        broken = bytearray(data)
        broken[position] ^= 0x10
        with pytest.raises(ArtifactError):
            Artifact.from_bytes(bytes(broken))
    (tmp_path / "x.licq").write_bytes(data[:-1])
    with pytest.raises(ArtifactError, match=r"x\.licq: damaged"):
        load(tmp_path / "x.licq")
    with pytest.raises(ArtifactError, match="cannot be read"):
        load(tmp_path / "missing.licq")


def test_two_loads_of_one_file_agree(artifact_path, image):
    one, two = load(artifact_path, threads=1), load(artifact_path, threads=2)
    np.testing.assert_array_equal(one.decode_symbols(one.encode(image)).y, two.decode_symbols(one.encode(image)).y)
    assert isinstance(two, Codec)
