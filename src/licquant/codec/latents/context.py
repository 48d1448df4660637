"""The families with a context in the plane: autoregressive (Minnen 2018) and checkerboard (He 2021)."""

from __future__ import annotations

from typing import ClassVar

from licquant.codec.latents.gaussian import EVERYTHING, CodePass
from licquant.codec.latents.hyperprior import GaussianCoder, fraction_bits, with_channels
from licquant.codec.latents.orders import Checkerboard, Diagonals
from licquant.codec.latents.spatial import SpatialContext
from licquant.errors import ArtifactError
from licquant.program.arithmetic import Ints
from licquant.program.part import Part, Program


class AutoregressiveCoder(GaussianCoder):
    """mbt2018 and cheng2020: ŷ before a position in raster order, and h_s, give its σ and μ.

    Positions of one anti-diagonal do not depend on one another, so they are one pass.
    """

    context_first: ClassVar[bool] = False  # in the input of entropy_parameters: h_s, then the context
    order: ClassVar[type[Diagonals] | type[Checkerboard]] = Diagonals

    def parameters_of(self, program: Program) -> list[Part]:
        """``entropy_parameters``, which writes σ and μ from h_s and the context."""
        context, parameters = program["context_prediction"], program["entropy_parameters"]
        check_reads_latent(context, program["g_s"], self.latent_channels)
        known = [self.h_s.output_grid]
        self.context = SpatialContext(context, parameters, known, self.context_first, self.order)
        return [with_channels(parameters, 2 * self.latent_channels)]

    def code_passes(self, parameters: Ints, code: CodePass) -> None:
        """One pass after another in the family's order: diagonals, or the halves of a checkerboard."""
        self.context.code_passes(parameters, EVERYTHING, code)


class CheckerboardCoder(AutoregressiveCoder):
    """cheng2020-anchor-checkerboard: half of the positions without a context, then the others from them."""

    context_first: ClassVar[bool] = True
    order: ClassVar[type[Diagonals] | type[Checkerboard]] = Checkerboard


def check_reads_latent(part: Part, g_s: Part, channels: int) -> None:
    """``ArtifactError`` unless the part reads that many channels of ŷ in g_s's fixed point."""
    if part.input_grid.channels != channels or fraction_bits(part.input_grid) != fraction_bits(g_s.input_grid):
        raise ArtifactError(f"{part.name} does not read ŷ as g_s does")
