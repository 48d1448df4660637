"""The sensitivity table that an artifact's widths were chosen from, as JSON beside it: NAME-zeta.json.

schema, artifact (SHA-256 of its file), lmbda, layers (L names), bits (B widths),
weights, activations: ζ as fractions, [L][B], null where nothing was measured
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from licquant.config import parse_json
from licquant.images import utf8, write_atomically
from licquant.reports.report import finite
from licquant.terminal import remark

SCHEMA = "licquant-sensitivity/1"
KINDS = ("weights", "activations")
_MAX_BYTES = 1 << 24


def place_beside(artifact: Path) -> Path:
    """Where the table of an artifact stands."""
    return artifact.with_name(f"{artifact.with_suffix('').name}-zeta.json")


def write_table(
    artifact: Path,
    sha256: str,
    lmbda: float,
    layers: Sequence[str],
    bits: Sequence[int],
    tables: Mapping[str, NDArray[np.floating]],
) -> None:
    """Write the table beside its artifact. tables: of ``KINDS``, ζ as fractions [L, B], NaN for what is not known."""
    record = {"schema": SCHEMA, "artifact": sha256, "lmbda": lmbda, "layers": list(layers), "bits": list(bits)}
    record |= {kind: finite(tables[kind].tolist()) for kind in KINDS}
    write_atomically(place_beside(artifact), utf8(json.dumps(record, ensure_ascii=False, allow_nan=False)) + b"\n")


def table_beside(artifact: Path, sha256: str) -> dict[str, Any] | None:
    """The table of the artifact with that hash; None if there is none, or that of another one.

    What is no table is said on standard error: a report can do without.
    """
    place = place_beside(artifact)
    try:
        if not place.is_file():
            return None
        if place.stat().st_size > _MAX_BYTES:
            raise ValueError("too large")
        found = parse_json(place.read_text(encoding="utf-8"))
        _check(found)
    except (OSError, ValueError, OverflowError) as error:
        remark(f"{place}: not a sensitivity table, left out: {error}")
        return None
    return found if found["artifact"] == sha256 else None


def _check(found: Any) -> None:
    """``ValueError`` for anything but a table."""
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise ValueError(f"its schema is not {SCHEMA}")
    layers, bits = found.get("layers", []), found.get("bits", [])
    if not _is_list_of(layers, str) or not _is_list_of(bits, int) or not _is_number(found.get("lmbda")):
        raise ValueError("its layers, bits or λ are missing")
    for kind in KINDS:
        rows = found.get(kind, [])
        if not _is_list_of(rows, list) or [len(row) for row in rows] != [len(bits)] * len(layers):
            raise ValueError(f"its {kind} are not a row of {len(bits)} for each of {len(layers)} layers")
        if not all(value is None or _is_number(value) for row in rows for value in row):
            raise ValueError(f"its {kind} are not numbers")


def _is_list_of(value: Any, kind: type) -> bool:
    return isinstance(value, list) and all(isinstance(item, kind) for item in value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
