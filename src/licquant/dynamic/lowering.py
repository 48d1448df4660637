"""Dynamic network → dynamic parts of a program, around the widest program that ``lower_model`` gives."""

from __future__ import annotations

from collections.abc import Mapping

from licquant.dynamic.network import DynamicModel, DynamicNetwork
from licquant.dynamic.selector import BitWidthSelector
from licquant.lower.program import lower_model, lower_part
from licquant.program.dynamic import DynamicPart, Stage, split
from licquant.program.part import Part, Program
from licquant.program.selector import Selector


def lower_dynamic(
    model: DynamicModel, selectors: Mapping[str, BitWidthSelector]
) -> tuple[Program, dict[str, DynamicPart]]:
    """The program at the widest widths, and its dynamic parts; ``LoweringError`` if a layer cannot be expressed.

    selectors: one for each dynamic part
    """
    program = lower_model(model.wide)
    dynamic = {
        name: _lower_network(network, program[name], selectors[name]) for name, network in model.networks.items()
    }
    return program, dynamic


def _lower_network(network: DynamicNetwork, part: Part, selector: BitWidthSelector) -> DynamicPart:
    widest = split(part, [len(stage.widest.graph) for stage in network.stages])
    stages = []
    for stage, piece in zip(network.stages, widest, strict=True):
        *narrower, width = stage.parts
        parts = {bits: _named(lower_part(stage.parts[bits]), piece.name) for bits in narrower}
        stages.append(Stage(stage.name, {**parts, width: piece}))
    selector.network.fit_units()  # as large as the weights have become
    candidates = tuple(stage.widths for stage in network.adaptive)
    chooser = Selector(network.selected, candidates, lower_part(selector.network))
    return DynamicPart(part, tuple(stages), chooser)


def _named(part: Part, name: str) -> Part:
    return Part(name, part.input_grid, part.operations)
