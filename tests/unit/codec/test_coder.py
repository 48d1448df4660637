"""The coder: exact models, rate, escapes, refusals."""

from itertools import pairwise

import numpy as np
import pytest

from licquant.codec.entropy.ans import AnsCoder, coder_to_bytes, frequency_model, new_coder, push_bits
from licquant.codec.entropy.coder import SymbolDecoder, decode_symbols, encode_groups, encode_symbols
from licquant.codec.entropy.tables import ESCAPE_CLASSES, CodingTables, gaussian_pmfs
from licquant.errors import BitstreamError

SCALES = np.exp(np.linspace(np.log(0.11), np.log(256), 64)).tolist()


@pytest.fixture(scope="module")
def gaussians() -> CodingTables:
    return CodingTables.from_probabilities(*gaussian_pmfs(SCALES))


def _sample(tables: CodingTables, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """n symbols drawn from the integer tables themselves, escapes as values just outside."""
    rng = np.random.default_rng(seed)
    index = rng.integers(0, len(tables), n).astype(np.uint8)
    symbols = np.empty(n, np.int32)
    for k in range(len(tables)):
        chosen = index == k
        slots = rng.choice(tables.lengths[k] + 1, int(chosen.sum()), p=tables.table(k) / 65536)
        symbols[chosen] = tables.offsets[k] + slots
    return symbols, index


@pytest.mark.parametrize("k", [0, 20, 63])
def test_the_models_intervals_follow_from_the_integers_alone(gaussians, k):
    """Pins constriction's rounding: a release that changed it would change every file's meaning."""
    table = gaussians.table(k).astype(np.int64)
    below = np.cumsum(table) - table
    expected = ((below * (2**24 - table.size)) >> 16) + np.arange(table.size)
    for slot in range(0, table.size, max(1, table.size // 100)):
        coder = AnsCoder()
        coder.encode_reverse(np.array([slot], np.int32), frequency_model(table))
        assert coder.pos() == (0, int(expected[slot]))  # an empty coder's state becomes the interval's start


def test_rate_is_within_a_twentieth_of_a_percent_of_ideal(gaussians):
    symbols, index = _sample(gaussians, 100_000, 1)
    data = encode_symbols(symbols, index, gaussians)
    ideal = gaussians.symbol_bits(symbols, index).sum()
    assert np.array_equal(decode_symbols(data, index, gaussians), symbols)
    assert abs(8 * len(data) / ideal - 1) < 5e-4


def test_any_int32_survives(gaussians):
    edge = [-(2**31), 2**31 - 1, 0, 1, -1, 2**30, -(2**16), 5, -5]
    symbols = np.array(edge * 64, np.int32)
    index = np.repeat(np.arange(64), len(edge))
    data = encode_symbols(symbols, index, gaussians)
    assert np.array_equal(decode_symbols(data, index, gaussians), symbols)
    assert 8 * len(data) == pytest.approx(gaussians.symbol_bits(symbols, index).sum(), abs=40)


@pytest.mark.parametrize("offset", [-(2**31), 2**31 - 2, 0])
def test_tables_at_the_edges_of_int32(offset):
    tables = CodingTables(np.array([30000, 30000, 5536]), np.array([2]), np.array([offset]))
    symbols = np.array([offset, offset + 1, -(2**31), 2**31 - 1, 0, -1], np.int32)
    index = np.zeros(6, np.uint16)
    assert np.array_equal(decode_symbols(encode_symbols(symbols, index, tables), index, tables), symbols)


def test_equal_cheap_symbols_take_a_few_bytes():
    tables = CodingTables(np.array([65535, 1]), np.array([1]), np.array([0]))
    index = np.zeros(300_000, np.uint8)
    data = encode_symbols(np.zeros(index.size, np.int32), index, tables)
    assert len(data) <= 4
    assert encode_symbols(np.zeros(0, np.int32), index[:0], tables) == b""
    assert decode_symbols(b"", index[:0], tables).size == 0


def test_groups_are_read_one_by_one(gaussians):
    symbols, index = _sample(gaussians, 5000, 2)
    symbols[::50] += 10_000  # escapes in every group
    cuts = [0, 1, 1, 700, 701, 5000]
    groups = [(symbols[a:b], index[a:b]) for a, b in pairwise(cuts)]
    decoder = SymbolDecoder(encode_groups(groups, gaussians), gaussians)
    for values, names in groups:
        assert np.array_equal(decoder.decode(names), values)
    decoder.finish()


def test_payload_does_not_depend_on_the_index_dtype(gaussians):
    symbols, index = _sample(gaussians, 1000, 3)
    payloads = {encode_symbols(symbols, index.astype(t), gaussians) for t in ("u1", "u2", "i4", "i8", ">i4")}
    assert len(payloads) == 1


def test_damaged_payloads_are_refused(gaussians):
    symbols, index = _sample(gaussians, 2000, 4)
    data = encode_symbols(symbols, index, gaussians)
    for bad in (data[:-1], data[:-4], data[4:], data + b"\x01", data + b"\0", data + data, b"", b"\0"):
        with pytest.raises(BitstreamError):
            decode_symbols(bad, index, gaussians)
    with pytest.raises(BitstreamError):
        decode_symbols(data, index[:-1], gaussians)


@pytest.mark.parametrize("slot", [0, 1])
def test_popping_too_much_is_noticed(slot):
    """A stack popped beyond its bottom must not look finished, even where all pops give the first slot."""
    tables = CodingTables(np.array([65530, 5, 1]), np.array([2]), np.array([0]))
    index = np.zeros(50, np.uint8)
    data = encode_symbols(np.full(50, slot, np.int32), index, tables)
    for extra in (1, 2, 1000):
        with pytest.raises(BitstreamError):
            decode_symbols(data, np.zeros(50 + extra, np.uint8), tables)
        with pytest.raises(BitstreamError):
            decode_symbols(b"", np.zeros(extra, np.uint8), tables)


def test_a_decoded_value_beyond_int32_is_refused():
    """A hand-made stack whose escape lies 2^32 - 1 beyond a range that ends near the top of int32."""
    tables = CodingTables(np.array([65535, 1]), np.array([1]), np.array([2**31 - 10]))
    coder = new_coder()
    push_bits(coder, np.array([0]), 33)
    coder.encode_reverse(np.array([32], np.int32), frequency_model(ESCAPE_CLASSES))
    coder.encode_reverse(np.array([1], np.int32), tables.model(0))
    with pytest.raises(BitstreamError, match="int32"):
        decode_symbols(coder_to_bytes(coder), np.zeros(1, np.uint8), tables)


def test_callers_mistakes_are_value_errors(gaussians):
    zero = np.zeros(3, np.int32)
    for symbols, index in [
        (zero, np.array([0, 1, 64])),
        (zero, np.array([0, 1, -1])),
        (zero, np.array([0, 1, 64], np.uint8)),
        (zero, np.zeros(2, np.uint8)),
        (zero, np.zeros(3)),
        (zero.astype(np.int64), np.zeros(3, np.uint8)),
    ]:
        with pytest.raises(ValueError):
            encode_symbols(symbols, index, gaussians)
