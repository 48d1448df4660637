"""How large a traced model's layers are: weights, positions and multiply-accumulates per pixel of the image."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

import torch
from compressai.layers import GDN
from torch import Tensor

from licquant.models.graph import NORMALIZATION, TRANSPOSED_CONVOLUTION, Step
from licquant.models.trace import TracedModel

# Side of the image whose tensors are counted: every stride of the usual models divides it.
_SIDE = 128


@dataclass(frozen=True)
class LayerGeometry:
    """One step of a graph.

    weights: how many it has, biases not counted
    macs:    multiply-accumulates per pixel of the image; a GDN's are those of its matrix product, an addition has
             none
    """

    name: str
    kind: str
    weights: int
    macs: float


def layer_geometry(traced: TracedModel) -> list[LayerGeometry]:
    """Every step of every part, in order; sizes are counted on a real run, so any graph will do."""
    with torch.no_grad():
        inputs = _part_inputs(traced)
        return [
            layer
            for name, graph in traced.graphs.items()
            for tensors in [graph.forward(inputs[name])]
            for layer in (_layer(step, tensors) for step in graph)
        ]


def geometry_hash(traced: TracedModel) -> str:
    """SHA-256 (hex) of what decides the layers' speed: names, kinds, shapes and resolutions, not the weights."""
    record = [
        {**asdict(layer), "shape": list(_weight(step).shape)}
        for layer, step in zip(layer_geometry(traced), traced.layers, strict=True)
    ]
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _part_inputs(traced: TracedModel) -> dict[str, Tensor]:
    """Zeros of the right size: h_s reads what h_a writes, parts of a context model as many positions as y has."""
    image = torch.zeros(1, 3, _SIDE, _SIDE)
    g_a, h_a = traced.graphs["g_a"], traced.graphs.get("h_a")
    y = g_a.forward(image)[g_a.output]
    inputs = {name: y.new_zeros(1, graph.input_channels, *y.shape[2:]) for name, graph in traced.graphs.items()}
    if h_a is not None:
        inputs["h_s"] = h_a.forward(y)[h_a.output]
    return {**inputs, "g_a": image}


def _layer(step: Step, tensors: dict[str, Tensor]) -> LayerGeometry:
    # A transposed convolution uses every weight once for each position of its input, the others of their output.
    counted = tensors[step.inputs[0] if step.kind == TRANSPOSED_CONVOLUTION else step.name]
    mask = getattr(step.module, "mask", None)
    weights = _weight(step).numel() if mask is None else int(mask.sum())
    return LayerGeometry(step.name, step.kind, weights, weights * counted[0, 0].numel() / _SIDE**2)


def _weight(step: Step) -> Tensor:
    """The weights, as they are multiplied; empty for a step without."""
    module = step.module
    if step.kind == NORMALIZATION and isinstance(module, GDN):
        return module.gamma
    weight = getattr(module, "weight", None)
    return weight if isinstance(weight, Tensor) else torch.zeros(0)
