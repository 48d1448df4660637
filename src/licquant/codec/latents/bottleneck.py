"""A latent with one coding table per channel, relative to the channel's median (the entropy bottleneck, Ballé 2018).

It codes z in every family with a hyperprior, and y in the factorized family.
"""

from __future__ import annotations

import numpy as np

from licquant.codec.entropy.coder import decode_symbols, encode_symbols
from licquant.codec.entropy.tables import CodingTables
from licquant.program.arithmetic import INT32_MAX, Ints, as_int32

LARGEST_SYMBOL = 1 << 22  # symbols are read in fixed point: far beyond this they could leave int32


class BottleneckCoder:
    """Rounds, codes and restores a latent of ``len(tables)`` channels.

    medians:       int64[C] in fixed point
    fraction_bits: k of that fixed point 2^-k, which is also that of the latent
    """

    def __init__(self, tables: CodingTables, medians: Ints, fraction_bits: int) -> None:
        self.tables, self.fraction_bits = tables, fraction_bits
        self.medians = medians[:, None, None]

    def round(self, latent: Ints) -> Ints:
        """The symbols, int32 [C, H, W], of a latent in fixed point: round(latent - median)."""
        half = (1 << self.fraction_bits) >> 1
        return as_int32((latent - self.medians + half) >> self.fraction_bits)

    def restore(self, symbols: Ints) -> Ints:
        """The latent that symbols [C, H, W] stand for, int64 in fixed point: symbol + median, within ±(2^31 - 1)."""
        limited = np.clip(symbols, -LARGEST_SYMBOL, LARGEST_SYMBOL).astype(np.int64)
        return np.clip((limited << self.fraction_bits) + self.medians, -INT32_MAX, INT32_MAX)

    def encode(self, symbols: Ints) -> bytes:
        """One string for the symbols [C, H, W], any int32."""
        return encode_symbols(symbols.astype(np.int32).ravel(), self._index(symbols.shape[1:]), self.tables)

    def decode(self, string: bytes, size: tuple[int, int]) -> Ints:
        """The symbols, int32 [C, *size]. Raises ``BitstreamError`` on other data."""
        return decode_symbols(string, self._index(size), self.tables).reshape(len(self.tables), *size)

    def element_bits(self, symbols: Ints) -> np.ndarray:
        """Ideal code length of each of the symbols [C, H, W], in bits, float64 of that shape."""
        return self.tables.symbol_bits(symbols.ravel(), self._index(symbols.shape[1:])).reshape(symbols.shape)

    def least_bits(self, size: tuple[int, int]) -> float:
        """The fewest bits that any symbols of that size can take."""
        return size[0] * size[1] * float(self.tables.bits_floor().sum())

    def _index(self, size: tuple[int, ...]) -> Ints:
        return np.repeat(np.arange(len(self.tables), dtype=np.uint16), size[0] * size[1])
