"""What licquant knows of each supported model: its family, its size, and how much work its parts are."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from compressai.registry import MODELS

from licquant.models.geometry import layer_geometry
from licquant.models.load import SUPPORTED
from licquant.models.trace import TracedModel, trace_model

# Where a class has no default: CompressAI's widths for low and middle rates.
_USUAL_WIDTHS = {"N": 128, "M": 192}
_FREE_ZONE = ("g_a", "g_s", "h_a")


@dataclass(frozen=True)
class Description:
    """One model of CompressAI's.

    name, family: as registered; how its latent is coded;  widths: N, M and the like
    parameters:   how many, entropy models included
    encode_macs, decode_macs: per pixel of the image, everything included
    exact_macs:   those that encoder and decoder must do in exact integers (h_s and the context model)
    """

    name: str
    family: str
    widths: dict[str, int]
    parameters: int
    encode_macs: float
    decode_macs: float
    exact_macs: float


def descriptions() -> Iterator[Description]:
    """Every supported model with its usual widths, one after another: building one takes a moment."""
    for name in SUPPORTED:
        widths = _widths(name)
        model: Any = MODELS[name](**widths)
        yield describe(name, widths, trace_model(model.eval()))


def describe(name: str, widths: dict[str, int], traced: TracedModel) -> Description:
    """The figures of one model."""
    macs = {layer.name: layer.macs for layer in layer_geometry(traced)}
    parts = {part: sum(macs[step.name] for step in graph) for part, graph in traced.graphs.items()}
    exact = sum(count for part, count in parts.items() if part not in _FREE_ZONE)
    return Description(
        name,
        traced.family,
        widths,
        traced.fp32_bytes // 4,
        parts["g_a"] + parts.get("h_a", 0.0) + exact,
        parts["g_s"] + exact,
        exact,
    )


def _widths(name: str) -> dict[str, int]:
    parameters = inspect.signature(MODELS[name].__init__).parameters
    return {
        width: usual if parameters[width].default is inspect.Parameter.empty else parameters[width].default
        for width, usual in _USUAL_WIDTHS.items()
        if width in parameters
    }
