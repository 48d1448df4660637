"""A latent with a Gaussian for each element: symbols from parameters in fixed point, pass by pass.

A pass is what can be coded at once, because its parameters depend on earlier passes only: everything (a
hyperprior alone), a diagonal, half of a checkerboard, a group of channels. Encoder and decoder run the same
family code, which hands σ and μ of each pass to a :class:`LatentWriter` or a :class:`LatentReader` and gets
ŷ back for the passes to come:

    symbol = floor(y - μ + 1/2), coded with the table of σ         ŷ = symbol + μ
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from licquant.codec.entropy.coder import SymbolDecoder, encode_groups
from licquant.codec.files.latent_tables import HyperpriorTables
from licquant.program.arithmetic import Ints, as_int32

# Channels [first, last), flat positions of the plane (an index array or everything), σ and μ [C, P] in fixed
# point (or 0 for all means) → ŷ int32 [C, P].
CodePass = Callable[[slice, "Ints | slice", Ints, "Ints | int"], Ints]
EVERYTHING = slice(None)


@dataclass(frozen=True, eq=False)
class GaussianQuantizer:
    """The fixed points, 2^-bits, of a latent: of y (g_a's output), of σ and μ, and of ŷ (g_s's input).

    ŷ is never finer than y, nor than μ.
    """

    tables: HyperpriorTables
    latent_bits: int
    parameter_bits: int
    output_bits: int

    def mean(self, mean: Ints | int) -> Ints | int:
        """μ rounded to the fixed point of ŷ."""
        shift = self.parameter_bits - self.output_bits
        return np.add(mean, 1 << shift >> 1, dtype=np.int64) >> shift

    def symbols(self, y: Ints, mean: Ints | int) -> Ints:
        """floor(y - μ + 1/2), int32; μ as ``mean`` gives it."""
        half = (1 << self.latent_bits) >> 1
        centred = y.astype(np.int64) - (mean << (self.latent_bits - self.output_bits)) + half
        return as_int32(centred >> self.latent_bits)

    def restore(self, symbols: Ints, mean: Ints | int) -> Ints:
        """ŷ = symbol + μ in its own fixed point, int32, at most ±(2^31 - 1)."""
        y_hat = (symbols.astype(np.int64) << self.output_bits) + mean
        return as_int32(y_hat)


class LatentWriter:
    """The encoder's side of the passes: rounds y, and keeps the symbols for :meth:`to_bytes`."""

    def __init__(self, quantizer: GaussianQuantizer, y: Ints) -> None:
        """y: fixed point [M, H, W]."""
        self.quantizer, self._y = quantizer, y.reshape(len(y), -1)
        self._y_hat = np.zeros(y.shape, dtype=np.int32)
        self._groups: list[tuple[Ints, Ints]] = []
        self._places: list[tuple[slice, Ints | slice]] = []

    def __call__(self, channels: slice, positions: Ints | slice, sigma: Ints, mean: Ints | int) -> Ints:
        """One pass, as ``CodePass`` says."""
        level, mean = self.quantizer.tables.level(sigma), self.quantizer.mean(mean)
        symbols = self.quantizer.symbols(self._y[channels, positions], mean)
        self._groups.append((symbols.ravel(), level.ravel()))
        self._places.append((channels, positions))
        y_hat = self.quantizer.restore(symbols, mean)
        self._y_hat.reshape(self._y.shape)[channels, positions] = y_hat
        return y_hat

    @property
    def y_hat(self) -> Ints:
        """ŷ int32 [M, H, W] of the passes so far, elsewhere 0."""
        return self._y_hat

    def to_bytes(self) -> bytes:
        """All passes in one string."""
        return encode_groups(self._groups, self.quantizer.tables.y)

    def element_bits(self) -> np.ndarray:
        """Ideal code length of every element in bits, float64 [M, H, W]."""
        bits = np.zeros(self._y.shape)
        for (symbols, level), place in zip(self._groups, self._places, strict=True):
            bits[place] = self.quantizer.tables.y.symbol_bits(symbols, level).reshape(bits[place].shape)
        return bits.reshape(self._y_hat.shape)


class LatentReader:
    """The decoder's side of the passes."""

    def __init__(self, quantizer: GaussianQuantizer, string: bytes, shape: tuple[int, ...]) -> None:
        """Raises ``BitstreamError`` if ``string`` cannot be one; shape: of ŷ, (M, H, W)."""
        self.quantizer, self._decoder = quantizer, SymbolDecoder(string, quantizer.tables.y)
        self._y_hat = np.zeros(shape, dtype=np.int32)

    def __call__(self, channels: slice, positions: Ints | slice, sigma: Ints, mean: Ints | int) -> Ints:
        """Raises ``BitstreamError`` on a symbol that no encoder writes."""
        level = self.quantizer.tables.level(sigma)
        symbols = self._decoder.decode(level.ravel()).reshape(level.shape)
        y_hat = self.quantizer.restore(symbols, self.quantizer.mean(mean))
        self._y_hat.reshape(len(self._y_hat), -1)[channels, positions] = y_hat
        return y_hat

    def finish(self) -> Ints:
        """ŷ int32 [M, H, W]; ``BitstreamError`` unless the string ends where its last symbol does."""
        self._decoder.finish()
        return self._y_hat
