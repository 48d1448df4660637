"""Family → how its latent is coded. A new family is one more line here."""

from __future__ import annotations

from collections.abc import Mapping

from licquant.codec.channel_groups import ChannelGroupsCoder
from licquant.codec.context import AutoregressiveCoder, CheckerboardCoder
from licquant.codec.factorized import FactorizedCoder
from licquant.codec.hyperprior import GaussianCoder, HyperpriorCoder, MeanScaleCoder
from licquant.codec.latent_tables import FactorizedTables, HyperpriorTables
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
LatentTables = FactorizedTables | HyperpriorTables

FAMILIES: Mapping[str, type[LatentCoder]] = {
    FACTORIZED: FactorizedCoder,
    SCALE_HYPERPRIOR: HyperpriorCoder,
    MEAN_SCALE_HYPERPRIOR: MeanScaleCoder,
    AUTOREGRESSIVE: AutoregressiveCoder,
    CHECKERBOARD: CheckerboardCoder,
    CHANNEL_GROUPS: ChannelGroupsCoder,
}


def latent_coder(family: str, program: Program, tables: LatentTables) -> LatentCoder:
    """The family's coder for these parts and tables (of its ``tables_type``); ``ArtifactError`` if they do not fit."""
    return FAMILIES[family](program, tables)  # type: ignore[arg-type]
