"""The dynamic network, simulated: stages of g_a and g_s in several widths that share one set of weights.

    x ──stage 0──> x₁ ──Σ_k p₁ₖ · stage 1 at bₖ──> x₂ ──Σ_k p₂ₖ · stage 2 at bₖ──> …       (figure 3 of DynaQuant)

The first stage has one width. p comes from a selector (``dynamic/selector.py``): soft in training, so that it has a
gradient, one-hot at inference, where only the chosen widths are computed. ``lower`` turns the same parameters into
``program.dynamic``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from licquant.config import Plan
from licquant.dynamic.nested import NestedLayer, NestedTensor
from licquant.dynamic.stages import (
    DYNAMIC_PARTS,
    FIXED_BITS,
    StageSteps,
    at_width,
    dynamic_plan,
    input_of,
    stages_of,
    with_stage_inputs,
)
from licquant.models.graph import INPUT, NORMALIZATION, PIXEL_SHUFFLE, SIGMOID, Graph, Step
from licquant.models.trace import TracedModel
from licquant.program.arithmetic import activation_range
from licquant.quant.calibrate import Statistics, TensorStatistics
from licquant.quant.grids import squares_of, tensor_bits
from licquant.quant.insert import QuantizerSettings, insert_quantizers
from licquant.quant.layers import QuantizedLayer, QuantizedTensor, ShuffledTensor
from licquant.quant.network import QuantizedModel, QuantizedPart
from licquant.quant.ranges import correct_bias, moments

# The centred integers that a selector reads [B, C, H, W] → the weights of the widths [B, stages, widths].
Select = Callable[[Tensor], Tensor]

_TINY = 1e-20


class StagePart(QuantizedPart):
    """A stage in one width, as a part of its own. Its grids and layers are the whole network's or nested in them."""

    def fit_units(self) -> None:
        """Nothing: they are fitted in the whole network."""


@dataclass(frozen=True, eq=False)
class QuantizedStage:
    """name: the module's path;  parts: width → the stage in that width, ascending"""

    name: str
    parts: Mapping[int, StagePart]

    @property
    def widths(self) -> tuple[int, ...]:
        """Bits, ascending."""
        return tuple(self.parts)

    @property
    def widest(self) -> StagePart:
        """The stage in the most bits: part of the wide network."""
        return self.parts[self.widths[-1]]

    @property
    def layers(self) -> list[str]:
        """Those that have a width."""
        return [step.name for step in self.widest.graph if step.has_weights]


class DynamicNetwork(nn.Module):
    """g_a or g_s with its stages in every width.

    wide:     the whole at the widest widths, whose weights all others are nested in
    stages:   the first has one width;  adaptive: the others
    shape:    how many stages choose, and from how many widths
    """

    def __init__(self, wide: QuantizedPart, stages: Sequence[QuantizedStage]) -> None:
        super().__init__()
        self.wide, self.stages = wide, tuple(stages)
        self.adaptive = self.stages[1:]
        self.shape = len(self.adaptive), len(self.adaptive[0].parts)
        self._registered = nn.ModuleList([part for stage in self.stages for part in stage.parts.values()])

    @property
    def selected(self) -> str:
        """The tensor that the selector reads: the first stage's output; for g_s its input.

        The paper's decoder reads the first stage too. What the decoder computes from ŷ may differ between machines in
        its last bit; ŷ itself does not, so neither do the widths that are chosen from it.
        """
        return INPUT if self.wide.graph.name == "g_s" else self.stages[0].widest.graph.output

    def read(self, value: Tensor) -> Tensor:
        """Real values of the input as centred integers."""
        return self.wide.tensors[INPUT].quantize(value)

    def real(self, q: Tensor) -> Tensor:
        """Centred integers of the output as real values."""
        return self.wide.tensors[self.wide.graph.output].dequantize(q)

    def forward(self, q: Tensor, select: Select) -> Tensor:
        """Centred integers of the input [B, C, H, W] to those of the output, mixed by the selector's weights."""
        value = self.stages[0].widest(q)
        for written in self.writing(value, select(q if self.selected == INPUT else value)):
            value = written
        return value

    def writing(self, value: Tensor, weights: Tensor, first: int = 0) -> Iterator[Tensor]:
        """What each of the ``adaptive`` stages writes, from the ``first`` on, which reads ``value``."""
        for stage, of_stage in zip(self.adaptive[first:], weights.unbind(1)[first:], strict=True):
            value = _mixed(stage, value, of_stage)
            yield value


