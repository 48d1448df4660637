"""Round trips of arbitrary tables, symbols and weights."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from licquant.codec.entropy.coder import decode_symbols, encode_symbols
from licquant.codec.entropy.tables import CodingTables
from licquant.codec.files.weights import pack_integers, unpack_integers

INT32 = st.integers(-(2**31), 2**31 - 1)


@st.composite
def coding_tables(draw: st.DrawFn) -> CodingTables:
    pmfs, offsets = [], []
    for _ in range(draw(st.integers(1, 5))):
        weights = draw(st.lists(st.integers(0, 1000), min_size=1, max_size=40))
        weights[0] += 1
        mass = draw(st.sampled_from([1.0, 0.999, 0.5, 1e-6]))
        pmfs.append(np.array(weights) / sum(weights) * mass)
        offsets.append(draw(st.integers(-50, 10) | st.just(-(2**31)) | st.just(2**31 - len(weights))))
    return CodingTables.from_probabilities(pmfs, offsets)


@settings(max_examples=100, deadline=None)
@given(coding_tables(), st.lists(st.tuples(st.integers(-60, 60) | INT32, st.integers(0, 4)), max_size=200))
def test_any_symbols_survive_any_tables(tables, pairs):
    symbols = np.array([s for s, _ in pairs], np.int32)
    index = np.array([k % len(tables) for _, k in pairs], np.uint8)
    data = encode_symbols(symbols, index, tables)
    assert np.array_equal(decode_symbols(data, index, CodingTables.from_bytes(tables.to_bytes())), symbols)
    # 2^-24 resolution and the coder's state of at most 64 bits
    assert 8 * len(data) <= tables.symbol_bits(symbols, index).sum() * 1.001 + 72


@settings(max_examples=50, deadline=None)
@given(coding_tables())
def test_any_tables_survive_storage(tables):
    again = CodingTables.from_bytes(tables.to_bytes())
    assert all(np.array_equal(getattr(again, n), getattr(tables, n)) for n in ("frequencies", "lengths", "offsets"))


@settings(max_examples=150, deadline=None)
@given(
    st.data(),
    st.integers(2, 16),
    st.sampled_from([(), (0,), (1,), (7,), (50,), (6, 9), (4, 3, 3, 3), (40, 40)]),
)
def test_any_weights_survive(data, bits, shape):
    limit = 2 ** (bits - 1) - 1
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    span = data.draw(st.integers(0, limit))
    values = rng.integers(-span, span + 1, shape) * (rng.random(shape) < data.draw(st.sampled_from([1.0, 0.1])))
    if values.ndim > 1:
        values[::2] //= 16  # rows of a different spread
    packed = pack_integers(values, bits)
    assert len(packed) <= 7 + -(-values.size * bits // 8)
    assert np.array_equal(unpack_integers(packed, values.shape, bits), values)
