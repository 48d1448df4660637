"""The families with a hyperprior (Ballé 2018): what they share, and the two that need nothing else.

    z symbols ──table of their channel──────────────────────────────────────────> string 0
    z symbols + medians ──h_s (exact engine)──> parameters ──the family's own──> σ, μ of each pass
    y symbols ──table of their σ────────────────────────────────────────────────> string 1

The encoder and the decoder both compute σ and μ from what is already coded, in integers, so they agree on any
two machines.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np

from licquant.codec.files.latent_tables import HyperpriorTables
from licquant.codec.latents.bottleneck import BottleneckCoder
from licquant.codec.latents.gaussian import EVERYTHING, CodePass, GaussianQuantizer, LatentReader, LatentWriter
from licquant.codec.tiling import LATENT_TILE, run_tiled
from licquant.errors import ArtifactError, BitstreamError
from licquant.program.arithmetic import FIXED_POINT_BITS, Ints
from licquant.program.exact import ExactEngine
from licquant.program.grid import Grid
from licquant.program.part import Part, Program

# A string may end in an unfinished machine word.
_SLACK_BITS = 64
_MAX_FRACTION_BITS = 16


class GaussianCoder(ABC):
    """Codes z, and y with Gaussian parameters from the family's ``code_passes``.

    y and ŷ are fixed point as g_a writes and g_s reads them; z are symbols relative to the medians.
    """

    strings = 2

    def __init__(self, program: Program, tables: HyperpriorTables) -> None:
        """Raises ``ArtifactError`` if the parts and tables do not fit one another."""
        self.h_s, self.tables = program["h_s"], tables
        self.latent_channels = program["g_s"].input_grid.channels
        if self.h_s.input_grid.channels != len(tables.z):
            raise ArtifactError("h_s and the coding tables of z have different numbers of channels")
        for writes, reads in (("g_a", "h_a"), ("h_a", "h_s")):
            if fraction_bits(program[writes].output_grid) != fraction_bits(program[reads].input_grid):
                raise ArtifactError(f"{reads} reads another fixed point than {writes} writes")
        self.hyper = BottleneckCoder(tables.z, tables.medians, fraction_bits(self.h_s.input_grid))
        self.synthesise_hyper = in_pieces(self.h_s)  # the slow reference may take its place
        latent, output = fraction_bits(program["g_a"].output_grid), fraction_bits(program["g_s"].input_grid)
        parameters = self.parameters_of(program)
        bits = min(fraction_bits(part.output_grid) for part in parameters)
        if output > min(latent, bits) or any(fraction_bits(part.output_grid) != bits for part in parameters):
            raise ArtifactError("the fixed points of y, its parameters and g_s do not fit one another")
        self.quantizer = GaussianQuantizer(tables, latent, bits, output)

    @abstractmethod
    def parameters_of(self, program: Program) -> list[Part]:
        """The parts that write σ and μ; ``ArtifactError`` if the program lacks one."""

    @abstractmethod
    def code_passes(self, parameters: Ints, code: CodePass) -> None:
        """Call ``code`` for every pass, from h_s's output, stored integers [C, H, W]."""

    def encode(self, y: Ints, z: Ints) -> tuple[bytes, ...]:
        """The strings for y, fixed point [M, H, W], and the symbols z [N, h, w]."""
        return self.hyper.encode(z), self._written(y, z).to_bytes()

    def quantize(self, y: Ints, z: Ints) -> Ints:
        """ŷ, int32 [M, H, W] in g_s's fixed point: what decoding the strings gives."""
        return self._written(y, z).y_hat

    def decode(self, strings: tuple[bytes, ...], size: tuple[int, int]) -> tuple[Ints, Ints]:
        """(ŷ, symbols of z), int32, for z of that (height, width). Raises ``BitstreamError`` on other data."""
        if len(strings) != self.strings:
            raise BitstreamError(f"{len(strings)} strings instead of {self.strings}")
        shape = (self.latent_channels, *self.h_s.output_size(size))
        least = float(self.tables.y.bits_floor().min()) * shape[0] * shape[1] * shape[2]
        check_plausible(strings, (self.hyper.least_bits(size), least))
        z = self.hyper.decode(strings[0], size)
        reader = LatentReader(self.quantizer, strings[1], shape)
        self.code_passes(self.synthesise_hyper(self.hyper.restore(z)), reader)
        return reader.finish(), z

    def element_bits(self, y_hat: Ints, z: Ints) -> tuple[np.ndarray, np.ndarray]:
        """Ideal code length in bits, under the integer tables, of each element of ŷ and of z, float64 of their shapes.

        ŷ and the symbols of z as ``decode`` gives them.
        """
        y = y_hat.astype(np.int64) << (self.quantizer.latent_bits - self.quantizer.output_bits)
        return self._written(y, z).element_bits(), self.hyper.element_bits(z)

    def round_hyper(self, z: Ints) -> Ints:
        """The symbols of z, int32, from h_a's output."""
        return self.hyper.round(z)

    def _written(self, y: Ints, z: Ints) -> LatentWriter:
        writer = LatentWriter(self.quantizer, y)
        self.code_passes(self.synthesise_hyper(self.hyper.restore(z)), writer)
        return writer


