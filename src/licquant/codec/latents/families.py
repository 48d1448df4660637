"""Family → how its latent is coded. A new family is one more line here."""

from __future__ import annotations

from collections.abc import Mapping

from licquant.codec.files.latent_tables import LatentTables
from licquant.codec.latents.channel_groups import ChannelGroupsCoder
from licquant.codec.latents.context import AutoregressiveCoder, CheckerboardCoder
from licquant.codec.latents.factorized import FactorizedCoder
from licquant.codec.latents.hyperprior import GaussianCoder, HyperpriorCoder, MeanScaleCoder
from licquant.config import (
    AUTOREGRESSIVE,
    CHANNEL_GROUPS,
    CHECKERBOARD,
    FACTORIZED,
    MEAN_SCALE_HYPERPRIOR,
    SCALE_HYPERPRIOR,
)
from licquant.program.part import Program

LatentCoder = FactorizedCoder | GaussianCoder

FAMILIES: Mapping[str, type[LatentCoder]] = {
    FACTORIZED: FactorizedCoder,
    SCALE_HYPERPRIOR: HyperpriorCoder,
    MEAN_SCALE_HYPERPRIOR: MeanScaleCoder,
    AUTOREGRESSIVE: AutoregressiveCoder,
    CHECKERBOARD: CheckerboardCoder,
    CHANNEL_GROUPS: ChannelGroupsCoder,
}


def latent_coder(family: str, program: Program, tables: LatentTables) -> LatentCoder:
    """The family's coder for these parts and tables; ``ArtifactError`` if they do not fit."""
    return FAMILIES[family](program, tables)  # type: ignore[arg-type]
