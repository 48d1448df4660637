"""What a coded image can cost in memory: stated, held to, and refused before it is taken."""

import math
import os
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from functools import partial
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from licquant.codec.codec import Codec, load
from licquant.codec.files.artifact import Artifact
from licquant.codec.files.bitstream import MAX_SIDE, Bitstream
from licquant.codec.files.blobs import BASE_ELEMENTS
from licquant.codec.latents import families
from licquant.codec.memory import MAX_MEMORY
from licquant.config import LayerBits, Plan
from licquant.errors import BitstreamError, ImageError
from licquant.images.picture import MAX_PIXELS
from licquant.program.arithmetic import weight_range
from licquant.program.part import Part, Program
from tests.fuzz.altered_models import FEW_SEEDS, SEEDS, coded, is_one_line, seed
from tests.latent_programs import random_latents, random_program, random_tables

ROOT = Path(__file__).parents[2]
ASSETS = sorted(Path(str(files("licquant"))).glob("assets/*.licq"))
BYTES_PER_ELEMENT = 48  # of a model that is loaded, as ``blobs.py`` says
LARGEST_READ = math.isqrt(MAX_PIXELS)  # a side

only_linux = pytest.mark.skipif(sys.platform != "linux", reason="limits the address space by what /proc says")


def codec_of(name: str, **limits: int) -> Codec:
    return Codec(Artifact.from_bytes(seed(name)), bytes(8), "exact", 1, **limits)


