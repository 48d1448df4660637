"""What both exact engines share, against its definition in Python's whole numbers and fractions."""

from fractions import Fraction
from math import floor, isqrt

import numpy as np
import pytest

from licquant.program.ops import Gdn
from licquant.program.reference import gdn_output, gdn_squares
from tests.program_strategies import random_part


def half_up(value: Fraction) -> int:
    return floor(value + Fraction(1, 2))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("bits", [2, 8, 16])
def test_both_ends_of_gdn(seed: int, bits: int) -> None:
    operations = [op for op in random_part(seed, bits, 8).operations if isinstance(op, Gdn)]
    assert {op.inverse for op in operations} == {False, True}
    rng = np.random.default_rng(seed)
    for op in operations:
        channels, limit = len(op.gamma), 1 << bits
        q = rng.integers(-limit + 1, limit, (channels, 4, 5))
        norm = rng.integers(0, 1 << int(rng.integers(1, 35)), q.shape)
        squares, output = gdn_squares(op, q), gdn_output(op, q, norm)
        for (c, i, j), value in np.ndenumerate(q):
            x, root = int(value), isqrt(max(int(norm[c, i, j]), 1) << 16)
            u = half_up(Fraction(x * x * int(op.square_multiplier[c]), 1 << int(op.square_shift[c])))
            assert squares[c, i, j] == min(u, (1 << op.square_bits) - 1)
            scaled = Fraction(x * int(op.multiplier[c]), 1 << int(op.shift[c]))
            y = half_up(scaled * root / 2**8 if op.inverse else scaled * 2**24 / root)
            low, high = op.grid.range
            assert output[c, i, j] == min(max(y + int(op.grid.zero_point[c]), low), high)
