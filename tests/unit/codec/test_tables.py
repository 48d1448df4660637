"""Coding tables: construction, rounding, storage."""

import numpy as np
import pytest

from licquant.codec.entropy.rice import pack_rice, unpack_rice, unzigzag, zigzag
from licquant.codec.entropy.tables import TOTAL, CodingTables, apportion, gaussian_pmfs
from licquant.errors import ArtifactError

SCALES = np.exp(np.linspace(np.log(0.11), np.log(256), 64)).tolist()


@pytest.fixture(scope="module")
def gaussians() -> CodingTables:
    return CodingTables.from_probabilities(*gaussian_pmfs(SCALES))


def test_apportion_by_hand():
    # 65536/3 = 21845.33: the first of the equal remainders gets the unit that is left
    assert apportion(np.array([1, 1, 1])).tolist() == [21846, 21845, 21845]
    assert apportion(np.array([1, 2])).tolist() == [21845, 43691]  # .33 and .67
    # zeros are lifted to 1, and the largest pays
    assert apportion(np.array([0, 5, 0, 0])).tolist() == [1, 65533, 1, 1]
    assert apportion(np.zeros(TOTAL, dtype=np.int64) + 7).tolist() == [1] * TOTAL
    assert apportion(np.r_[10**9, np.zeros(TOTAL - 1, dtype=np.int64)]).tolist() == [1] * TOTAL


def test_every_frequency_is_positive_and_each_table_sums_to_the_total(gaussians):
    for k in range(len(gaussians)):
        table = gaussians.table(k)
        assert table.size == gaussians.lengths[k] + 1
        assert int(table.min()) >= 1
        assert int(table.sum()) == TOTAL


def test_rounding_to_integers_costs_next_to_nothing(gaussians):
    pmfs, _ = gaussian_pmfs(SCALES)
    for k, pmf in enumerate(pmfs):
        p = np.append(pmf, 1.0 - pmf.sum())
        p, q = np.maximum(p, 1e-30), gaussians.table(k) / TOTAL
        divergence, entropy = float((p * np.log2(p / q)).sum()), -float((p * np.log2(p)).sum())
        assert divergence < 2e-4 + 2e-4 * entropy, f"table {k} loses {divergence} of {entropy} bits a symbol"


def test_gaussian_pmfs_cover_what_they_promise():
    (narrow, unit), offsets = gaussian_pmfs([0.11, 1.0], tail_mass=2.0**-15)
    assert offsets.tolist() == [-1, -4]
    assert narrow.size == 3
    assert 1.0 - unit.sum() <= 2.0**-15
    assert unit[4] == pytest.approx(0.3829249225480263, rel=1e-12)  # erf(0.5 / sqrt 2)


def test_stored_form_returns_the_same_integers_and_is_small(gaussians):
    data = gaussians.to_bytes()
    again = CodingTables.from_bytes(data)
    for name in ("frequencies", "lengths", "offsets"):
        a, b = getattr(gaussians, name), getattr(again, name)
        assert a.dtype == b.dtype
        assert np.array_equal(a, b)
    assert len(data) < 8000


def test_tables_cannot_be_changed(gaussians):
    with pytest.raises(ValueError):
        gaussians.frequencies[0] = 3


def test_bits_floor_and_entropy_by_hand():
    tables = CodingTables(np.array([49152, 16383, 1, 32768, 32768]), np.array([2, 1]), np.array([-1, 7]))
    assert tables.bits_floor() == pytest.approx([2 - np.log2(3), 1.0])
    # table 0: -1, then 100, escaped at d = 100 (class 6, 7 raw bits); table 1: 7, then 6 (d = 1)
    symbols, index = np.array([-1, 100, 7, 6], np.int32), np.array([0, 0, 1, 1], np.uint8)
    classes = np.floor([65536 / 4, 65536 * 0.75**6 / 4])  # a quarter of what is left, six classes further
    expected = 2 - np.log2(3) + 16 + (16 - np.log2(classes[1])) + 7 + 1 + 1 + 2 + 1
    assert tables.symbol_bits(symbols, index).sum() == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(
    ("frequencies", "lengths", "offsets"),
    [
        ([65535, 1], [1], [0, 0]),
        ([65535, 1], [0], [0]),
        ([65535, 1], [2], [0]),
        ([65536, 0], [1], [0]),
        ([65535, 2], [1], [0]),
        ([65534, 1, 65537, 1], [1, 1], [0, 0]),
        ([-1, 65537], [1], [0]),
        ([65534, 1, 1], [2], [2**31 - 1]),
        ([65535.0, 1.0], [1], [0]),
        ([], [], []),
    ],
)
def test_malformed_tables_are_refused(frequencies, lengths, offsets):
    with pytest.raises(ArtifactError):
        CodingTables(np.array(frequencies), np.array(lengths, int), np.array(offsets, int))


@pytest.mark.parametrize("pmf", [[0.0], [-0.1, 0.5], [np.nan], [0.9, 0.2], [], [[0.5, 0.5]], [np.inf]])
def test_what_is_no_probability_vector_is_refused(pmf):
    with pytest.raises(ArtifactError):
        CodingTables.from_probabilities([np.array(pmf)], [0])


def test_rice_by_hand():
    # k = 0: 0 -> "1", 2 -> "001"; bits fill bytes from the lowest
    assert pack_rice(np.array([0, 2])) == bytes([0, 0b1001])
    assert unpack_rice(bytes([0, 0b1001, 99]), 2)[0].tolist() == [0, 2]
    assert unpack_rice(bytes([0, 0b1001, 99]), 2)[1] == 2
    assert zigzag(np.array([0, -1, 1, -2, 2])).tolist() == [0, 1, 2, 3, 4]
    assert unzigzag(np.arange(5)).tolist() == [0, -1, 1, -2, 2]


@pytest.mark.parametrize("data", [b"", b"\x00", b"\x00\x00", b"\x21\xff", b"\x00\x01\xff", b"\x00\x19"])
def test_malformed_rice_is_refused(data):
    with pytest.raises(ArtifactError):
        unpack_rice(data, 2)


def test_a_claimed_count_takes_no_memory():
    with pytest.raises(ArtifactError):
        unpack_rice(bytes(100), 2**60)
