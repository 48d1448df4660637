"""Each parser fed with truncated, mutated and random bytes: only its declared error is a legal failure."""

import contextlib
import functools
import time
import tracemalloc
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from licquant.codec.entropy.coder import decode_symbols, encode_symbols
from licquant.codec.entropy.rice import pack_rice, unpack_rice
from licquant.codec.entropy.tables import CodingTables, gaussian_pmfs
from licquant.codec.files.bitstream import Bitstream
from licquant.codec.files.weights import pack_integers, unpack_integers
from licquant.codec.latents.families import LatentCoder, latent_coder
from licquant.errors import ArtifactError, BitstreamError, LicquantError
from licquant.program.part import Program
from tests.latent_programs import FAMILIES, random_latents, random_program, random_tables

ROUNDS = 400
_rng = np.random.default_rng(7)
_TABLES = CodingTables.from_probabilities(*gaussian_pmfs([0.2, 1.0, 5.0, 30.0]))
_INDEX = _rng.integers(0, 4, 500).astype(np.uint8)
_SYMBOLS = (_rng.standard_normal(500) * np.array([0.3, 1, 6, 60])[_INDEX]).astype(np.int32)
_WEIGHTS = (_rng.standard_normal((40, 30, 9)) * np.exp(_rng.uniform(0, 3, (40, 1, 1)))).astype(np.int32)


def _latent(family: str) -> Callable[[bytes], object]:
    """Decoding of a y string of a random program, with the z that belongs to it."""
    _, coder, strings, size = _coded(family)
    return lambda d: coder.decode((*strings[:-1], d), size)


@functools.cache
def _coded(family: str) -> tuple[Program, LatentCoder, tuple[bytes, ...], tuple[int, int]]:
    program = random_program(family)
    coder = latent_coder(family, program, random_tables(program, family))
    y, z = random_latents(program, (1, 1))
    return program, coder, coder.encode(y, z), (1, 1) if "h_s" in program else y.shape[1:]


Case = tuple[Callable[[bytes], object], bytes, type[LicquantError]]
CASES: dict[str, Case] = {
    "payload": (
        lambda d: decode_symbols(d, _INDEX, _TABLES),
        encode_symbols(_SYMBOLS, _INDEX, _TABLES),
        BitstreamError,
    ),
    "tables": (CodingTables.from_bytes, _TABLES.to_bytes(), ArtifactError),
    "container": (
        Bitstream.from_bytes,
        Bitstream(b"8 bytes!", 9, 9, (b"abc", b"de")).to_bytes(),
        BitstreamError,
    ),
    "classes": (lambda d: unpack_integers(d, (40, 30, 9), 8), pack_integers(_WEIGHTS, 8), ArtifactError),
    "wide": (
        lambda d: unpack_integers(d, 900, 14),
        pack_integers(_WEIGHTS.ravel()[:900] * 37, 14),
        ArtifactError,
    ),
    **{family: (_latent(family), _coded(family)[2][-1], BitstreamError) for family in FAMILIES},
    "rice": (lambda d: unpack_rice(d, 300), pack_rice(np.abs(_SYMBOLS[:300])), ArtifactError),
}


def _mutations(seed: bytes) -> Iterator[bytes]:
    rng = np.random.default_rng(11)
    yield from (seed[:n] for n in sorted({*range(min(len(seed), 40)), len(seed) - 1, len(seed) // 2}))
    for _ in range(ROUNDS):
        data = bytearray(seed)
        for _ in range(int(rng.integers(1, 4))):
            # headers matter most: half of the hits land in the first 64 bytes
            reach = min(64, len(data)) if rng.random() < 0.5 else len(data)
            at = int(rng.integers(0, reach))
            match int(rng.integers(0, 4)):
                case 0:
                    data[at] ^= 1 << int(rng.integers(0, 8))
                case 1:
                    data[at] = int(rng.choice([0, 1, 0x7F, 0x80, 0xFF]))
                case 2:
                    del data[at : at + int(rng.integers(1, 9))]
                case 3:
                    data[at:at] = rng.bytes(int(rng.integers(1, 9)))
            if not data:
                break
        yield bytes(data)
    for n in rng.integers(0, 300, ROUNDS // 4):
        yield rng.bytes(int(n))


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_only_the_declared_error(name):
    parse, seed, declared = CASES[name]
    parse(seed)
    refused = 0
    for data in _mutations(seed):
        start = time.perf_counter()
        try:
            parse(data)
        except declared as error:
            refused += 1
            message = str(error)
        else:
            message = "accepted"
        assert message
        assert "\n" not in message
        assert time.perf_counter() - start < 2.0
    assert refused > ROUNDS // 4  # the mutations do reach what they should


@pytest.mark.parametrize("name", ["tables", "classes", "container"])
def test_memory_stays_bounded(name):
    parse, seed, declared = CASES[name]
    tracemalloc.start()
    for data in list(_mutations(seed))[::7]:
        with contextlib.suppress(declared):
            parse(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000_000


def test_a_payload_that_decodes_is_the_one_that_encodes_to_it():
    """No two payloads mean the same symbols, so damage is never absorbed silently."""
    for data in _mutations(CASES["payload"][1]):
        try:
            symbols = decode_symbols(data, _INDEX, _TABLES)
        except BitstreamError:
            continue
        assert encode_symbols(symbols, _INDEX, _TABLES) == data
