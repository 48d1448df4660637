"""The family of ELIC (He 2022): groups of channels, each a checkerboard, from the groups before it.

    ŷ of groups < k ──channel_context.yk──> ─┐
    z ──h_s──> ──────────────────────────────┼──entropy_parameters.yk──> σ, μ of one half of group k
    ŷ of group k so far ──spatial_context.yk─┘

The parts' own numbers of channels say how many groups there are and how large each is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from licquant.codec.latents.context import check_reads_latent
from licquant.codec.latents.gaussian import CodePass
from licquant.codec.latents.hyperprior import GaussianCoder, in_pieces, with_channels
from licquant.codec.latents.orders import Checkerboard
from licquant.codec.latents.spatial import SpatialContext
from licquant.errors import ArtifactError
from licquant.program.arithmetic import Ints
from licquant.program.part import Part, Program


@dataclass(frozen=True, eq=False)
class _Group:
    """Its channels of ŷ, its context in the plane, and, from the second group on, of the channels before."""

    channels: slice
    spatial: SpatialContext
    of_channels: Callable[[Ints], Ints] | None


class ChannelGroupsCoder(GaussianCoder):
    """elic2022-official: uneven channel groups with checkerboards."""

    def parameters_of(self, program: Program) -> list[Part]:
        """``entropy_parameters`` of every group; ``ArtifactError`` also for groups that are not y together."""
        self.groups: list[_Group] = []
        first, found = 0, []
        while first < self.latent_channels:
            k = len(self.groups)
            spatial = _part(program, f"spatial_context.y{k}")
            parameters = _part(program, f"entropy_parameters.y{k}")
            count = spatial.input_grid.channels
            check_reads_latent(spatial, program["g_s"], count)
            known, engine = [self.h_s.output_grid], None
            if k:
                before = _part(program, f"channel_context.y{k}")
                check_reads_latent(before, program["g_s"], first)
                known, engine = [before.output_grid, *known], in_pieces(before)
            context = SpatialContext(spatial, parameters, known, context_first=True, order=Checkerboard)
            found.append(with_channels(parameters, 2 * count))
            self.groups.append(_Group(slice(first, first + count), context, engine))
            first += count
        if first != self.latent_channels:
            raise ArtifactError(f"the channel groups have {first} channels, the latent has {self.latent_channels}")
        return found

    def code_passes(self, parameters: Ints, code: CodePass) -> None:
        """Two passes a group, each from h_s and all groups before it."""
        decoded: list[Ints] = []
        for group in self.groups:
            known = parameters
            if group.of_channels is not None:
                known = np.concatenate([group.of_channels(np.concatenate(decoded)), parameters])
            decoded.append(group.spatial.code_passes(known, group.channels, code))


def _part(program: Program, name: str) -> Part:
    if name not in program:
        raise ArtifactError(f"the program lacks the part {name}")
    return program[name]
