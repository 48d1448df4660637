"""The stages of a part: its child modules, each with the GDN that follows it (the paper's DQ-Blocks)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from licquant.config import MAX_BITS, MIN_BITS, LayerBits, Plan
from licquant.errors import ModelError
from licquant.models.graph import ACTIVATION, IDENTITY_SLOPE, INPUT, NORMALIZATION, PIXEL_SHUFFLE, Graph, Step
from licquant.models.trace import TracedModel
from licquant.quant.calibrate import Statistics
from licquant.quant.network import uniform_plan

DYNAMIC_PARTS = ("g_a", "g_s")
FIXED_BITS = 8  # where the image decides nothing


@dataclass(frozen=True, eq=False)
class StageSteps:
    """Consecutive steps of a part's graph; name: the module's path, e.g. ``g_a.2``."""

    name: str
    steps: tuple[Step, ...]

    @property
    def output(self) -> str:
        """The tensor that the next stage reads."""
        return self.steps[-1].name

    def __contains__(self, layer: object) -> bool:
        return any(step.name == layer for step in self.steps)


def stages_of(graph: Graph) -> list[StageSteps]:
    """The stages of g_a or g_s, in order.

    What has no weights (an addition, a pixel shuffle) goes with the module before it, at the beginning with the one
    after it, and what brings a tensor to another grid with the layer that reads it; a GDN, the activation function of
    its convolution, goes with it too: handing on what stands between them takes longer than most convolutions.
    ``ModelError`` unless each stage reads the one before alone.
    """
    found: list[tuple[str, list[Step]]] = []
    pending: list[Step] = []
    for step in graph:
        name = _module_of(graph, step)
        begins = not found or pending or (step.is_identity and name != found[-1][0])
        if not begins and (name == found[-1][0] or not step.has_weights or step.kind == NORMALIZATION):
            found[-1][1].append(step)
        elif step.has_weights:
            found.append((name, [*pending, step]))
            pending = []
        else:
            pending.append(step)
    stages = [StageSteps(name, tuple(steps)) for name, steps in found]
    _check_chain(graph, stages)
    return stages


def _module_of(graph: Graph, step: Step) -> str:
    readers = [s for s in graph.consumers(step.name) if s.has_weights] if step.is_identity else []
    return ".".join((readers or [step])[0].name.split("@")[0].split(".")[:2])


def with_stage_inputs(traced: TracedModel) -> TracedModel:
    """The model with a step before every stage but the first that brings what it reads to its width.

    What the stage before writes then has bits to spare (``grids.SPARE_BITS``): rounded to 8 bits first and to 7 then,
    it would lose a third more than what 7 bits lose.
    """
    graphs = dict(traced.graphs)
    for name in DYNAMIC_PARTS:
        first, *others = stages_of(graphs[name])
        before, steps = first.output, list(first.steps)
        for stage in others:
            brought = Step(input_of(stage.name), ACTIVATION, (before,), negative_slope=IDENTITY_SLOPE)
            steps += [brought, *(_reading(step, before, brought.name) for step in stage.steps)]
            before = stage.output
        graphs[name] = Graph(name, tuple(steps))
    return replace(traced, graphs=graphs)


def input_of(stage: str) -> str:
    """The name of a stage's input in its own width."""
    return f"{stage}.{INPUT}"


def _reading(step: Step, old: str, new: str) -> Step:
    """The step with an input renamed; a GDN reads what has bits to spare, see ``grids.SPARE_BITS``."""
    if step.kind == NORMALIZATION:
        return step
    return replace(step, inputs=tuple(new if name == old else name for name in step.inputs))


def stage_statistics(traced: TracedModel, statistics: Statistics) -> Statistics:
    """The statistics with those of the stages' inputs under the names that ``with_stage_inputs`` gives them."""
    found = dict(statistics)
    for name in DYNAMIC_PARTS:
        stages = stages_of(traced.graphs[name])
        found |= {input_of(stage.name): statistics[before.output] for before, stage in pairwise(stages)}
    return found


def _check_chain(graph: Graph, stages: Sequence[StageSteps]) -> None:
    before = INPUT
    for stage in stages:
        inside = {step.name for step in stage.steps}
        for step in stage.steps:
            reads = set(step.inputs) - inside
            if reads - {before}:
                raise ModelError(f"{graph.name}: {step.name} reads more than the module before it writes: no stages")
            if reads and before != INPUT and step.kind == PIXEL_SHUFFLE:
                raise ModelError(f"{graph.name}: {stage.name} begins with a pixel shuffle: no stages")
        before = stage.output
    if len(stages) < 2:
        raise ModelError(f"{graph.name}: has one stage, whose width is fixed")


def dynamic_plan(traced: TracedModel, widest: int) -> Plan:
    """The plan with that width for every stage that chooses, 8 bits for the first of g_a and g_s and all other parts.

    Raises as ``stages_of``.
    """
    layers = dict(uniform_plan(traced, FIXED_BITS, FIXED_BITS))
    for name in DYNAMIC_PARTS:
        for stage in stages_of(traced.graphs[name])[1:]:
            layers |= at_width(stage, Plan(layers), widest)
    return Plan(layers)


def check_widths(widths: Sequence[int]) -> None:
    """``ModelError`` for candidates that are not at least two different widths from 2 to 16."""
    if len(set(widths)) < 2 or not all(MIN_BITS <= width <= MAX_BITS for width in widths):
        raise ModelError(f"candidate widths are at least two from {MIN_BITS} to {MAX_BITS}, not {list(widths)}")


def at_width(stage: StageSteps, plan: Plan, bits: int) -> Plan:
    """The plan with all layers of one stage at that width."""
    return Plan(
        {
            name: LayerBits(None if layer.weight is None else bits, bits) if name in stage else layer
            for name, layer in plan.items()
        }
    )
