"""What the integers of a tensor mean."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from licquant.errors import LoweringError
from licquant.program.arithmetic import (
    FIXED_POINT_BITS,
    MAX_BITS,
    MIN_BITS,
    Floats,
    Ints,
    activation_range,
    lies_within,
    round_half_up,
)

MAX_CHANNELS = 1 << 16
# No engine needs them for its integers, but a sigmoid multiplies and divides by them, in float32 on OpenVINO.
MIN_SCALE, MAX_SCALE = 2.0**-100, 2.0**32


@dataclass(frozen=True, eq=False)
class Grid:
    """The quantization grid of an activation tensor [C, H, W]: value = scale[c] · (q - zero_point[c]).

    bits:       2..16, stored integers in [0, 2^bits - 1]; or 32: signed fixed point, zero point 0
    scale:      float64[C], 2^-100 .. 2^32; for people, reports and export: the exact engine never uses it
    zero_point: int64[C], within the stored range; the stored integer that means 0, and so the padding
    """

    bits: int
    scale: Floats
    zero_point: Ints

    def __post_init__(self) -> None:
        if not (MIN_BITS <= self.bits <= MAX_BITS or self.bits == FIXED_POINT_BITS):
            raise LoweringError(f"activations of {self.bits} bits: {MIN_BITS} to {MAX_BITS} are supported")
        if self.scale.ndim != 1 or self.scale.shape != self.zero_point.shape or not self.scale.size:
            raise LoweringError("a grid needs one scale and one zero point per channel")
        if self.scale.size > MAX_CHANNELS:
            raise LoweringError(f"a grid of {self.scale.size} channels: at most {MAX_CHANNELS} are supported")
        if not lies_within(self.scale, MIN_SCALE, MAX_SCALE):
            raise LoweringError("a grid has a scale that is not a number from 2^-100 to 2^32")
        if not lies_within(self.zero_point, *((0, 0) if self.bits == FIXED_POINT_BITS else self.range)):
            raise LoweringError(f"a zero point lies outside the {self.bits}-bit range")

    @classmethod
    def fixed_point(cls, channels: int, fraction_bits: int) -> Grid:
        """Signed 32-bit integers in units of 2^-fraction_bits."""
        return cls(FIXED_POINT_BITS, np.full(channels, 2.0**-fraction_bits), np.zeros(channels, dtype=np.int64))

    @classmethod
    def pixels(cls, channels: int = 3) -> Grid:
        """8-bit samples: 255 means 1.0."""
        return cls(8, np.full(channels, 1 / 255), np.zeros(channels, dtype=np.int64))

    def same(self, other: Grid) -> bool:
        """Whether the other's integers mean the same, up to the scales, which no exact engine reads."""
        return self.bits == other.bits and np.array_equal(self.zero_point, other.zero_point)

    @property
    def channels(self) -> int:
        """C, of scale and zero point."""
        return self.scale.size

    @property
    def range(self) -> tuple[int, int]:
        """(lowest, highest) stored integer."""
        return activation_range(self.bits)

    @property
    def magnitude(self) -> Ints:
        """max |q - zero_point| per channel, int64[C]: what bounds a sum over this tensor."""
        low, high = self.range
        return np.maximum(self.zero_point - low, high - self.zero_point)

    def quantize(self, value: Floats) -> Ints:
        """Real values [C, H, W] to stored integers, int64: clamp(round(v / scale) + zero_point)."""
        low, high = self.range
        return np.clip(
            round_half_up(value / self.scale[:, None, None]) + self.zero_point[:, None, None], low, high
        ).astype(np.int64)

    def dequantize(self, q: Ints) -> Floats:
        """Stored integers [C, H, W] to real values, float64."""
        return self.scale[:, None, None] * (q - self.zero_point[:, None, None])