def one_hot(chosen: Tensor, widths: int) -> Tensor:
    """The index of each stage's width [B, stages] → weights [B, stages, widths], as a ``Select`` gives them."""
    return F.one_hot(chosen, widths).float()


def _mixed(stage: QuantizedStage, q: Tensor, weights: Tensor) -> Tensor:
    """Σ_k weights[:, k] · (the stage at the k-th width); what no image of the batch wants is not computed."""
    total: Tensor | None = None
    for part, weight in zip(stage.parts.values(), weights.unbind(1), strict=True):
        wanted = torch.nonzero(weight.detach(), as_tuple=True)[0]
        if len(wanted) == 0:
            continue
        share = part(q[wanted]) * weight[wanted].view(-1, 1, 1, 1)
        if len(wanted) < len(q):
            share = share.new_zeros(len(q), *share.shape[1:]).index_copy(0, wanted, share)
        total = share if total is None else total + share
    assert total is not None
    return total


class DynamicModel(nn.Module):
    """A model whose g_a and g_s are dynamic.

    wide:  the model at the widest widths;  networks: part name → its dynamic network
    """

    def __init__(self, wide: QuantizedModel, networks: Mapping[str, DynamicNetwork]) -> None:
        super().__init__()
        self.wide, self.networks = wide, dict(networks)
        self._registered = nn.ModuleList(self.networks.values())

    @property
    def candidates(self) -> dict[str, tuple[int, ...]]:
        """Stage → its widths, without the first stages, which keep theirs."""
        return {stage.name: stage.widths for network in self.networks.values() for stage in network.adaptive}

    def run(self, name: str, value: Tensor, select: Select) -> Tensor:
        """A part on real values, for ``dataflow.code``; ``select`` is asked where the part is dynamic."""
        if name not in self.networks:
            return self.wide.run(name, value)
        network = self.networks[name]
        return network.real(network(network.read(value), select))


def insert_widest(
    traced: TracedModel, widest: int, statistics: Statistics, settings: QuantizerSettings | None = None
) -> QuantizedModel:
    """The network at the widest width, in which ``make_dynamic`` nests the others.

    statistics: with those of ``stage_statistics``
    """
    return insert_quantizers(with_stage_inputs(traced), dynamic_plan(traced, widest), statistics, settings)


def make_dynamic(
    wide: QuantizedModel, widths: Sequence[int], statistics: Statistics, settings: QuantizerSettings | None = None
) -> DynamicModel:
    """The dynamic network inside the one of ``insert_widest``; widths: ascending, the last is the wide one's."""
    chosen = settings or QuantizerSettings()
    networks = {}
    for name in DYNAMIC_PARTS:
        part = wide.part(name)
        steps = stages_of(part.graph)
        before = [INPUT, *(stage.output for stage in steps)]
        stages = [
            QuantizedStage(
                stage.name,
                {
                    bits: _Narrowing(part, stage, source, bits, wide.plan, statistics, chosen).part()
                    for bits in (widths if source != INPUT else (FIXED_BITS,))
                },
            )
            for stage, source in zip(steps, before, strict=False)
        ]
        networks[name] = DynamicNetwork(part, stages)
    return DynamicModel(wide, networks)


