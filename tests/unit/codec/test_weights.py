"""Weight storage: lossless at every width, near the entropy, cheap where there is little to say."""

import numpy as np
import pytest

from licquant.codec.files.weights import pack_integers, unpack_integers
from licquant.errors import ArtifactError


def _entropy_bytes(values: np.ndarray) -> float:
    counts = np.unique(values, return_counts=True)[1]
    p = counts / counts.sum()
    return float(-(p * np.log2(p)).sum()) * values.size / 8


def _gaussian(shape, bits, fraction=5.0, seed=0):
    limit = 2 ** (bits - 1) - 1
    values = np.random.default_rng(seed).standard_normal(shape) * limit / fraction
    return np.clip(np.floor(values + 0.5), -limit, limit).astype(np.int32)


@pytest.mark.parametrize("bits", range(2, 17))
def test_every_value_of_the_grid_survives(bits):
    limit = 2 ** (bits - 1) - 1
    values = np.arange(-limit, limit + 1)
    again = unpack_integers(pack_integers(values, bits), values.size, bits)
    assert again.dtype == (np.int8 if bits <= 8 else np.int16)
    assert np.array_equal(again, values)


@pytest.mark.parametrize("bits", [2, 4, 6, 8, 10])
def test_rate_is_near_the_entropy(bits):
    values = _gaussian(100_000, bits)
    data = pack_integers(values, bits)
    assert np.array_equal(unpack_integers(data, values.shape, bits), values)
    assert len(data) < 1.005 * _entropy_bytes(values) + 64


@pytest.mark.parametrize("bits", [12, 14, 16])
def test_rate_of_wide_values_is_near_the_sources_entropy(bits):
    """The empirical entropy of few wide values is far below the source's; compare with the Gaussian's own."""
    values = _gaussian(100_000, bits)
    sigma = (2 ** (bits - 1) - 1) / 5.0
    source = 100_000 / 8 * (0.5 * np.log2(2 * np.pi * np.e) + np.log2(sigma))
    assert len(pack_integers(values, bits)) < 1.005 * source + 64


def test_little_to_say_takes_little():
    assert pack_integers(np.zeros(0, int), 8) == b""
    assert unpack_integers(b"", (0, 3), 8).shape == (0, 3)
    assert len(pack_integers(np.full((64, 64, 3, 3), -5), 8)) <= 12
    assert len(pack_integers(np.array([1, -2, 3]), 8)) <= 8
    assert len(pack_integers(np.array([100]), 16)) <= 7


def test_differing_spreads_are_used():
    """Rows, columns and kernel positions of their own spread: at least 4 % below the order-0 entropy."""
    rng = np.random.default_rng(1)
    spread = [np.exp(rng.uniform(0, 1.5, s)) for s in ((96, 1, 1, 1), (1, 64, 1, 1), (1, 1, 5, 5))]
    values = rng.standard_normal((96, 64, 5, 5)) * spread[0] * spread[1] * spread[2] * 1.5
    values = np.clip(np.floor(values + 0.5), -127, 127).astype(np.int32)
    data = pack_integers(values, 8)
    assert np.array_equal(unpack_integers(data, values.shape, 8), values)
    assert len(data) < 0.96 * _entropy_bytes(values)


def test_damaged_data_is_refused():
    values = _gaussian((32, 16, 3, 3), 8)
    data = pack_integers(values, 8)
    # Not every damage: a decoder can fall into step again, so the artifact's own hash is what guards it.
    for bad in (b"", data[:9], data[1:], data + b"\x01", data + b"\0", b"\x09" + data[1:]):
        with pytest.raises(ArtifactError):
            unpack_integers(bad, values.shape, 8)
    with pytest.raises(ArtifactError):
        unpack_integers(data, values.size + 1, 8)
    with pytest.raises(ArtifactError):
        unpack_integers(b"\x00", 0, 8)


def test_callers_mistakes_are_value_errors():
    for values, bits in (([128], 8), ([-128], 8), ([0.5], 8), ([0], 1), ([0], 17)):
        with pytest.raises(ValueError):
            pack_integers(np.array(values), bits)
