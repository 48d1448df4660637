"""The operations of an integer program, and the bound of each one's accumulator.

Every operation reads stored integers of its input grids, centres them (q - zero_point; padding is therefore
0), sums in integers, and writes stored integers of its output grid:

    y = clamp(rescale(acc) + zero_point)            rescale: arithmetic.py
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from licquant.errors import LoweringError
from licquant.program.arithmetic import (
    MAX_ACCUMULATOR,
    MAX_BITS,
    MAX_SHIFT,
    MIN_BITS,
    MULTIPLIER_BITS,
    Floats,
    Ints,
    activation_range,
    dyadic,
    rescale,
    round_half_up,
    weight_range,
)
from licquant.program.grid import Grid

MAX_FACTOR = 64  # of a pixel shuffle


@dataclass(frozen=True, eq=False)
class Rescaling:
    """acc → acc · m · 2^-s per channel, with its own multiplier for negative accumulators.

    The two multipliers are a piecewise linear function with its knee at 0:
    identity (equal), ReLU (negative 0), leaky ReLU (negative smaller), absolute value (negative = -positive).

    positive, negative: int64[C], 0 <= positive < 2^16, |negative| < 2^16
    shift:              int64[C], 1..46
    """

    positive: Ints
    negative: Ints
    shift: Ints

    def __post_init__(self) -> None:
        limit = 1 << MULTIPLIER_BITS
        if not (self.positive.ndim == 1 and self.positive.shape == self.negative.shape == self.shift.shape):
            raise LoweringError("a rescaling needs the same number of multipliers and shifts")
        if (self.positive < 0).any() or (self.positive >= limit).any() or (abs(self.negative) >= limit).any():
            raise LoweringError("a rescaling multiplier lies outside its 16 bits")
        if (self.shift < 1).any() or (self.shift > MAX_SHIFT).any():
            raise LoweringError("a rescaling shift lies outside 1..46")

    @classmethod
    def of_ratio(cls, ratio: Floats, negative_slope: float = 1.0) -> Rescaling:
        """acc · ratio[c], and for negative accumulators ``negative_slope`` times that; |negative_slope| <= 1.

        Raises ``LoweringError`` for ratios that no multiplier and shift express.
        """
        positive, shift = dyadic(ratio)
        if negative_slope in (-1, 0, 1):  # repeats the multiplier, so that nothing is rounded twice
            return cls(positive, int(negative_slope) * positive, shift)
        if abs(negative_slope) > 1:
            raise LoweringError(f"an activation function with the slope {negative_slope} for negative values")
        negative = round_half_up(np.ldexp(ratio * negative_slope, shift)).astype(np.int64)
        return cls(positive, negative, shift)

    @property
    def linear(self) -> bool:
        return bool((self.positive == self.negative).all())

    def apply(self, acc: Ints, grid: Grid) -> Ints:
        """Accumulators [C, H, W] to stored integers of ``grid``, int64."""
        per_channel = (slice(None), None, None)
        multiplier = self.positive[per_channel]
        if not self.linear:
            multiplier = np.where(acc < 0, self.negative[per_channel], multiplier)
        y = rescale(acc, multiplier, self.shift[per_channel]) + grid.zero_point[per_channel]
        return np.clip(y, *activation_range(grid.bits))


@dataclass(frozen=True, eq=False)
class Operation:
    """What all operations share: a name (the layer's path), the tensors read, and the grid of the one written.

    The tensor written has the operation's own name.
    """

    name: str
    inputs: tuple[str, ...]
    grid: Grid

    def output_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of the output for an input of that size."""
        return size

    def bound(self, inputs: Sequence[Grid]) -> int:
        """Largest |accumulator| that any input of these grids can give, partial sums in any order included."""
        raise NotImplementedError

    def check(self, inputs: Sequence[Grid]) -> None:
        """Raise ``LoweringError`` unless channels fit and the accumulator cannot overflow."""
        bound = self.bound(inputs)
        if bound >= MAX_ACCUMULATOR:
            raise LoweringError(f"{self.name}: its accumulator needs {bound.bit_length() + 1} bits; use fewer bits")


@dataclass(frozen=True, eq=False)
class Convolution(Operation):
    """acc = Σ w · (q - zero_point) + bias, then rescaled.

    weight: int32[O, I/groups, kh, kw] within weight_bits; bias: int64[O] in accumulator units.
    """

    weight: Ints
    weight_bits: int
    bias: Ints
    stride: int
    padding: int
    groups: int
    rescaling: Rescaling

    @property
    def input_channels(self) -> int:
        return self.weight.shape[1] * self.groups

    @property
    def kernel(self) -> tuple[int, int]:
        return self.weight.shape[2], self.weight.shape[3]

    def bound(self, inputs: Sequence[Grid]) -> int:
        return int((self._products(inputs[0]).sum(axis=(1, 2, 3)) + abs(self.bias)).max())

    def output_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of the output for an input of that size."""
        height, width = ((n + 2 * self.padding - k) // self.stride + 1 for n, k in zip(size, self.kernel, strict=True))
        return height, width

    def _products(self, grid: Grid) -> Ints:
        """|w| · max|q - zero_point|, [O, I/groups, kh, kw]."""
        magnitude = grid.magnitude.reshape(self.groups, -1).repeat(len(self.weight) // self.groups, axis=0)
        return abs(self.weight.astype(np.int64)) * magnitude[:, :, None, None]

    def check(self, inputs: Sequence[Grid]) -> None:
        _check_weights(self, inputs[0], self.input_channels, len(self.weight))
        super().check(inputs)


@dataclass(frozen=True, eq=False)
class TransposedConvolution(Operation):
    """out[o·stride - padding + t] += w[t] · (q[o] - zero_point), + bias, then rescaled.

    weight: int32[I, O, kh, kw] (groups 1); bias: int64[O]; output size = (n-1)·stride - 2·padding + k +
    output_padding.
    """

    weight: Ints
    weight_bits: int
    bias: Ints
    stride: int
    padding: int
    output_padding: int
    rescaling: Rescaling

    @property
    def input_channels(self) -> int:
        return self.weight.shape[0]

    @property
    def kernel(self) -> tuple[int, int]:
        return self.weight.shape[2], self.weight.shape[3]

    def bound(self, inputs: Sequence[Grid]) -> int:
        """All taps at once: more than any one output position gathers, so the bound holds for each."""
        products = abs(self.weight.astype(np.int64)) * inputs[0].magnitude[:, None, None, None]
        return int((products.sum(axis=(0, 2, 3)) + abs(self.bias)).max())

    def output_size(self, size: tuple[int, int]) -> tuple[int, int]:
        height, width = (
            (n - 1) * self.stride - 2 * self.padding + k + self.output_padding
            for n, k in zip(size, self.kernel, strict=True)
        )
        return height, width

    def check(self, inputs: Sequence[Grid]) -> None:
        _check_weights(self, inputs[0], self.input_channels, self.weight.shape[1])
        super().check(inputs)


@dataclass(frozen=True, eq=False)
class Gdn(Operation):
    """Generalized divisive normalization (Ballé 2016), y = x / √(β + Σ γ x²), or its inverse, y = x · √(…).

    q = x - zero_point;  u = min((q² · k + 2^(t-1)) >> t, 2^b - 1);  n = max(β + Σ γ u, 1);  r = floor(√(n · 2^16))
    forward: y = round(q · m · 2^-s · 2^24 / r)      inverse: y = round(q · r · m · 2^-s · 2^-8)

    gamma: int32[C, C], >= 0, within weight_bits; beta: int64[C], >= 0, in units of the norm's accumulator
    square_bits: b, the width of the squares u, which the matrix product reads; the input may be wider
    square_multiplier k, square_shift t; multiplier m, shift s: int64[C] each, as in ``Rescaling``
    """

    gamma: Ints
    weight_bits: int
    beta: Ints
    square_bits: int
    square_multiplier: Ints
    square_shift: Ints
    multiplier: Ints
    shift: Ints
    inverse: bool

    @property
    def input_channels(self) -> int:
        return self.gamma.shape[1]

    def bound(self, inputs: Sequence[Grid]) -> int:
        squares = activation_range(self.square_bits)[1]
        return int((self.gamma.astype(np.int64).sum(axis=1) * squares + self.beta).max())

    def check(self, inputs: Sequence[Grid]) -> None:
        channels = len(self.gamma)
        shapes = {self.beta.shape, self.square_multiplier.shape, self.multiplier.shape}
        if self.gamma.shape != (channels, channels) or shapes != {(channels,)} or self.grid.channels != channels:
            raise LoweringError(f"{self.name}: the shapes of a GDN's tensors do not fit")
        if inputs[0].channels != channels or inputs[0].bits > MAX_BITS or not MIN_BITS <= self.square_bits <= MAX_BITS:
            raise LoweringError(f"{self.name}: its input does not fit")
        if (self.gamma < 0).any() or (self.gamma > weight_range(self.weight_bits)[1]).any() or (self.beta < 0).any():
            raise LoweringError(f"{self.name}: gamma or beta is out of range")
        for multiplier, shift in ((self.square_multiplier, self.square_shift), (self.multiplier, self.shift)):
            Rescaling(multiplier, multiplier, shift)  # the same limits
        # n · 2^16 must have an exact integer root, and q · r · m must stay below 2^62
        if self.bound(inputs) >= 1 << 35:
            raise LoweringError(f"{self.name}: its norm needs more than 35 bits; use fewer bits")


@dataclass(frozen=True, eq=False)
class Add(Operation):
    """acc = Σ_i m_i · (q_i - zero_point_i), then acc · 2^-s with ReLU or another knee (``rescaling``).

    multipliers: one int64[C] per input, >= 0: both inputs brought to one unit.
    """

    multipliers: tuple[Ints, ...]
    rescaling: Rescaling

    def bound(self, inputs: Sequence[Grid]) -> int:
        terms = [m * grid.magnitude for m, grid in zip(self.multipliers, inputs, strict=True)]
        return int(np.sum(terms, axis=0).max())

    def check(self, inputs: Sequence[Grid]) -> None:
        if len(self.multipliers) != len(inputs) or len(inputs) < 2:
            raise LoweringError(f"{self.name}: an addition needs one multiplier per input")
        channels = {grid.channels for grid in inputs} | {len(m) for m in self.multipliers}
        if channels != {self.grid.channels} or any((m < 0).any() for m in self.multipliers):
            raise LoweringError(f"{self.name}: the tensors added do not fit")
        _check_rescaling(self, self.rescaling)
        super().check(inputs)


@dataclass(frozen=True, eq=False)
class Requantize(Operation):
    """acc = q - zero_point, rescaled to another grid: a change of grid, an absolute value, a lone activation."""

    rescaling: Rescaling

    def bound(self, inputs: Sequence[Grid]) -> int:
        return int(inputs[0].magnitude.max())

    def check(self, inputs: Sequence[Grid]) -> None:
        if inputs[0].channels != self.grid.channels:
            raise LoweringError(f"{self.name}: its input does not fit")
        _check_rescaling(self, self.rescaling)
        super().check(inputs)


@dataclass(frozen=True, eq=False)
class Multiply(Operation):
    """acc = (q_0 - zero_point_0) · (q_1 - zero_point_1), rescaled to the output's grid: a gate."""

    rescaling: Rescaling

    def bound(self, inputs: Sequence[Grid]) -> int:
        return int((inputs[0].magnitude * inputs[1].magnitude).max())

    def check(self, inputs: Sequence[Grid]) -> None:
        if len(inputs) != 2 or {grid.channels for grid in inputs} != {self.grid.channels}:
            raise LoweringError(f"{self.name}: the tensors multiplied do not fit")
        if max(grid.bits for grid in inputs) > MAX_BITS:
            raise LoweringError(f"{self.name}: fixed point is not multiplied")
        _check_rescaling(self, self.rescaling)
        super().check(inputs)


@dataclass(frozen=True, eq=False)
class Sigmoid(Operation):
    """y = table[q], the same for all channels: 1 / (1 + e^-x), rounded to the output's grid when the table was made.

    table: int64[2^bits of the input], stored integer to stored integer
    """

    table: Ints

    def bound(self, inputs: Sequence[Grid]) -> int:
        return int(inputs[0].magnitude.max())

    def check(self, inputs: Sequence[Grid]) -> None:
        if inputs[0].channels != self.grid.channels or inputs[0].bits > MAX_BITS:
            raise LoweringError(f"{self.name}: its input does not fit")
        low, high = self.grid.range
        if self.table.shape != (1 << inputs[0].bits,) or (self.table < low).any() or (self.table > high).any():
            raise LoweringError(f"{self.name}: its table does not fit its input or its output")
        super().check(inputs)


@dataclass(frozen=True, eq=False)
class PixelShuffle(Operation):
    """[C · factor², H, W] to [C, factor · H, factor · W]: nothing is computed, so both have one grid.

    Channel c·factor² + i·factor + j holds the pixels of row i and column j modulo the factor (Shi 2016).
    """

    factor: int

    def output_size(self, size: tuple[int, int]) -> tuple[int, int]:
        return size[0] * self.factor, size[1] * self.factor

    def bound(self, inputs: Sequence[Grid]) -> int:
        return int(inputs[0].magnitude.max())

    def check(self, inputs: Sequence[Grid]) -> None:
        if not 1 <= self.factor <= MAX_FACTOR:
            raise LoweringError(f"{self.name}: a pixel shuffle by {self.factor}")
        repeated = self.grid.zero_point.repeat(self.factor**2)
        if inputs[0].bits != self.grid.bits or not np.array_equal(inputs[0].zero_point, repeated):
            raise LoweringError(f"{self.name}: a pixel shuffle cannot change the grid")

    def apply(self, x: NDArray[Any]) -> NDArray[Any]:
        """The tensor moved, any dtype."""
        channels, height, width = x.shape
        r = self.factor
        blocks = x.reshape(channels // r**2, r, r, height, width).transpose(0, 3, 1, 4, 2)
        return blocks.reshape(channels // r**2, height * r, width * r)


def _check_rescaling(op: Operation, rescaling: Rescaling) -> None:
    if len(rescaling.shift) != op.grid.channels:
        raise LoweringError(f"{op.name}: its rescaling does not fit its output")


def _check_weights(
    op: Convolution | TransposedConvolution, grid: Grid, input_channels: int, output_channels: int
) -> None:
    low, high = weight_range(op.weight_bits)
    if op.weight.ndim != 4 or not op.weight.size:
        raise LoweringError(f"{op.name}: its weights need four dimensions")
    if grid.channels != input_channels or {op.grid.channels, len(op.bias)} != {output_channels}:
        raise LoweringError(f"{op.name}: its channels do not fit")
    if (op.weight < low).any() or (op.weight > high).any():
        raise LoweringError(f"{op.name}: a weight lies outside its {op.weight_bits} bits")
    if op.stride < 1 or op.padding < 0:
        raise LoweringError(f"{op.name}: its stride or padding is out of range")
    _check_rescaling(op, op.rescaling)
