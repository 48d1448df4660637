"""Quantized model → artifact: its program, its coding tables, and what it says of its making."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from licquant import __version__
from licquant.codec.files.artifact import Artifact
from licquant.lower.program import lower_model
from licquant.lower.tables import latent_tables
from licquant.program.dynamic import DynamicPart
from licquant.program.part import Program
from licquant.quant.network import QuantizedModel


def lower_to_artifact(quantized: QuantizedModel, provenance: Mapping[str, Any], licence: str) -> Artifact:
    """The artifact of a quantized model; ``LoweringError`` if a layer cannot be expressed in integers."""
    return artifact_of(quantized, lower_model(quantized), {}, provenance, licence)


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