class HyperpriorCoder(GaussianCoder):
    """The scale hyperprior (Ballé 2018): h_s gives σ, the means are 0."""

    def parameters_of(self, program: Program) -> list[Part]:
        """h_s, which must write one σ for each channel of y."""
        return [with_channels(program["h_s"], self.latent_channels)]

    def code_passes(self, parameters: Ints, code: CodePass) -> None:
        """One pass: nothing waits for another symbol of y."""
        code(EVERYTHING, EVERYTHING, parameters.reshape(len(parameters), -1), 0)


class MeanScaleCoder(GaussianCoder):
    """The mean-scale hyperprior (Minnen 2018): h_s gives σ, then μ."""

    def parameters_of(self, program: Program) -> list[Part]:
        """h_s, which must write σ and μ for each channel of y."""
        return [with_channels(program["h_s"], 2 * self.latent_channels)]

    def code_passes(self, parameters: Ints, code: CodePass) -> None:
        """One pass: nothing waits for another symbol of y."""
        sigma, mean = np.split(parameters.reshape(len(parameters), -1), 2)
        code(EVERYTHING, EVERYTHING, sigma, mean)


def in_pieces(part: Part) -> Callable[[Ints], Ints]:
    """The exact engine on a part, a piece of its output at a time."""
    run = ExactEngine(part).run
    return lambda q: run_tiled(run, part, q, LATENT_TILE)


def check_plausible(strings: tuple[bytes, ...], least_bits: tuple[float, ...]) -> None:
    """A claimed size whose cheapest coding is longer than the strings is refused before memory is spent."""
    for string, bits in zip(strings, least_bits, strict=True):
        if 8 * len(string) + _SLACK_BITS < bits:
            raise BitstreamError(f"a string of {len(string)} bytes is too short for the claimed image size")


def fraction_bits(grid: Grid) -> int:
    """k of a grid in fixed point 2^-k; ``ArtifactError`` for another grid."""
    k = round(-float(np.log2(grid.scale[0])))
    uniform = np.allclose(grid.scale, 2.0**-k, rtol=1e-6, atol=0)  # a scale may have been float32 on its way
    if grid.bits != FIXED_POINT_BITS or not 0 <= k <= _MAX_FRACTION_BITS or not uniform:
        raise ArtifactError("a latent or its parameters are not in fixed point")
    return k


def with_channels(part: Part, channels: int) -> Part:
    """The part, if it writes that many channels; ``ArtifactError`` otherwise."""
    if part.output_grid.channels != channels:
        raise ArtifactError(f"{part.name} writes {part.output_grid.channels} channels instead of {channels}")
    return part
