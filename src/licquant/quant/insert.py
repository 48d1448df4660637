"""Quantized graphs from a traced model, a plan and calibration statistics."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from licquant.config import Plan
from licquant.models.graph import ADDITION, INPUT, NORMALIZATION, PIXEL_SHUFFLE, SIGMOID, Graph, Step
from licquant.models.trace import TracedModel
from licquant.program.arithmetic import activation_range
from licquant.quant.calibrate import Statistics, TensorStatistics
from licquant.quant.dataflow import sources
from licquant.quant.grids import (
    ENTROPY_PARAMETERS,
    MEAN_FRACTION_BITS,
    SPARE_BITS,
    ZeroPoints,
    input_grid,
    output_grid,
    squares_of,
    tensor_bits,
    unit_interval,
    with_input_step,
    writes_means,
    zero_points_of,
)
from licquant.quant.layers import ParametersTensor, QuantizedLayer, QuantizedTensor, ShuffledTensor
from licquant.quant.network import QuantizedModel, QuantizedPart, layer_names
from licquant.quant.ranges import (
    RangeMethod,
    ScaleRule,
    activation_scale,
    fit_weight_ranges,
    free_scale,
    largest_magnitude,
    min_mse,
    scale_of_multiples,
    shared_zero_point_scale,
)


@dataclass(frozen=True)
class QuantizerSettings:
    """How activation ranges are chosen.

    ``benchmarks/ranges.py`` measures the choices: at 8 bits a grid per channel loses a third of what one per tensor
    does, by whatever method; at 5 bits ``min_mse`` loses less than the others.

    free_zero_points: ranges follow the extremes on both sides of 0, as far as ``grids.ZeroPoints`` allows
    """

    range_method: RangeMethod = min_mse
    per_channel: bool = True
    free_zero_points: bool = False


def insert_quantizers(
    traced: TracedModel, plan: Plan, statistics: Statistics, settings: QuantizerSettings | None = None
) -> QuantizedModel:
    """The model on integers with the widths of the plan, weights rounded to nearest.

    Raises ``PlanError`` unless the plan covers exactly the model's layers.
    """
    plan.check(layer_names(traced))
    chosen = settings or QuantizerSettings()
    width = _joined_bits(traced, plan)
    parts: dict[str, QuantizedPart] = {}
    for name, graph in traced.graphs.items():
        whole = with_input_step(graph, plan)
        parts[name] = _Insertion(traced.family, whole, plan, statistics, chosen, width).part(parts)
    return QuantizedModel(traced, plan, parts)


def _joined_bits(traced: TracedModel, plan: Plan) -> int:
    """The width of what the parts of entropy parameters read: they share h_s's output, so one for all of them."""
    graphs = [graph for name, graph in traced.graphs.items() if name.startswith(ENTROPY_PARAMETERS)]
    return max((tensor_bits(graph, INPUT, plan) for graph in graphs), default=0)


