"""What an artifact holds for each family: the parts of its program, and its coding tables with their layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from licquant.codec.entropy.tables import CodingTables
from licquant.codec.files.blobs import BlobReader, BlobWriter
from licquant.config import (
    AUTOREGRESSIVE,
    CHANNEL_GROUPS,
    CHECKERBOARD,
    FACTORIZED,
    MEAN_SCALE_HYPERPRIOR,
    SCALE_HYPERPRIOR,
)
from licquant.errors import ArtifactError
from licquant.program.arithmetic import INT32_MAX, Ints, lies_within

_LARGEST_MEDIAN = (1 << 30) - 1


@dataclass(frozen=True, eq=False)
class FactorizedTables:
    """Tables of a latent y without a hyperprior.

    y:       one table per channel
    medians: int64[M], below 2^30, of y, in the fixed point of g_a's output
    """

    y: CodingTables
    medians: Ints

    def __post_init__(self) -> None:
        _check_medians(self.y, self.medians)

    def to_json(self, writer: BlobWriter) -> dict[str, Any]:
        """What the artifact's header holds; the numbers go to the writer."""
        return {"y": writer.data(self.y.to_bytes()), "medians": writer.vector(self.medians)}

    @classmethod
    def from_json(cls, record: dict[str, Any], reader: BlobReader) -> FactorizedTables:
        """The inverse; ``ArtifactError`` for tables that do not hold."""
        y = CodingTables.from_bytes(reader.data(record.get("y")))
        return cls(y, reader.integers(record.get("medians")))


@dataclass(frozen=True, eq=False)
class HyperpriorTables:
    """Tables of every family with a hyperprior.

    z:          one table per channel of z
    medians:    int64[N], below 2^30, of z, in the fixed point of h_s's input
    y:          one table per level of σ
    thresholds: int64[levels - 1], ascending, below 2^31, in the fixed point of σ: σ > thresholds[k] has a level > k
    """

    z: CodingTables
    medians: Ints
    y: CodingTables
    thresholds: Ints

    def __post_init__(self) -> None:
        _check_medians(self.z, self.medians)
        if self.thresholds.shape != (len(self.y) - 1,):
            raise ArtifactError("the coding tables do not fit their thresholds")
        ascending = (self.thresholds[1:] >= self.thresholds[:-1]).all()
        if len(self.y) > 256 or not ascending or not lies_within(self.thresholds, -INT32_MAX, INT32_MAX):
            raise ArtifactError("the levels of σ are out of range")

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

    def to_json(self, writer: BlobWriter) -> dict[str, Any]:
        """What the artifact's header holds; the numbers go to the writer."""
        return {
            "z": writer.data(self.z.to_bytes()),
            "medians": writer.vector(self.medians),
            "y": writer.data(self.y.to_bytes()),
            "thresholds": writer.vector(self.thresholds),
        }

    @classmethod
    def from_json(cls, record: dict[str, Any], reader: BlobReader) -> HyperpriorTables:
        """The inverse; ``ArtifactError`` for tables that do not hold."""
        return cls(
            CodingTables.from_bytes(reader.data(record.get("z"))),
            reader.integers(record.get("medians")),
            CodingTables.from_bytes(reader.data(record.get("y"))),
            reader.integers(record.get("thresholds")),
        )


@dataclass(frozen=True)
class FamilyContents:
    """What an artifact of a family must hold.

    tables: their type
    parts:  of the program, beside those that a member of the family adds (one for each channel group)
    """

    tables: type[FactorizedTables] | type[HyperpriorTables]
    parts: tuple[str, ...]


LatentTables = FactorizedTables | HyperpriorTables

_HYPERPRIOR = ("g_a", "h_a", "h_s", "g_s")
_CONTEXT = (*_HYPERPRIOR, "context_prediction", "entropy_parameters")

FAMILY_CONTENTS: Mapping[str, FamilyContents] = {
    FACTORIZED: FamilyContents(FactorizedTables, ("g_a", "g_s")),
    SCALE_HYPERPRIOR: FamilyContents(HyperpriorTables, _HYPERPRIOR),
    MEAN_SCALE_HYPERPRIOR: FamilyContents(HyperpriorTables, _HYPERPRIOR),
    AUTOREGRESSIVE: FamilyContents(HyperpriorTables, _CONTEXT),
    CHECKERBOARD: FamilyContents(HyperpriorTables, _CONTEXT),
    CHANNEL_GROUPS: FamilyContents(HyperpriorTables, _HYPERPRIOR),
}


def _check_medians(tables: CodingTables, medians: Ints) -> None:
    if medians.shape != (len(tables),) or not lies_within(medians, -_LARGEST_MEDIAN, _LARGEST_MEDIAN):
        raise ArtifactError("the medians do not fit their coding tables")
