"""The fast exact engine equals the slow reference, whatever the widths, sizes and zero points."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from licquant.program import exact, reference
from licquant.program.exact import ExactEngine, exact_product
from tests.program_strategies import gated_part, random_part

widths = st.integers(2, 16)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), widths, widths, st.integers(1, 9), st.integers(1, 9))
def test_equals_the_reference(seed, bits, weight_bits, height, width):
    part = random_part(seed, bits, weight_bits)
    q = np.random.default_rng(seed).integers(0, 1 << bits, (4, height, width))
    if min(part.output_size((height, width))) < 1:
        return
    np.testing.assert_array_equal(ExactEngine(part).run(q), reference.run(part, q))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), widths, widths, st.integers(1, 9), st.integers(1, 9))
def test_gates_and_pixel_shuffles_equal_the_reference(seed, bits, weight_bits, height, width):
    part = gated_part(seed, bits, weight_bits)
    q = np.random.default_rng(seed).integers(0, 1 << bits, (4, height, width))
    np.testing.assert_array_equal(ExactEngine(part).run(q), reference.run(part, q))


@pytest.mark.parametrize("magnitude", [255, 65535, 2**30])
@pytest.mark.parametrize("length", [1, 600, 3000])
def test_product_is_exact_at_its_largest(magnitude, length):
    """Every product at its extreme and of one sign: partial sums pass 2^24 wherever they may."""
    weight = np.full((3, length), 127, dtype=np.int64)
    x = np.full((length, 5), magnitude, dtype=np.int64)
    x[:, 1] = -magnitude
    x[::2, 2] *= -1
    x[0, 3] -= 1  # an odd sum, which a float32 beyond 2^24 cannot hold
    found = exact_product(weight, np.full(length, magnitude))(x)
    np.testing.assert_array_equal(found, np.einsum("ok,kp->op", weight, x))


@pytest.mark.parametrize("kind", [np.int16, np.int64])
def test_one_term_may_be_more_than_float32_holds(kind):
    """Where no piece, however short, stays below the limit, although all terms together are few."""
    weight, x = np.array([[-257, 1]], dtype=kind), np.array([[65535, 65533], [1, 3]])
    np.testing.assert_array_equal(exact_product(weight, np.array([65535, 3]))(x), weight.astype(np.int64) @ x)


def test_without_the_bound_float32_would_be_wrong(monkeypatch):
    """The check can fail: with the limit lifted the same product is not exact."""
    monkeypatch.setattr(exact, "FLOAT32_EXACT", 1 << 60)
    weight, x = np.full((1, 3000), 127), np.full((3000, 1), 65535)
    x[0] -= 1
    assert exact_product(weight, np.full(3000, 65535))(x) != weight @ x


def test_memory_blocks_do_not_change_the_result(monkeypatch):
    part = random_part(5, 8, 8)
    q = np.random.default_rng(0).integers(0, 256, (4, 21, 17))
    whole = ExactEngine(part).run(q)
    monkeypatch.setattr(exact, "BLOCK_VALUES", 64)
    np.testing.assert_array_equal(ExactEngine(part).run(q), whole)