@dataclass(frozen=True, eq=False)
class _Narrowing:
    """A stage of a wide part on its way to fewer bits; source: the tensor that the stage before writes."""

    wide: QuantizedPart
    stage: StageSteps
    source: str
    bits: int
    plan: Plan
    statistics: Statistics
    settings: QuantizerSettings

    def part(self) -> StagePart:
        graph, tensors = self._graph(), {INPUT: self.wide.tensors[self.source]}
        for step in reversed(graph.steps):  # what a pixel shuffle reads has the grid of what it writes
            shuffle = next((s for s in graph.consumers(step.name) if s.kind == PIXEL_SHUFFLE), None)
            if shuffle is not None:
                tensors[step.name] = ShuffledTensor(tensors[shuffle.name], shuffle.factor)
            else:
                tensors[step.name] = self._tensor(step)
            if step.kind == NORMALIZATION:
                tensors[squares_of(step.name)] = self._squares(step)
        layers = {step.name: self._layer(step, tensors) for step in graph if step.has_weights}
        part = StagePart(graph, tensors, layers)
        for step in graph:
            layer = part.layers.get(step.name)
            if isinstance(layer, NestedLayer):
                mean, _ = moments(self._found(step.inputs[0]), layer.power)
                correct_bias(layer, part.weight_scale(step).detach(), mean)
        return part

    def _graph(self) -> Graph:
        """The stage's steps, on what the stage before writes."""
        steps = [
            replace(step, inputs=tuple(INPUT if name == self.source else name for name in step.inputs))
            for step in self.stage.steps
        ]
        return Graph(self.stage.name, tuple(steps))

    def _bits(self, tensor: str) -> int:
        return tensor_bits(self.wide.graph, tensor, at_width(self.stage, self.plan, self.bits))

    def _found(self, tensor: str) -> TensorStatistics:
        return self.statistics[input_of(self.stage.name) if tensor == INPUT else tensor]

    def _tensor(self, step: Step) -> QuantizedTensor:
        tensor, bits = self.wide.tensors[step.name], self._bits(step.name)
        if step.name == self.stage.output or bits == tensor.bits:
            return tensor
        if step.kind == SIGMOID:
            nested = NestedTensor(tensor, self.bits, activation_range(tensor.bits)[1] / activation_range(self.bits)[1])
            nested.log_factor.requires_grad_(False)
            return nested
        high = activation_range(tensor.bits)[1]
        scale, zero_point = tensor.scale.detach(), tensor.zero_point
        share = self._range_share(self._found(step.name), bits, zero_point * scale, (high - zero_point) * scale)
        return NestedTensor(tensor, bits, share * high / activation_range(bits)[1])

    def _squares(self, step: Step) -> QuantizedTensor:
        squares = self.wide.tensors[squares_of(step.name)]
        if self.bits == squares.bits:
            return squares
        high = activation_range(squares.bits)[1]
        power = self.wide.layers[step.name].power
        limit = high * squares.scale.detach()
        limit = torch.sqrt(limit) if power == 2 else limit
        share = self._range_share(self._found(step.inputs[0]), self.bits, limit, limit)
        return NestedTensor(squares, self.bits, share**power * high / activation_range(self.bits)[1])

    def _range_share(self, found: TensorStatistics, bits: int, below: Tensor, above: Tensor) -> float:
        """The part of the wide range that fewer bits should span: by the method for ranges, of all channels together.

        below, above: how far from 0 the wide range goes, [C]; what lies beyond it is clipped already
        """
        bounds = torch.where(found.centres < 0, below[:, None], above[:, None])
        shares = found.centres.abs() / bounds.clamp(min=_TINY)
        limit = self.settings.range_method(shares.view(1, -1), found.counts.view(1, -1), bits, bool((below > 0).any()))
        return min(1.0, float(limit))

    def _layer(self, step: Step, tensors: Mapping[str, QuantizedTensor]) -> QuantizedLayer:
        layer = self.wide.layers[step.name]
        if layer.bits == self.bits:
            return layer
        operand = squares_of(step.name) if step.kind == NORMALIZATION else step.inputs[0]
        return NestedLayer(self.wide, step, self.bits, tensors[operand])
