"""The float model with one layer quantized, at the cost of what depends on that layer only.

All tensors of the float network are kept. A perturbed step is computed from them, then the steps of its part that
read it, then the parts that read those; a part whose input did not change is not run again. So a change in
``g_s`` never runs the encoder, and one in ``h_a`` or ``h_s`` never runs the synthesis.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from licquant.models.graph import INPUT, NORMALIZATION, Graph, Step, apply_slope, run_float
from licquant.models.trace import TracedModel
from licquant.quant.grids import squares_of
from licquant.quant.layers import QuantizedLayer, QuantizedTensor
from licquant.quant.network import QuantizedModel, QuantizedPart
from licquant.quant.rd import RateDistortion, evaluate

Substitute = Callable[[Step, list[Tensor]], Tensor]  # what a step computes instead, from its inputs


class Probe:
    """Images and every tensor of the float network for them.

    images: [B, 3, H, W] in [0, 1], sides in 64s;  base: rate and distortion of the float model
    """

    def __init__(self, traced: TracedModel, images: Tensor) -> None:
        self.traced, self.images = traced, images
        self._tensors: dict[str, dict[str, Tensor]] = {}
        with torch.no_grad():
            self.base = evaluate(traced, self._record, images)

    def with_weights(self, quantized: QuantizedModel, part: str, step: Step) -> RateDistortion:
        """Rate and distortion with the weights of one layer as ``quantized`` has them, all else float."""
        found = quantized.part(part)
        layer = found.layers[step.name]
        weight = dequantized_weight(found, step.name)
        return self._evaluate(part, step.name, lambda step, x: _run(step, layer, x[0], weight))

    def with_activations(self, quantized: QuantizedModel, part: str, step: Step) -> RateDistortion:
        """Rate and distortion with what one layer reads as ``quantized`` has it, all else float."""
        tensors, layer = quantized.part(part).tensors, quantized.part(part).layers.get(step.name)
        read = _quantized_step(quantized.part(part), step.name).inputs

        def substitute(step: Step, x: list[Tensor]) -> Tensor:
            if step.kind == NORMALIZATION:
                assert layer is not None
                return _run(step, layer, x[0], layer.weight, tensors[squares_of(step.name)])
            return run_float(step, [_rounded(tensors[name], value) for name, value in zip(read, x, strict=True)])

        return self._evaluate(part, step.name, substitute)

    def _evaluate(self, part: str, changed: str, substitute: Substitute) -> RateDistortion:
        def run(name: str, value: Tensor) -> Tensor:
            kept, graph = self._tensors[name], self.traced.graphs[name]
            same = torch.equal(value, kept[INPUT])
            if name == part:
                return run_with_substitute(graph, value, kept if same else {}, changed, substitute)
            return kept[graph.output] if same else graph.forward(value)[graph.output]

        with torch.no_grad():
            return evaluate(self.traced, run, self.images)

    def _record(self, name: str, value: Tensor) -> Tensor:
        graph = self.traced.graphs[name]
        self._tensors[name] = graph.forward(value)
        return self._tensors[name][graph.output]


def run_with_substitute(
    graph: Graph, value: Tensor, kept: dict[str, Tensor], changed: str, substitute: Substitute
) -> Tensor:
    """The part's output with one step substituted; ``kept`` holds the unchanged tensors, if the input is unchanged."""
    tensors = {INPUT: value}
    stale = {changed} if kept else {INPUT}
    for step in graph:
        fresh = step.name != changed and not stale.intersection(step.inputs)
        if fresh:
            tensors[step.name] = kept[step.name]
            continue
        stale.add(step.name)
        inputs = [tensors[name] for name in step.inputs]
        tensors[step.name] = substitute(step, inputs) if step.name == changed else run_float(step, inputs)
    return tensors[graph.output]


def dequantized_weight(part: QuantizedPart, name: str) -> Tensor:
    """The real weights that a layer's integers stand for, in the shape of the model's own."""
    layer, scale = part.layers[name], part.weight_scale(_quantized_step(part, name))
    with torch.no_grad():
        return layer.integer_weight(scale) * layer.rows() / layer.columns(scale)


def _quantized_step(part: QuantizedPart, name: str) -> Step:
    """The step as the quantized graph has it: where a part's input gets a width of its own, it reads that."""
    return next(step for step in part.graph if step.name == name)


def _run(
    step: Step, layer: QuantizedLayer, x: Tensor, weight: Tensor, squares: QuantizedTensor | None = None
) -> Tensor:
    """The layer in floating point with other weights, or other squares."""
    if step.kind != NORMALIZATION:
        return apply_slope(layer.accumulate(x, weight, layer.bias), step.negative_slope)
    operand = layer.operand(x) if squares is None else _rounded(squares, layer.operand(x))
    return layer.normalized(x, layer.accumulate(operand, weight.clamp(min=0), layer.bias))


def _rounded(tensor: QuantizedTensor, value: Tensor) -> Tensor:
    return tensor.dequantize(tensor.quantize(value))