@dataclass(frozen=True, eq=False)
class _Insertion:
    """One part on its way; graph: with its input step; width: of outputs that entropy parameters read."""

    family: str
    graph: Graph
    plan: Plan
    statistics: Statistics
    settings: QuantizerSettings
    width: int

    def part(self, before: Mapping[str, QuantizedPart]) -> QuantizedPart:
        """before: the parts whose outputs this one may read."""
        graph = self.graph
        tensors = {INPUT: self._input(before)}
        layers = {s.name: QuantizedLayer(s, self.plan[s.name].weight or 0) for s in graph if s.has_weights}
        for step in reversed(graph.steps):  # what a pixel shuffle reads has the grid of what it writes
            shuffle = next((s for s in graph.consumers(step.name) if s.kind == PIXEL_SHUFFLE), None)
            if shuffle is not None:
                tensors[step.name] = ShuffledTensor(tensors[shuffle.name], shuffle.factor)
            else:
                tensors[step.name] = self._output() if step.name == graph.output else self._inner(step)
            if step.kind == NORMALIZATION:
                found, bits = self.statistics[step.inputs[0]], self.plan[step.name].activation
                tensors[squares_of(step.name)] = _squares(found, bits, self.settings, layers[step.name].power)
        self._share_scales(tensors)
        part = QuantizedPart(graph, tensors, layers)
        fit_weight_ranges(part, self.statistics)
        return part

    def _share_scales(self, tensors: Mapping[str, QuantizedTensor]) -> None:
        """Give all that is added to one another one scale: a sum is then that of the integers, and loses nothing.

        Training leaves these as they are: of 16 bits it could win nothing.
        """
        path_of = dict[str, set[str]]()
        for step in self.graph:
            if step.kind == ADDITION:
                names = {n for n in (step.name, *step.inputs) if n != INPUT and tensors[n].bits == SPARE_BITS}
                path = names.union(*(path_of[n] for n in names if n in path_of))
                path_of |= dict.fromkeys(path, path)
        for name, path in path_of.items():
            largest = torch.stack([tensors[n].log_scale.data for n in sorted(path)]).amax(0)
            tensors[name].log_scale.data.copy_(largest)
            tensors[name].log_scale.requires_grad_(False)

    def _input(self, before: Mapping[str, QuantizedPart]) -> QuantizedTensor:
        name = self.graph.name
        grid = input_grid(self.family, name, len(self.statistics[f"{name}.{INPUT}"].low))
        if grid is not None:
            return QuantizedTensor.of(grid)
        read = [before[source] for source in sources(self.family, name)]
        return QuantizedTensor.joined([part.tensors[part.graph.output] for part in read])

    def _output(self) -> QuantizedTensor:
        found = self.statistics[self.graph.output]
        grid = output_grid(self.family, self.graph.name, len(found.low))
        if grid is not None and writes_means(self.family, self.graph.name):
            return ParametersTensor.of_means(grid, 2.0**-MEAN_FRACTION_BITS)
        if grid is not None:
            return QuantizedTensor.of(grid)
        tensor = self._calibrated(found, self.width)
        tensor.log_scale.requires_grad_(False)
        return tensor

    def _inner(self, step: Step) -> QuantizedTensor:
        found, bits = self.statistics[step.name], tensor_bits(self.graph, step.name, self.plan)
        if step.kind == SIGMOID:
            return QuantizedTensor.of(unit_interval(len(found.low), bits))
        if any(reader.kind == SIGMOID for reader in self.graph.consumers(step.name)):
            return _sigmoid_input(found, bits, self.settings)
        zero_points = zero_points_of(self.graph, step.name) if self.settings.free_zero_points else ZeroPoints.FIXED
        tensor = self._calibrated(found, bits, _SCALES[zero_points])
        read = input_grid(self.family, self.graph.name, len(found.low))
        if read is not None and step.inputs == (INPUT,) and step.is_identity:  # ŷ is on a coarse grid, ẑ on a fine one
            unit = float(read.scale.max())
            scale = scale_of_multiples(found, bits, unit, tensor.scale, tensor.zero_point)
            tensor.log_scale.data.copy_(scale.log())
            # Training would move ŷ's off what is exact: integers lie farthest from the boundaries, where the slope of
            # the distance-aware gradient is least, and not 1 on average.
            tensor.log_scale.requires_grad_(unit < 2.0**-MEAN_FRACTION_BITS or not bool((scale == unit).any()))
        return tensor

    def _calibrated(self, found: TensorStatistics, bits: int, choose: ScaleRule = activation_scale) -> QuantizedTensor:
        return QuantizedTensor(bits, *choose(found, bits, self.settings.range_method, self.settings.per_channel))


_SCALES: dict[ZeroPoints, ScaleRule] = {
    ZeroPoints.FIXED: activation_scale,
    ZeroPoints.SHARED: shared_zero_point_scale,
    ZeroPoints.FREE: free_scale,
}


def _sigmoid_input(found: TensorStatistics, bits: int, settings: QuantizerSettings) -> QuantizedTensor:
    """One scale for all channels, as the function is one for all; no further than where it is 0 or 1 in b bits."""
    scale, zero_point = activation_scale(found, bits, settings.range_method, per_channel=False)
    largest = (bits + 1) * math.log(2) / (activation_range(bits)[1] / 2)
    return QuantizedTensor(bits, scale.clamp(max=largest), zero_point)


def _squares(read: TensorStatistics, bits: int, settings: QuantizerSettings, power: int) -> QuantizedTensor:
    """The grid of the squares of a tensor: up to the square of the range that the tensor itself would get.

    power: 1 for magnitudes
    """
    limit = largest_magnitude(read, bits, settings.range_method, settings.per_channel)
    return QuantizedTensor(bits, limit**power / activation_range(bits)[1], torch.zeros_like(limit))
