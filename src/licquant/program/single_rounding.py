"""Values that show whether elementwise kernels multiply and add with one rounding, as processors with FMA do.

Rounding the product before the sum changes about four of a million values by one: a single one of the encoder's
symbols, and pixels near it by ten levels. So such values are looked for, among all of 16 bits.
"""

from __future__ import annotations

import numpy as np

from licquant.program.arithmetic import MAX_BITS, Floats, Ints
from licquant.program.grid import Grid
from licquant.program.kernel_rounding import scale_and_shift
from licquant.program.ops import Gdn
from licquant.program.part import INPUT, Part

_CHANNELS, _SIZE, _BITS = 32, 8, 8
_SHIFT = 40  # so that the ratio is 1 / 512 to 1 / 256


def examples() -> tuple[Part, Ints, Ints]:
    """(a part that brings 16 bits to 8, its input [C, H, W], what one rounding gives).

    A GDN that divides by 1: such are the kernels that round to 8 bits after another operation.

    The input holds all values that two roundings make another of, as far as they have room, and some that they do not.
    """
    rng = np.random.default_rng(1)
    wide = Grid(MAX_BITS, np.ones(_CHANNELS), np.full(_CHANNELS, 1 << (MAX_BITS - 1)))
    grid = Grid(_BITS, np.ones(_CHANNELS), np.full(_CHANNELS, 1 << (_BITS - 1)))
    none, ones = np.zeros((_CHANNELS, _CHANNELS), dtype=np.int32), np.ones(_CHANNELS, dtype=np.int64)
    multiplier = rng.integers(1 << 15, 1 << 16, _CHANNELS)
    op = Gdn(
        "sums", (INPUT,), grid, none, _BITS, ones,
        square_bits=_BITS, square_multiplier=ones, square_shift=30 * ones,
        multiplier=multiplier, shift=_SHIFT * ones, inverse=False,
    )  # fmt: skip
    ratio = np.ldexp(multiplier.astype(np.float64), 16 - _SHIFT)
    scale, shift = (v[:, None].astype(np.float32) for v in scale_and_shift(grid, ratio))
    every = np.arange(1 << MAX_BITS)
    x = (every - wide.zero_point[0]).astype(np.float32)
    # Products of 24-bit numbers are exact in float64, and float32 sees nothing of what the sum loses there.
    once = _stored((x.astype(np.float64) * scale + shift).astype(np.float32), grid)
    differ = once != _stored(x * scale + shift, grid)
    q = rng.integers(0, len(every), (_CHANNELS, _SIZE * _SIZE))
    for channel, found in enumerate(differ):
        telling = np.flatnonzero(found)[: q.shape[1]]
        q[channel, : len(telling)] = telling
    expected = np.take_along_axis(once, q, axis=1)
    shape = (_CHANNELS, _SIZE, _SIZE)
    return Part("self-test", wide, (op,)), q.reshape(shape), expected.reshape(shape)


def _stored(sums: Floats, grid: Grid) -> Ints:
    low, high = grid.range
    return np.clip(np.rint(sums), low, high).astype(np.int64)
