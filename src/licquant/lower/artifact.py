"""Quantized model → artifact: its program, its coding tables, and what it says of its making.

With it the tables of the entropy coder.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from licquant import __version__
from licquant.codec.entropy.tables import CodingTables, gaussian_pmfs
from licquant.codec.files.artifact import Artifact
from licquant.codec.files.latent_tables import FactorizedTables, HyperpriorTables, LatentTables
from licquant.config import FACTORIZED
from licquant.lower.program import lower_model
from licquant.models.trace import TracedModel
from licquant.program.dynamic import DynamicPart
from licquant.program.part import Program
from licquant.program.unread import without_unread
from licquant.quant.dataflow import medians_of
from licquant.quant.grids import LATENT_FRACTION_BITS, SCALE_FRACTION_BITS
from licquant.quant.network import QuantizedModel

# Levels of σ: CompressAI has 64 between the same ends; twice as many cost 0.03 % of the bits instead of 0.1 %.
LEVELS = 128
SMALLEST_SCALE, LARGEST_SCALE = 0.11, 256.0
# Symbols of z beyond this mass are escaped.
_TAIL_MASS = 2.0**-15
_LARGEST_RADIUS = 2048


def latent_tables(traced: TracedModel) -> LatentTables:
    """The coding tables of a model, of its family's kind.

    y: zero-mean Gaussians over unit bins at geometric levels of σ, each used from the geometric mean with the level
    below to the one above (CompressAI rounds σ up to the next level instead, which costs more).
    z (y where there is no z): the entropy bottleneck's own cumulative functions, per channel, relative to the median.
    """
    bottleneck = CodingTables.from_probabilities(*_bottleneck_pmfs(traced))
    medians = np.floor(medians_of(traced).double().numpy() * 2.0**LATENT_FRACTION_BITS + 0.5).astype(np.int64)
    if traced.family == FACTORIZED:
        return FactorizedTables(bottleneck, medians)
    scales = np.geomspace(SMALLEST_SCALE, LARGEST_SCALE, LEVELS)
    thresholds = np.floor(np.sqrt(scales[1:] * scales[:-1]) * 2.0**SCALE_FRACTION_BITS).astype(np.int64)
    y = CodingTables.from_probabilities(*gaussian_pmfs(scales.tolist()))
    return HyperpriorTables(bottleneck, medians, y, thresholds)


def _bottleneck_pmfs(traced: TracedModel) -> tuple[list[np.ndarray], np.ndarray]:
    """Probability of every integer around the median, per channel, up to a tail of ``_TAIL_MASS``."""
    medians = medians_of(traced)
    radius = 16
    while True:
        symbols = torch.arange(-radius, radius + 1).float()
        values = medians[:, None, None] + symbols
        with torch.no_grad():
            mass = traced.bottleneck._likelihood(values)[0][:, 0].double().numpy()
        if mass.sum(axis=1).min() > 1 - _TAIL_MASS or radius >= _LARGEST_RADIUS:
            break
        radius *= 2
    pmfs, offsets = [], []
    for row in mass:
        first, last = _central(row)
        # A float32 likelihood may add up to a little more than one.
        kept = row[first : last + 1] / max(1.0, math.fsum(row))
        pmfs.append(kept)
        offsets.append(first - radius)
    return pmfs, np.array(offsets, dtype=np.int32)


def _central(mass: np.ndarray) -> tuple[int, int]:
    """First and last symbol to keep: what is cut on each side has at most half the tail's mass."""
    cumulative = np.cumsum(mass)
    first = int(np.searchsorted(cumulative, _TAIL_MASS / 2, side="right"))
    last = len(mass) - 1 - int(np.searchsorted(np.cumsum(mass[::-1]), _TAIL_MASS / 2, side="right"))
    return min(first, len(mass) - 1), max(last, min(first, len(mass) - 1))


def lower_to_artifact(quantized: QuantizedModel, provenance: Mapping[str, Any], licence: str) -> Artifact:
    """The artifact of a quantized model, without channels that nothing reads.

    ``LoweringError`` if a layer cannot be expressed in integers.
    """
    parts = lower_model(quantized)
    program = Program({name: without_unread(part) for name, part in parts.items()})
    return artifact_of(quantized, program, {}, provenance, licence)


def artifact_of(
    quantized: QuantizedModel,
    program: Program,
    dynamic: Mapping[str, DynamicPart],
    provenance: Mapping[str, Any],
    licence: str,
) -> Artifact:
    """The same where the program is there already, with the parts whose widths depend on the image."""
    traced = quantized.traced
    facts = {**provenance, "licquant": __version__, "fp32_bytes": traced.fp32_bytes}
    return Artifact(traced.family, program, latent_tables(traced), quantized.plan, facts, licence, dynamic)


def header_bytes(provenance: Mapping[str, Any], licence: str) -> int:
    """What these take of an artifact's header."""
    text = json.dumps([dict(provenance), licence], separators=(",", ":"), ensure_ascii=False)
    return len(text.encode(errors="backslashreplace"))  # names that are not UTF-8
