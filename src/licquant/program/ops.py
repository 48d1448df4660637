"""The operations of an integer program, and the bound of each one's accumulator.

Every operation reads stored integers of its input grids, centres them (q - zero_point; padding is therefore
0), sums in integers, and writes stored integers of its output grid:

    y = clamp(rescale(acc) + zero_point)            rescale: arithmetic.py

The shapes and ranges of what each holds stand in the table of ``fields.py``; ``check`` is about the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from licquant.errors import LoweringError
from licquant.program.arithmetic import (
    MAX_ACCUMULATOR,
    MAX_BITS,
    MAX_NORM,
    MAX_SHIFT,
    MULTIPLIER_BITS,
    Floats,
    Ints,
    activation_range,
    dyadic,
    largest_sum,
    lies_within,
    rescale,
    round_half_up,
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

    MULTIPLIERS: ClassVar[tuple[int, int]] = (0, (1 << MULTIPLIER_BITS) - 1)
    SHIFTS: ClassVar[tuple[int, int]] = (1, MAX_SHIFT)

    def __post_init__(self) -> None:
        largest = self.MULTIPLIERS[1]
        if not (self.positive.ndim == 1 and self.positive.shape == self.negative.shape == self.shift.shape):
            raise LoweringError("a rescaling needs the same number of multipliers and shifts")
        if not (lies_within(self.positive, 0, largest) and lies_within(self.negative, -largest, largest)):
            raise LoweringError("a rescaling multiplier lies outside its 16 bits")
        if not lies_within(self.shift, *self.SHIFTS):
            raise LoweringError(f"a rescaling shift lies outside 1..{MAX_SHIFT}")

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
        """Whether negative accumulators are multiplied as positive ones are."""
        return bool((self.positive == self.negative).all())

    @property
    def ratio(self) -> Floats:
        """What positive accumulators are multiplied by, float64[C], exactly."""
        ratio: Floats = np.ldexp(self.positive.astype(np.float64), -self.shift)
        return ratio

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
        """Raise ``LoweringError`` unless grids fit and the accumulator cannot overflow; ``fields.py`` holds already."""
        bound = self.bound(inputs)
        if bound >= MAX_ACCUMULATOR:
            raise LoweringError(f"{self.name}: its accumulator needs {bound.bit_length() + 1} bits; use fewer bits")


@dataclass(frozen=True, eq=False)
class Convolution(Operation):
    """acc = Σ w · (q - zero_point) + bias, then rescaled.

    weight: integers [O, I/groups, kh, kw] within weight_bits (``weight_type``); bias: int64[O] in accumulator units
    """

    weight: Ints
    weight_bits: int
    bias: Ints
    stride: int
    padding: int
    groups: int
    rescaling: Rescaling

    @property
    def kernel(self) -> tuple[int, int]:
        """(height, width)."""
        return self.weight.shape[2], self.weight.shape[3]

    def bound(self, inputs: Sequence[Grid]) -> int:
        """max over output channels of Σ|w| · max|q - zero_point| + |bias|."""
        outputs, (height, width) = len(self.weight) // self.groups, self.kernel
        weight = self.weight.reshape(self.groups, outputs, -1)
        magnitude = inputs[0].magnitude.repeat(height * width).reshape(self.groups, -1)
        return largest_sum(weight, magnitude, self.bias.reshape(self.groups, outputs))

    def output_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of the output for an input of that size."""
        height, width = ((n + 2 * self.padding - k) // self.stride + 1 for n, k in zip(size, self.kernel, strict=True))
        return height, width


@dataclass(frozen=True, eq=False)
class TransposedConvolution(Operation):
    """out[o·stride - padding + t] += w[t] · (q[o] - zero_point), + bias, then rescaled.

    weight: integers [I, O, kh, kw] (``weight_type``; groups 1); bias: int64[O]
    output size = (n-1)·stride - 2·padding + k + output_padding.
    """

    weight: Ints
    weight_bits: int
    bias: Ints
    stride: int
    padding: int
    output_padding: int
    rescaling: Rescaling

    @property
    def kernel(self) -> tuple[int, int]:
        """(height, width)."""
        return self.weight.shape[2], self.weight.shape[3]

    def bound(self, inputs: Sequence[Grid]) -> int:
        """All taps at once: more than any one output position gathers, so the bound holds for each."""
        weight = self.weight.swapaxes(0, 1).reshape(self.weight.shape[1], -1)
        return largest_sum(weight, inputs[0].magnitude.repeat(self.kernel[0] * self.kernel[1]), self.bias)

    def output_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(n - 1) · stride - 2 · padding + k + output_padding, for height and width."""
        height, width = (
            (n - 1) * self.stride - 2 * self.padding + k + self.output_padding
            for n, k in zip(size, self.kernel, strict=True)
        )
        return height, width

    def check(self, inputs: Sequence[Grid]) -> None:
        """As of every operation; the output padding must also be smaller than the stride."""
        if self.output_padding >= self.stride:
            raise LoweringError(f"{self.name}: its output padding is not smaller than its stride")
        super().check(inputs)


@dataclass(frozen=True, eq=False)
class Gdn(Operation):
    """Generalized divisive normalization (Ballé 2016), y = x / √(β + Σ γ x²), or its inverse, y = x · √(…).

    q = x - zero_point;  u = min((q² · k + 2^(t-1)) >> t, 2^b - 1);  n = max(β + Σ γ u, 1);  r = floor(√(n · 2^16))
    forward: y = round(q · m · 2^-s · 2^24 / r)      inverse: y = round(q · r · m · 2^-s · 2^-8)

    gamma: integers [C, C], >= 0, within weight_bits (``weight_type``)
    beta: int64[C], >= 0, in units of the norm's accumulator
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

    def bound(self, inputs: Sequence[Grid]) -> int:
        """β + Σ γ · the largest square: of the norm, which is this operation's accumulator."""
        squares = activation_range(self.square_bits)[1]
        return largest_sum(self.gamma, np.full(len(self.gamma), squares), self.beta)

    def check(self, inputs: Sequence[Grid]) -> None:
        """The norm must stay below 2^35, so that its root and products fit int64; γ must not be negative."""
        if inputs[0].channels != self.grid.channels or inputs[0].bits > MAX_BITS:
            raise LoweringError(f"{self.name}: its input does not fit")
        if (self.gamma < 0).any():
            raise LoweringError(f"{self.name}: its gamma is negative")
        # n · 2^16 must have an exact integer root, and q · r · m must stay below 2^62
        if self.bound(inputs) >= MAX_NORM:
            raise LoweringError(f"{self.name}: its norm needs more than 35 bits; use fewer bits")


@dataclass(frozen=True, eq=False)
class Gdn1(Gdn):
    """The first kind of GDN (Johnston 2019), y = x / (β + Σ γ |x|), or its inverse, y = x · (…).

    u = min((|q| · k + 2^(t-1)) >> t, 2^b - 1);  n = max(β + Σ γ u, 1)
    forward: y = round(q · m · 2^-s · 2^24 / n)     inverse: y = round(q · n · m · 2^-s · 2^-10)

    The fields are those of ``Gdn``, with magnitudes for squares.
    """


@dataclass(frozen=True, eq=False)
class Add(Operation):
    """acc = Σ_i m_i · (q_i - zero_point_i), then acc · 2^-s with ReLU or another knee (``rescaling``).

    multipliers: one int64[C] per input, >= 0: both inputs brought to one unit.
    """

    multipliers: tuple[Ints, ...]
    rescaling: Rescaling

    def bound(self, inputs: Sequence[Grid]) -> int:
        """Σ over the inputs of multiplier · max|q - zero_point|, at the channel where it is largest."""
        magnitude = np.stack([grid.magnitude for grid in inputs], axis=1)  # channels, inputs
        weight = np.stack(self.multipliers, axis=1)[:, None]
        return largest_sum(weight, magnitude, np.zeros((len(magnitude), 1), dtype=np.int64))

    def check(self, inputs: Sequence[Grid]) -> None:
        """As of every operation; all tensors must have the output's number of channels."""
        if {grid.channels for grid in inputs} != {self.grid.channels}:
            raise LoweringError(f"{self.name}: the tensors added do not fit")
        super().check(inputs)


@dataclass(frozen=True, eq=False)
class Requantize(Operation):
    """acc = q - zero_point, rescaled to another grid: a change of grid, an absolute value, a lone activation."""

    rescaling: Rescaling

    def bound(self, inputs: Sequence[Grid]) -> int:
        """max|q - zero_point|: the accumulator is the input itself."""
        return int(inputs[0].magnitude.max())

    def check(self, inputs: Sequence[Grid]) -> None:
        """As of every operation; the channels stay."""
        if inputs[0].channels != self.grid.channels:
            raise LoweringError(f"{self.name}: its input does not fit")
        super().check(inputs)


@dataclass(frozen=True, eq=False)
class Multiply(Operation):
    """acc = (q_0 - zero_point_0) · (q_1 - zero_point_1), rescaled to the output's grid: a gate."""

    rescaling: Rescaling

    def bound(self, inputs: Sequence[Grid]) -> int:
        """The largest product at one channel."""
        return int((inputs[0].magnitude * inputs[1].magnitude).max())

    def check(self, inputs: Sequence[Grid]) -> None:
        """As of every operation; channels must agree, and neither input be in fixed point."""
        if {grid.channels for grid in inputs} != {self.grid.channels}:
            raise LoweringError(f"{self.name}: the tensors multiplied do not fit")
        if max(grid.bits for grid in inputs) > MAX_BITS:
            raise LoweringError(f"{self.name}: fixed point is not multiplied")
        super().check(inputs)


@dataclass(frozen=True, eq=False)
class Sigmoid(Operation):
    """y = table[q], the same for all channels: 1 / (1 + e^-x), rounded to the output's grid when the table was made.

    table: int64[2^bits of the input], stored integer to stored integer
    """

    table: Ints

    def bound(self, inputs: Sequence[Grid]) -> int:
        """max|q - zero_point|: the accumulator is the input itself."""
        return int(inputs[0].magnitude.max())

    def check(self, inputs: Sequence[Grid]) -> None:
        """As of every operation; the channels stay, and the table's values lie in the output's range."""
        if inputs[0].channels != self.grid.channels:
            raise LoweringError(f"{self.name}: its input does not fit")
        if not lies_within(self.table, *self.grid.range):
            raise LoweringError(f"{self.name}: its table does not fit its output")
        super().check(inputs)


@dataclass(frozen=True, eq=False)
class PixelShuffle(Operation):
    """[C · factor², H, W] to [C, factor · H, factor · W]: nothing is computed, so both have one grid.

    Channel c·factor² + i·factor + j holds the pixels of row i and column j modulo the factor (Shi 2016).
    """

    factor: int

    def output_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Both sides ``factor`` times as long."""
        return size[0] * self.factor, size[1] * self.factor

    def bound(self, inputs: Sequence[Grid]) -> int:
        """max|q - zero_point|: values only move."""
        return int(inputs[0].magnitude.max())

    def check(self, inputs: Sequence[Grid]) -> None:
        """The output has a factor²-th of the channels, and their bits and zero points."""
        if inputs[0].channels != self.grid.channels * self.factor**2:
            raise LoweringError(f"{self.name}: its channels do not fit")
        repeated = self.grid.zero_point.repeat(self.factor**2)
        if inputs[0].bits != self.grid.bits or not np.array_equal(inputs[0].zero_point, repeated):
            raise LoweringError(f"{self.name}: a pixel shuffle cannot change the grid")

    def apply(self, x: NDArray[Any]) -> NDArray[Any]:
        """The tensor moved, any dtype."""
        channels, height, width = x.shape
        r = self.factor
        blocks = x.reshape(channels // r**2, r, r, height, width).transpose(0, 3, 1, 4, 2)
        return blocks.reshape(channels // r**2, height * r, width * r)
