"""The integer contract: every range, rounding and multiplier of licquant, each formula in this one place.

    weights       b bits, signed, symmetric, narrow range   [-(2^(b-1) - 1), 2^(b-1) - 1]
    activations   b bits, unsigned                          [0, 2^b - 1], value = scale · (q - zero_point)
    fixed point   32 bits, signed, zero point 0             [-(2^31 - 1), 2^31 - 1], value = q · 2^-k
    rounding      floor(v + 1/2), everywhere
    rescaling     y = (acc · m + 2^(s-1)) >> s              |m| < 2^16, 1 <= s <= 46
    nested        w' = (w + 2^(d-1)) >> d, clamped          b' bits inside b bits, d = b - b'

Everything works on integers, in NumPy's int64, so the result cannot depend on the machine.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from licquant.config import MAX_BITS as MAX_BITS
from licquant.config import MIN_BITS as MIN_BITS
from licquant.errors import LoweringError

Ints = NDArray[np.integer]
Floats = NDArray[np.floating]
Handed = NDArray[Any]  # stored integers on their way from engine to engine: as integers, or as floats not yet rounded

FIXED_POINT_BITS = 32
MULTIPLIER_BITS = 16  # |m| < 2^16
MAX_SHIFT = 46
# acc · m must stay below 2^62; accumulators of layers up to 8 × 8 bits stay below 2^31 (design §3), wider
# layers may use up to this.
MAX_ACCUMULATOR = 1 << 46
MAX_NORM = 1 << 35  # of a GDN: its root is taken of n · 2^16
INT32_MAX = (1 << 31) - 1


def weight_range(bits: int) -> tuple[int, int]:
    """(lowest, highest) weight integer: ±(2^(b-1) - 1); 8 bits: (-127, 127)."""
    high = (1 << (bits - 1)) - 1
    return -high, high


def weight_type(bits: int) -> type[np.integer[Any]]:
    """What holds weights of 2 to 16 bits: int8 or int16, as a model's weights are most of what a codec keeps.

    Nothing may be added to them in it: 127 + 1 wraps around.
    """
    return np.int8 if bits <= 8 else np.int16


def nested_weight(weight: Ints, bits: int, narrower: int) -> Ints:
    """The integers of ``narrower`` bits inside those of ``bits`` (2 <= narrower <= bits): rounded half up, clamped.

    They count steps of 2^(bits - narrower). ``weight_type`` of either; equal widths change nothing.
    """
    if narrower == bits:
        return weight
    drop = bits - narrower
    rounded = (weight.astype(np.int32) + (1 << (drop - 1))) >> drop
    return np.clip(rounded, *weight_range(narrower)).astype(weight_type(narrower))


def activation_range(bits: int) -> tuple[int, int]:
    """(lowest, highest) stored integer: (0, 2^b - 1) for b in 2..16, ±(2^31 - 1) for fixed point (b = 32)."""
    if bits == FIXED_POINT_BITS:
        return -INT32_MAX, INT32_MAX
    return 0, (1 << bits) - 1


def lies_within(values: NDArray[Any], low: float, high: float) -> bool:
    """Whether all values lie in low..high: by comparing, as |v| of the lowest integer of a type wraps around."""
    return bool((values >= low).all() and (values <= high).all())


def as_int32(values: Ints) -> Ints:
    """int32; what lies beyond ±(2^31 - 1) ends there instead of wrapping around."""
    return np.clip(values, -INT32_MAX, INT32_MAX).astype(np.int32)


def largest_sum(weight: Ints, magnitude: Ints, bias: Ints) -> int:
    """max_o Σ_k |weight[..., o, k]| · magnitude[..., k] + |bias[..., o]|, whatever its size.

    In float64, where nothing wraps around: the terms are not negative, so that below 2^53 every partial sum is an
    integer that float64 holds, and the result is exact; beyond, it is far too large for any accumulator anyway.
    """
    size = weight.astype(np.float64)
    sums = (np.abs(size, out=size) @ magnitude.astype(np.float64)[..., None])[..., 0]
    return int((sums + abs(bias.astype(np.float64))).max())


def round_half_up(value: ArrayLike) -> Floats:
    """floor(v + 1/2), elementwise on floats; ties go up: 0.5 → 1, -0.5 → 0."""
    return np.floor(np.asarray(value, dtype=np.float64) + 0.5)


def dyadic(ratio: ArrayLike) -> tuple[Ints, Ints]:
    """(m, s), int64 each, with m · 2^-s the nearest to ``ratio`` (≥ 0) that has m < 2^16 and 1 <= s <= 46.

    The relative error is at most 2^-16 while 2^-30 <= ratio < 2^15; smaller ratios keep the shift 46 and
    lose digits, which is harmless: such a channel is constant. Raises ``LoweringError`` for a ratio that is
    negative, not finite or too large.
    """
    bits = MULTIPLIER_BITS
    ratio = np.atleast_1d(np.asarray(ratio, dtype=np.float64))
    if not np.isfinite(ratio).all() or (ratio < 0).any() or (ratio >= 2.0 ** (bits - 1) - 0.5).any():
        raise LoweringError(f"a rescaling ratio lies outside [0, 2^{bits - 1}): {ratio.min()} to {ratio.max()}")
    _, exponent = np.frexp(ratio)  # ratio = f · 2^exponent, 1/2 <= f < 1
    shift = np.clip(bits - exponent, 1, MAX_SHIFT)
    multiplier = round_half_up(np.ldexp(ratio, shift))
    carry = multiplier >= 2.0**bits  # f rounded up to 1
    shift = np.where(carry, shift - 1, shift)
    multiplier = np.where(carry, 2.0 ** (bits - 1), multiplier)
    return multiplier.astype(np.int64), shift.astype(np.int64)


def rescale(acc: Ints, multiplier: Ints, shift: Ints) -> Ints:
    """(acc · m + 2^(s-1)) >> s in int64: acc · m · 2^-s, rounded half up. The arguments broadcast.

    |acc| < 2^46, |m| < 2^16, 1 <= s <= 46.
    """
    product = acc.astype(np.int64) * multiplier
    return (product + (np.int64(1) << (shift - 1))) >> shift


def rescale_product(q: Ints, n: Ints, multiplier: Ints, shift: Ints) -> Ints:
    """(q · n · m + 2^(s-1)) >> s in int64, though the product may have 68 bits: n is taken apart at bit 10.

    |q| < 2^17, 0 <= n < 2^35, 0 <= m < 2^16, 11 <= s <= 56. The lowest 10 bits of the sum cannot reach the result.
    """
    scaled = q.astype(np.int64) * multiplier
    upper = scaled * (n >> 10) + ((scaled * (n & 1023)) >> 10)
    return (upper + (np.int64(1) << (shift - 11))) >> (shift - 10)


def integer_sqrt(value: Ints) -> Ints:
    """floor(√v), exactly, for 0 <= v < 2^52 (int64).

    The float64 root of such an integer is off by less than one unit, on any IEEE machine; one integer
    comparison each way removes even that.
    """
    root = np.sqrt(value.astype(np.float64)).astype(np.int64)
    root = np.where(root * root > value, root - 1, root)
    return np.where((root + 1) * (root + 1) <= value, root + 1, root)


def divide_half_up(numerator: Ints, denominator: Ints) -> Ints:
    """floor(n/d + 1/2) in int64, d > 0; |n|, d < 2^61."""
    return (2 * numerator + denominator) // (2 * denominator)
