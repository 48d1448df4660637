"""Values that show how kernels round: elementwise ones, and those of layers whose results another layer reads as bytes.

Rounding the product before the sum changes about four of a million values by one: a single one of the encoder's
symbols, and pixels near it by ten levels. So such values are looked for, among all of 16 bits.
"""

from __future__ import annotations

import numpy as np

from licquant.program.arithmetic import MAX_BITS, Floats, Ints
from licquant.program.grid import Grid
from licquant.program.kernel_rounding import added, scale_and_shift
from licquant.program.ops import Convolution, Gdn, Rescaling
from licquant.program.part import INPUT, Part

_CHANNELS, _SIZE, _BITS = 32, 8, 8
_LARGEST_SUM, _UNIT, _SIDE = 16000, 127, 16
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


def byte_examples() -> tuple[Part, Ints, Ints]:
    """The same of a layer that another reads: its kernel rounds sum · scale + shift, with the zero point in the shift.

    With AMX kernels (OpenVINO 2026.4) round in another way, bytes in one of 250,000 values. The input has the
    sums where rounding the product alone, or product and sum at once, makes another byte, and others at random.
    """
    rng, zero_point = np.random.default_rng(5), 1 << (_BITS - 1)
    grid = Grid(_BITS, np.ones(_CHANNELS), np.full(_CHANNELS, zero_point))
    every = np.arange(-_LARGEST_SUM, _LARGEST_SUM)
    rescaling = Rescaling.of_ratio(rng.uniform(0.5, 1, _CHANNELS) * grid.range[1] / len(every))
    ratio, bias = rescaling.ratio, rng.integers(-300, 300, _CHANNELS)
    scale, shift = scale_and_shift(grid, ratio)[0][:, None], added(grid, ratio, stored=True)[:, None]
    x = (every + bias[:, None]).astype(np.float32)
    stored = _stored(x * scale + shift, grid)
    exact = x.astype(np.float64) * scale
    others = [_stored(np.rint(x * scale) + shift, grid), _stored((exact + shift).astype(np.float32), grid)]
    near = np.flatnonzero(np.logical_or.reduce([stored != other for other in others]).any(0))
    positions = np.resize(np.concatenate([near, rng.integers(0, len(every), _SIZE * _SIZE)]), (_SIDE, _SIDE))
    upper = np.clip(np.rint(every / _UNIT), -_UNIT, _UNIT).astype(np.int64)
    q = np.full((_CHANNELS, len(every)), zero_point)
    q[0], q[1] = upper + zero_point, every - _UNIT * upper + zero_point
    weight, same = np.zeros((_CHANNELS, _CHANNELS, 1, 1), dtype=np.int32), np.eye(_CHANNELS, dtype=np.int32)
    weight[:, 0], weight[:, 1] = _UNIT, 1
    one = Convolution("sums", (INPUT,), grid, weight, _BITS, bias, stride=1, padding=0, groups=1, rescaling=rescaling)
    none, out = np.zeros(_CHANNELS, dtype=np.int64), Grid.fixed_point(_CHANNELS, 0)
    plain = Rescaling.of_ratio(np.ones(_CHANNELS))
    reader = Convolution(
        "reader", ("sums",), out, same[:, :, None, None], _BITS, none, stride=1, padding=0, groups=1, rescaling=plain
    )
    return Part("self-test", grid, (one, reader)), q[:, positions], (stored - zero_point)[:, positions]


def _stored(sums: Floats, grid: Grid) -> Ints:
    low, high = grid.range
    return np.clip(np.rint(sums), low, high).astype(np.int64)
