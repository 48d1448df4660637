"""The latent coding of the scale hyperprior family (Ballé 2018), in integers only.

    z symbols ──table of their channel──────────────────────────────> string 0
    z symbols · 2^8 + medians ──h_s (exact engine)──> σ ──thresholds──> table index
    y symbols ──table of their σ─────────────────────────────────────> string 1

The encoder and the decoder both compute σ from the z symbols with the exact engine, so they agree on any two
machines.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from licquant.codec.coder import decode_symbols, encode_symbols
from licquant.codec.tables import CodingTables
from licquant.errors import ArtifactError, BitstreamError
from licquant.program.arithmetic import Ints
from licquant.program.exact import ExactEngine
from licquant.program.part import Part

# A string may end in an unfinished machine word.
_SLACK_BITS = 64
_LARGEST_SYMBOL = 1 << 22  # symbols enter h_s in fixed point: far beyond this they could leave int32


@dataclass(frozen=True, eq=False)
class HyperpriorTables:
    """Everything the decoder needs beside h_s.

    z:          one table per channel of z
    medians:    int64[C], of z, in the fixed point of h_s's input
    y:          one table per level of σ
    thresholds: int64[levels - 1], ascending, in the fixed point of h_s's output: σ > thresholds[k] has a level > k
    """

    z: CodingTables
    medians: Ints
    y: CodingTables
    thresholds: Ints

    def __post_init__(self) -> None:
        if self.medians.shape != (len(self.z),) or self.thresholds.shape != (len(self.y) - 1,):
            raise ArtifactError("the coding tables do not fit their medians or thresholds")
        if len(self.y) > 256 or (np.diff(self.thresholds) < 0).any() or (abs(self.medians) >= 1 << 30).any():
            raise ArtifactError("the levels of σ or the medians of z are out of range")

    @cached_property
    def _level_of(self) -> Ints:
        """σ → level, for every σ up to the last threshold: looking up is faster than searching."""
        last = min(int(self.thresholds[-1]), (1 << 20) - 2) if len(self.thresholds) else 0
        return np.searchsorted(self.thresholds, np.arange(max(last, 0) + 2), side="left").astype(np.uint8)

    def level(self, sigma: Ints) -> Ints:
        """The table index, uint8, for σ in fixed point: how many thresholds lie below it."""
        table = self._level_of
        level = table[np.clip(sigma, 0, len(table) - 1)]
        if len(self.thresholds) and self.thresholds[-1] > len(table) - 2:
            beyond = sigma >= len(table)
            level[beyond] = np.searchsorted(self.thresholds, sigma[beyond], side="left")
        return level


class HyperpriorCoder:
    """Codes the symbols of both latents with one program's h_s and tables."""

    strings = 2

    def __init__(self, h_s: Part, tables: HyperpriorTables) -> None:
        if h_s.input_grid.channels != len(tables.z):
            raise ArtifactError("h_s and the coding tables of z have different numbers of channels")
        self.h_s, self.tables = h_s, tables
        self.compute_scales = ExactEngine(h_s).run  # the slow reference may take its place
        self._fraction_bits = _fraction_bits(h_s)

    def levels(self, z: Ints) -> Ints:
        """Table index, uint8 [M, H, W], of every symbol of y, from the symbols of z, int [N, h, w]."""
        limited = np.clip(z, -_LARGEST_SYMBOL, _LARGEST_SYMBOL).astype(np.int64)
        z_hat = (limited << self._fraction_bits) + self.tables.medians[:, None, None]
        return self.tables.level(self.compute_scales(z_hat))

    def round_hyper(self, z: Ints) -> Ints:
        """The symbols of z, int32, from h_a's output in the same fixed point: relative to the medians."""
        half = (1 << self._fraction_bits) >> 1
        return ((z - self.tables.medians[:, None, None] + half) >> self._fraction_bits).astype(np.int32)

    def encode(self, y: Ints, z: Ints) -> tuple[bytes, ...]:
        """The strings for symbols y int32 [M, H, W] and z int32 [N, h, w]."""
        return (
            encode_symbols(z.astype(np.int32).ravel(), self._channel_index(z.shape[1:]), self.tables.z),
            encode_symbols(y.astype(np.int32).ravel(), self.levels(z).ravel(), self.tables.y),
        )

    def decode(self, strings: tuple[bytes, ...], hyper_size: tuple[int, int]) -> tuple[Ints, Ints]:
        """The symbols (y, z), int32, for z of that (height, width). Raises ``BitstreamError`` on other data."""
        if len(strings) != self.strings:
            raise BitstreamError(f"{len(strings)} strings instead of {self.strings}")
        self._check_plausible(strings, hyper_size)
        z = decode_symbols(strings[0], self._channel_index(hyper_size), self.tables.z)
        z = z.reshape(len(self.tables.z), *hyper_size)
        levels = self.levels(z)
        y = decode_symbols(strings[1], levels.ravel(), self.tables.y).reshape(levels.shape)
        return y, z

    def entropy_bits(self, y: Ints, z: Ints) -> float:
        """Ideal code length of both latents under the integer tables, in bits."""
        index = self._channel_index(z.shape[1:])
        return self.tables.z.entropy_bits(z.ravel(), index) + self.tables.y.entropy_bits(
            y.ravel(), self.levels(z).ravel()
        )

    def _channel_index(self, size: tuple[int, ...]) -> Ints:
        return np.repeat(np.arange(len(self.tables.z), dtype=np.uint16), size[0] * size[1])

    def _check_plausible(self, strings: tuple[bytes, ...], hyper_size: tuple[int, int]) -> None:
        """A claimed size whose cheapest coding is longer than the strings is refused before memory is spent."""
        positions = hyper_size[0] * hyper_size[1]
        height, width = self.h_s.output_size(hyper_size)
        symbols = self.h_s.output_grid.channels * height * width
        least = (
            positions * float(self.tables.z.bits_floor().sum()),
            symbols * float(self.tables.y.bits_floor().min()),
        )
        for string, bits in zip(strings, least, strict=True):
            if 8 * len(string) + _SLACK_BITS < bits:
                raise BitstreamError(f"a string of {len(string)} bytes is too short for the claimed image size")


def _fraction_bits(part: Part) -> int:
    """k of the fixed point 2^-k that a part reads."""
    return round(-np.log2(part.input_grid.scale[0]))
