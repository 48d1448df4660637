"""The grids of the parts' inputs and outputs, and which width every tensor inside gets from the plan."""

from licquant.config import Plan
from licquant.models.graph import ACTIVATION, IDENTITY_SLOPE, INPUT, NORMALIZATION, Graph, Step
from licquant.program.grid import Grid

LATENT_FRACTION_BITS = 8  # y and z on their way to rounding, ẑ with its medians
SCALE_FRACTION_BITS = 10  # σ: a tenth of the finest step of the scale table
# What only a GDN reads: its matrix product reads squares in the plan's own width, and its numerator, which no
# matrix product reads, is nearly the accumulator of the layer before. Narrowing it would cost loss and save no time.
NUMERATOR_BITS = 16


def input_grid(part: str, channels: int) -> Grid:
    """What a part reads: pixels (g_a), y in fixed point (h_a), ẑ in fixed point (h_s), integer ŷ (g_s)."""
    if part == "g_a":
        return Grid.pixels(channels)
    return Grid.fixed_point(channels, 0 if part == "g_s" else LATENT_FRACTION_BITS)


def output_grid(part: str, channels: int) -> Grid:
    """What a part writes: y (g_a) and z (h_a) in fixed point, σ (h_s) in fixed point, pixels (g_s)."""
    if part == "g_s":
        return Grid.pixels(channels)
    return Grid.fixed_point(channels, SCALE_FRACTION_BITS if part == "h_s" else LATENT_FRACTION_BITS)


def planned(graph: Graph) -> list[Step]:
    """The steps that a plan has an entry for: all but lone activation functions."""
    return [step for step in graph if step.kind != ACTIVATION]


def with_input_step(graph: Graph, plan: Plan) -> Graph:
    """The graph with a first step that brings the part's input to the width that its layers read.

    Pixels are 8-bit integers already, so they need none unless the plan wants fewer bits; and a step that is an
    activation function itself (|y|) takes the input as it comes.
    """
    readers = [step for step in graph.consumers(INPUT) if step.kind != ACTIVATION]
    if not readers or (graph.name == "g_a" and tensor_bits(graph, INPUT, plan) >= 8):
        return graph
    first = Step(f"{graph.name}.{INPUT}", ACTIVATION, (INPUT,), negative_slope=IDENTITY_SLOPE)
    steps = tuple(
        Step(
            s.name,
            s.kind,
            s.inputs if s not in readers else tuple(first.name if n == INPUT else n for n in s.inputs),
            s.module,
            s.negative_slope,
        )
        for s in graph
    )
    return Graph(graph.name, (first, *steps))


def tensor_bits(graph: Graph, tensor: str, plan: Plan) -> int:
    """The width of a tensor inside a part: the widest that any of its readers asks for; see ``NUMERATOR_BITS``."""
    readers = [s for s in graph.consumers(tensor) if s.kind != NORMALIZATION]
    if not readers:
        return NUMERATOR_BITS
    return max(plan[s.name].activation if s.kind != ACTIVATION else tensor_bits(graph, s.name, plan) for s in readers)


def squares_of(normalization: str) -> str:
    """The name of the tensor of squares that a GDN's matrix product reads."""
    return f"{normalization}/squares"
