"""Hand-computed vectors and whole ranges: an oracle that shares no code with the implementation."""

from fractions import Fraction
from math import floor, isqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from licquant.errors import LoweringError
from licquant.program import arithmetic as a


@pytest.mark.parametrize(("bits", "expected"), [(2, (-1, 1)), (4, (-7, 7)), (8, (-127, 127)), (16, (-32767, 32767))])
def test_weight_range_is_symmetric_and_narrow(bits, expected):
    assert a.weight_range(bits) == expected


@pytest.mark.parametrize(("bits", "expected"), [(2, (0, 3)), (8, (0, 255)), (16, (0, 65535))])
def test_activation_range_is_unsigned(bits, expected):
    assert a.activation_range(bits) == expected


def test_fixed_point_is_signed_32_bit():
    assert a.activation_range(32) == (-(2**31 - 1), 2**31 - 1)


@pytest.mark.parametrize(("value", "expected"), [(0.5, 1), (-0.5, 0), (1.5, 2), (-1.5, -1), (2.4999, 2), (-2.5001, -3)])
def test_ties_go_up(value, expected):
    assert a.round_half_up(value) == expected


@pytest.mark.parametrize(
    ("acc", "m", "s", "expected"), [(3, 1, 1, 2), (-3, 1, 1, -1), (5, 3, 2, 4), (-5, 3, 2, -4), (100, 40000, 20, 4)]
)
def test_rescale_by_hand(acc, m, s, expected):
    # 3/2 → 2, -3/2 → -1, 15/4 → 4, -15/4 → -4, 3.81 → 4
    assert a.rescale(np.array([acc]), np.array([m]), np.array([s])) == expected


@given(st.integers(-(2**45), 2**45), st.integers(-65535, 65535), st.integers(1, 46))
def test_rescale_is_the_rounded_exact_product(acc, m, s):
    exact = floor(Fraction(acc * m, 2**s) + Fraction(1, 2))
    assert a.rescale(np.array([acc]), np.array([m]), np.array([s]))[0] == exact


@given(st.floats(2.0**-30, 2.0**14))
def test_dyadic_is_within_one_part_in_2_to_the_16(ratio):
    m, s = a.dyadic(ratio)
    assert 0 < m[0] < 2**16
    assert 1 <= s[0] <= 46
    assert abs(m[0] * 2.0 ** -float(s[0]) - ratio) <= ratio * 2.0**-16


def test_dyadic_of_zero_is_zero():
    assert a.dyadic(0.0)[0] == 0


@pytest.mark.parametrize("ratio", [-1.0, np.nan, np.inf, 2.0**15])
def test_dyadic_refuses_what_it_cannot_express(ratio):
    with pytest.raises(LoweringError):
        a.dyadic(ratio)


@given(st.integers(0, 2**52 - 1))
def test_integer_sqrt_is_exact(value):
    assert a.integer_sqrt(np.array([value]))[0] == isqrt(value)


def test_integer_sqrt_beside_every_large_square():
    roots = np.arange(2**26 - 3000, 2**26 - 1, dtype=np.int64)
    for delta in (-1, 0, 1):
        found = a.integer_sqrt(roots * roots + delta)
        assert (found == roots - (delta < 0)).all()


@given(st.integers(-(2**40), 2**40), st.integers(1, 2**40))
def test_divide_half_up(n, d):
    assert a.divide_half_up(np.array([n]), np.array([d]))[0] == floor(Fraction(n, d) + Fraction(1, 2))
