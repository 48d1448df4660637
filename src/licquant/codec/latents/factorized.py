"""The factorized family (bmshj2018-factorized): y alone, each channel with its own table; one string."""

from __future__ import annotations

import numpy as np

from licquant.codec.files.latent_tables import FactorizedTables
from licquant.codec.latents.bottleneck import BottleneckCoder
from licquant.codec.latents.hyperprior import check_plausible, fraction_bits
from licquant.errors import ArtifactError, BitstreamError
from licquant.program.arithmetic import Ints, as_int32
from licquant.program.part import Program


class FactorizedCoder:
    """y and ŷ are fixed point as g_a writes and g_s reads them; there is no z, so it is always empty."""

    strings = 1

    def __init__(self, program: Program, tables: FactorizedTables) -> None:
        """Raises ``ArtifactError`` if the parts and tables do not fit one another."""
        grid = program["g_a"].output_grid
        if grid.channels != len(tables.y):
            raise ArtifactError("g_a and the coding tables of y have different numbers of channels")
        self.latent = BottleneckCoder(tables.y, tables.medians, fraction_bits(grid))
        self.shift = self.latent.fraction_bits - fraction_bits(program["g_s"].input_grid)
        if self.shift < 0:
            raise ArtifactError("g_s reads a finer fixed point than g_a writes")

    def encode(self, y: Ints, z: Ints) -> tuple[bytes, ...]:
        """The string for y, fixed point [M, H, W]."""
        return (self.latent.encode(self.latent.round(y)),)

    def quantize(self, y: Ints, z: Ints) -> Ints:
        """ŷ, int32 [M, H, W] in g_s's fixed point: what decoding the string gives."""
        return self._restore(self.latent.round(y))

    def decode(self, strings: tuple[bytes, ...], size: tuple[int, int]) -> tuple[Ints, Ints]:
        """(ŷ, empty z), int32, for y of that (height, width). Raises ``BitstreamError`` on other data."""
        if len(strings) != self.strings:
            raise BitstreamError(f"{len(strings)} strings instead of {self.strings}")
        check_plausible(strings, (self.latent.least_bits(size),))
        return self._restore(self.latent.decode(strings[0], size)), NO_Z

    def element_bits(self, y_hat: Ints, z: Ints) -> tuple[np.ndarray, np.ndarray]:
        """As ``GaussianCoder.element_bits``; that of z is empty."""
        return self.latent.element_bits(self.latent.round(y_hat.astype(np.int64) << self.shift)), np.zeros(NO_Z.shape)

    def _restore(self, symbols: Ints) -> Ints:
        y_hat = (self.latent.restore(symbols) + (1 << self.shift >> 1)) >> self.shift
        return as_int32(y_hat)


NO_Z = np.zeros((0, 0, 0), dtype=np.int32)
