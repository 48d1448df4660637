"""The quantized graph: a part, or a whole model, simulated on integers in PyTorch.

Float parameters (``layers.py``) stand for the integers; ``lower`` turns the same parameters into a program.
In float32 the simulation is differentiable and fast: what calibration, search and finetuning use. ``lower`` is
held to it exactly where it matters, see ``tests/equivalence``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from licquant.config import LayerBits, Plan
from licquant.models.graph import INPUT, NORMALIZATION, PIXEL_SHUFFLE, Graph, Step, apply_slope, run_float
from licquant.models.trace import TracedModel
from licquant.quant.grids import planned, squares_of
from licquant.quant.layers import QuantizedLayer, QuantizedTensor


class QuantizedPart(nn.Module):
    """One part on integers.

    graph:   with its input step (``grids.with_input_step``)
    tensors: tensor name → grid, ``"input"``, every step's output and the squares of every GDN
    layers:  step name → quantized weights
    """

    def __init__(
        self, graph: Graph, tensors: Mapping[str, QuantizedTensor], layers: Mapping[str, QuantizedLayer]
    ) -> None:
        super().__init__()
        self.graph = graph
        self.tensors = dict(tensors)
        self.layers = dict(layers)
        self._registered = nn.ModuleList([*self.tensors.values(), *self.layers.values()])
        self.fit_units()

    def fit_units(self) -> None:
        """Fit every layer's weight grid to the scales of its input."""
        for step in self.graph:
            if step.has_weights:
                self.layers[step.name].fit_unit(self.weight_scale(step))

    def weight_tensor(self, step: Step) -> QuantizedTensor:
        """The layer's operand, whose scales its weights absorb: for a GDN the square."""
        return self.tensors[squares_of(step.name) if step.kind == NORMALIZATION else step.inputs[0]]

    def weight_scale(self, step: Step) -> Tensor:
        """What one integer of the layer's operand means, per channel."""
        return self.weight_tensor(step).scale

    def forward(self, q: Tensor) -> Tensor:
        """Centred integers of the part's input [B, C, H, W] to those of its output."""
        tensors = {INPUT: q}
        for step in self.graph:
            tensors[step.name] = self.run(step, [tensors[name] for name in step.inputs])
        return tensors[self.graph.output]

    def run(self, step: Step, q: Sequence[Tensor]) -> Tensor:
        """One step on centred integers."""
        if step.kind == PIXEL_SHUFFLE:  # only moves integers
            return run_float(step, q)
        out = self.tensors[step.name]
        if step.kind == NORMALIZATION:
            return out.quantize(*self._normalize(step, q[0]))
        if step.has_weights:
            layer = self.layers[step.name]
            weight = layer.integer_weight(self.weight_scale(step))
            acc = layer.accumulate(q[0], weight, layer.integer_bias())
            return out.quantize(apply_slope(acc, step.negative_slope), layer.unit)
        return out.quantize(
            run_float(step, [self.tensors[n].dequantize(x) for n, x in zip(step.inputs, q, strict=True)])
        )

    def _normalize(self, step: Step, q: Tensor) -> tuple[Tensor, Tensor]:
        """(value, unit) of the GDN of centred integers: q · n^∓1/2 in multiples of s_in · unit^∓1/2; GDN1: no roots."""
        layer = self.layers[step.name]
        scale = self.tensors[step.inputs[0]].scale
        squares = self.tensors[squares_of(step.name)].quantize(layer.operand(q), scale**layer.power)
        weight = layer.integer_weight(self.weight_scale(step)).clamp(min=0)
        norm = layer.accumulate(squares, weight, layer.integer_bias().clamp(min=0)).clamp(min=1)
        if layer.power == 1:
            return (q * norm, scale * layer.unit) if layer.inverse else (q / norm, scale / layer.unit)
        if layer.inverse:
            return q * torch.sqrt(norm), scale * torch.sqrt(layer.unit)
        return q * torch.rsqrt(norm), scale * torch.rsqrt(layer.unit)


class QuantizedModel(nn.Module):
    """All parts of a model on integers, with its float entropy models for the rate.

    traced: the model it was made from; plan: the widths in use; parts: part name → quantized part
    """

    def __init__(self, traced: TracedModel, plan: Plan, parts: Mapping[str, QuantizedPart]) -> None:
        super().__init__()
        self.traced = traced
        self.plan = plan
        self.parts = dict(parts)
        self._registered = nn.ModuleList(self.parts.values())

    def run(self, name: str, value: Tensor) -> Tensor:
        """A part on real values, for ``dataflow.code``: quantized on the way in, dequantized on the way out."""
        part = self.part(name)
        return part.tensors[part.graph.output].dequantize(part(part.tensors[INPUT].quantize(value)))

    def part(self, name: str) -> QuantizedPart:
        """The part of that name; ``KeyError`` where the model has none of it."""
        return self.parts[name]


def layer_names(traced: TracedModel) -> list[str]:
    """What a plan for this model must have entries for, in order."""
    return [step.name for graph in traced.graphs.values() for step in planned(graph)]


def uniform_plan(traced: TracedModel, weight_bits: int, activation_bits: int) -> Plan:
    """The same widths everywhere."""
    return Plan(
        {
            step.name: LayerBits(weight_bits if step.has_weights else None, activation_bits)
            for graph in traced.graphs.values()
            for step in planned(graph)
        }
    )