def squares(height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    small = rng.integers(0, 256, (-(-height // 16), -(-width // 16), 3)).astype(np.uint8)
    return np.ascontiguousarray(small.repeat(16, 0).repeat(16, 1)[:height, :width])


def peak_of(work) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", SEEDS)
def test_coding_takes_no_more_than_is_said(name):
    codec, rgb = codec_of(name), squares(500, 300)
    found = codec.encode(rgb)
    assert peak_of(lambda: codec.encode(rgb)) <= codec.memory(500, 300, encode=True)
    assert peak_of(lambda: codec.decode(found)) <= codec.memory(500, 300)


@pytest.mark.parametrize("density", [0.0, 0.01, 1.0])
@pytest.mark.parametrize("bits", [2, 16])
def test_a_model_takes_no_more_than_so_much_for_each_element(density, bits):
    """One layer with almost all the elements that are allowed, from weights that take no bytes to ones that fill them.

    density: how many are not 0, in the last channel; in the first ones fewer, so that they have several histograms
    """
    program, channels = random_program(families.FACTORIZED, m=120), 120
    g_a, rng = program["g_a"], np.random.default_rng(0)
    (op,) = g_a.operations
    there = rng.random((channels, 3, 64, 64)) < density * np.geomspace(0.01, 1, channels)[:, None, None, None]
    low, high = weight_range(bits)
    weight = (there * rng.integers(low, high + 1, there.shape)).astype(np.int32)
    large = replace(op, weight=weight, weight_bits=bits, padding=24)
    program = Program({**program, "g_a": Part("g_a", g_a.input_grid, (large,))})
    plan, tables = Plan({"g_a.0": LayerBits(8, 8)}), random_tables(program, families.FACTORIZED, 9)
    data = Artifact(families.FACTORIZED, program, tables, plan).to_bytes()
    assert weight.size > BASE_ELEMENTS * 0.7
    peak = peak_of(lambda: Codec(Artifact.from_bytes(data), bytes(8), "exact", 1))
    assert peak < BYTES_PER_ELEMENT * weight.size


@pytest.mark.parametrize("family", families.FAMILIES)
def test_what_grows_is_what_is_said(family):
    """A larger plane of latents takes no more bytes for each further pixel than said, its pixels' own included."""
    codec = codec_of(family)
    program, peaks, stated = codec.artifact.program, [], []
    for width in (4, 16):
        y, z = random_latents(program, (8, width))
        found, size = codec.coder.encode(y, z), z.shape[1:] if "h_s" in program else y.shape[1:]
        peaks.append(peak_of(lambda found=found, size=size: codec.coder.decode(found, size)) + 6 * 512 * 64 * width)
        stated.append(codec.memory(512, 64 * width))
    assert peaks[1] - peaks[0] <= stated[1] - stated[0]
    assert peaks[1] <= stated[1]


def test_what_grows_with_a_wide_model_is_what_is_said():
    """An embedded model's tensors outgrow ``_WORK``, which hides what the small ones take for each element."""
    codec, peaks, stated = load(ASSETS[0], engine="exact", threads=1), [], []
    for side in (64, 192):
        rgb = squares(side, side)
        found = codec.encode(rgb)
        works = partial(codec.encode, rgb), partial(codec.decode, found)
        peaks.append([peak_of(work) for work in works])
        stated.append([codec.memory(side, side, encode=encode) for encode in (True, False)])
    for one, other, of_one, of_other in zip(*peaks, *stated, strict=True):
        assert other - one <= of_other - of_one


@pytest.mark.parametrize("engine", ["openvino", "exact"])
@pytest.mark.parametrize("path", [ASSETS[0], *(pytest.param(path, marks=pytest.mark.slow) for path in ASSETS[1:])])
def test_what_can_be_read_can_be_coded(path, engine):
    """No image file of a legal size meets the limit with the embedded models."""
    codec = load(path, engine=engine)
    for size in ((1, 1), (3000, 4000), (LARGEST_READ, LARGEST_READ), (1365 * 64, 1024), (64, MAX_SIDE)):
        assert codec.memory(*size) <= MAX_MEMORY
    codec = load(path)
    assert codec._needed(codec._regions(LARGEST_READ, LARGEST_READ), True) <= MAX_MEMORY


def test_what_is_encoded_is_decoded():
    """With any limit: what decoding would refuse is refused by encoding, on either engine."""
    rgb = squares(200, 200)
    codec = codec_of("scale-hyperprior")
    needed = codec._needed(codec._regions(200, 200), True)
    found = codec_of("scale-hyperprior", max_memory=needed).encode(rgb)
    for engine in ("exact", "openvino"):
        codec = Codec(Artifact.from_bytes(seed("scale-hyperprior")), bytes(8), engine, 1, needed)
        assert codec.decode(found).shape == rgb.shape
    with pytest.raises(ImageError, match=r"200×200 pixels takes up to 0\.\d GB .* allowed") as caught:
        codec_of("scale-hyperprior", max_memory=needed - 1).encode(rgb)
    assert is_one_line(caught.value)


@pytest.mark.parametrize("name", SEEDS)
def test_claimed_sizes_take_no_memory(name):
    """A file of 165 kB that claims the largest of all images."""
    codec, valid = codec_of(name), coded(name)
    junk = np.random.default_rng(0).bytes(165_000 // len(valid.strings))
    for side in (1 << 14, 3 << 12, 1 << 12):
        data = Bitstream(bytes(8), side, side, tuple(junk for _ in valid.strings)).to_bytes()

        def refused(data: bytes = data) -> None:
            with pytest.raises(BitstreamError) as caught:
                codec.decode(data)
            assert is_one_line(caught.value)

        assert peak_of(refused) < 40_000_000


@pytest.mark.parametrize("name", FEW_SEEDS)
def test_altered_images(name):
    """Every field of a coded image at its edges, with a checksum that fits."""
    codec, valid = codec_of(name), coded(name)
    sides = sorted({1, 2, 3, 15, 16, 17, 63, 64, 65, 127, 128, 129, 1023, 1024, 1025, MAX_SIDE - 1, MAX_SIDE})
    sizes = [(width, height) for width in sides for height in sides if width * height <= 1 << 28]
    contents = [valid.strings, valid.strings[::-1], valid.strings * 2, valid.strings[:-1], (), (b"",) * 255]
    contents += [tuple(s[:-1] for s in valid.strings), tuple(s + b"\1" for s in valid.strings), (b"\1",), (b"", b"")]
    streams = [Bitstream(bytes(8), *size, valid.strings) for size in sizes]
    streams += [Bitstream(bytes(8), valid.width, valid.height, strings) for strings in contents]
    streams += [Bitstream(b"another!", valid.width, valid.height, valid.strings)]
    accepted = 0
    for stream in streams:
        try:
            assert codec.decode(stream.to_bytes()).shape == (stream.height, stream.width, 3)
            accepted += 1
        except BitstreamError as error:
            assert is_one_line(error)
    assert 1 <= accepted < len(streams) / 4


# --- in processes that have no more -------------------------------------------------------------------------

_SCRIPT = """
import resource, sys
from pathlib import Path
import numpy as np
import licquant
from licquant.codec.files.bitstream import Bitstream
from licquant.errors import LicquantError
codec = licquant.load(sys.argv[1], engine=sys.argv[2], threads=1)
codec.decode(codec.encode(np.zeros((64, 64, 3), np.uint8)))  # loads what is loaded late
width, height, junk, megabytes = map(int, sys.argv[3:])
if junk:
    strings = tuple(np.random.default_rng(0).bytes(junk // 2) for _ in range(2))
    data = Bitstream(codec.id, width, height, strings).to_bytes()
else:
    data = codec.encode(np.zeros((height, width, 3), np.uint8))
megabytes = megabytes or codec.memory(height, width) >> 20
if not junk:
    codec = licquant.load(sys.argv[1], engine=sys.argv[2], threads=1)
    codec.decode(codec.encode(np.zeros((64, 64, 3), np.uint8)))
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + (megabytes << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    assert codec.decode(data).shape == (height, width, 3)
    sys.stdout.write("decoded")
except LicquantError as error:
    sys.stdout.write(f"{type(error).__name__}: {error}")
"""


def said(engine: str, width: int, height: int, junk: int, megabytes: int) -> str:
    """What decoding says in so much memory beside the loaded model; junk: bytes, or 0 for a black image.

    megabytes: 0 for what the codec itself says
    """
    arguments = [str(ASSETS[0]), engine, *map(str, (width, height, junk, megabytes))]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", _SCRIPT, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@only_linux
def test_the_largest_claim_in_little_memory():
    assert "more than the 8.6 GB that are allowed" in said("openvino", 1 << 14, 1 << 14, 165_000, 48)


@only_linux
def test_too_little_memory_for_a_legal_size_is_said():
    found = said("exact", 9000, 9000, 165_000, 48)
    assert found.startswith("BitstreamError")
    assert "there is not as much" in found


@only_linux
@pytest.mark.slow
def test_a_large_black_image_in_the_memory_that_is_said():
    assert said("openvino", 4000, 3000, 0, 0) == "decoded"
