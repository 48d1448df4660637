"""The grids of the parts' inputs and outputs, and which width every tensor inside gets from the plan."""

from dataclasses import replace
from enum import Enum

import numpy as np
from torch import nn

from licquant.config import MEAN_SCALE_HYPERPRIOR, SCALE_HYPERPRIOR, Plan
from licquant.models.graph import (
    ACTIVATION,
    ADDITION,
    IDENTITY_SLOPE,
    INPUT,
    PIXEL_SHUFFLE,
    TRANSPOSED_CONVOLUTION,
    Graph,
    Step,
)
from licquant.program.arithmetic import activation_range
from licquant.program.grid import Grid

LATENT_FRACTION_BITS = 8  # y and z on their way to rounding, ẑ with its medians, ŷ with its means
# ŷ with its means, and so the means, of the mean-scale hyperprior. What reads ŷ in 8 bits then has halves up to ±63.5
# for its grid: it neither clips what the calibration images did not reach nor rounds once more. A mean that is wrong by
# up to a quarter costs less. Families with contexts have not been tried on trained models: theirs stay fine.
MEAN_FRACTION_BITS = 1
SCALE_FRACTION_BITS = 10  # σ: a tenth of the finest step of the scale table; and μ
ENTROPY_PARAMETERS = "entropy_parameters"  # what the names of the parts begin with that read several parts' outputs
# What no matrix product reads: a GDN's numerator (its product reads squares, in the plan's own width), which is nearly
# the accumulator of the layer before, what is added, and what is brought to another grid first. Narrowing it would cost
# loss and save no time.
SPARE_BITS = 16
_UNPLANNED = (ADDITION, ACTIVATION, PIXEL_SHUFFLE)  # what reads bits to spare, or whatever its own readers read


def input_grid(family: str, part: str, channels: int) -> Grid | None:
    """What a part reads: pixels (g_a), latents in fixed point; None where it reads what other parts write.

    Where all means are 0, ŷ is integers.
    """
    if part == "g_a":
        return Grid.pixels(channels)
    if part.startswith(ENTROPY_PARAMETERS):
        return None
    of_y = {SCALE_HYPERPRIOR: 0, MEAN_SCALE_HYPERPRIOR: MEAN_FRACTION_BITS}.get(family, LATENT_FRACTION_BITS)
    return Grid.fixed_point(channels, of_y if part == "g_s" else LATENT_FRACTION_BITS)


def output_grid(family: str, part: str, channels: int) -> Grid | None:
    """What a part writes: pixels (g_s), y, z, or [σ, μ] in fixed point; None where entropy parameters read it."""
    if part == "g_s":
        return Grid.pixels(channels)
    if part in ("g_a", "h_a"):
        return Grid.fixed_point(channels, LATENT_FRACTION_BITS)
    gaussian = part == "h_s" and family in (SCALE_HYPERPRIOR, MEAN_SCALE_HYPERPRIOR)
    if gaussian or part.startswith(ENTROPY_PARAMETERS):
        return Grid.fixed_point(channels, SCALE_FRACTION_BITS)
    return None


def writes_means(family: str, part: str) -> bool:
    """Whether a part's output is [σ, μ] of which μ is rounded to ŷ's coarser fixed point."""
    return part == "h_s" and family == MEAN_SCALE_HYPERPRIOR


def unit_interval(channels: int, bits: int) -> Grid:
    """What a sigmoid writes: [0, 1] in equal steps."""
    return Grid(bits, np.full(channels, 1 / activation_range(bits)[1]), np.zeros(channels, dtype=np.int64))


def planned(graph: Graph) -> list[Step]:
    """The steps that a plan has an entry for: all but additions, lone activation functions and pixel shuffles."""
    return [step for step in graph if step.kind not in _UNPLANNED]


def with_input_step(graph: Graph, plan: Plan) -> Graph:
    """The graph with a first step that brings the part's input to the width that its layers read.

    Pixels are 8-bit integers already, so they need none unless the plan wants fewer bits; what other parts write for
    entropy parameters has the right width already; and a step that is an activation function itself (|y|) takes
    the input as it comes.
    """
    readers = [step for step in graph.consumers(INPUT) if step.kind != ACTIVATION]
    pixels = graph.name == "g_a" and tensor_bits(graph, INPUT, plan) >= 8
    if not readers or pixels or graph.name.startswith(ENTROPY_PARAMETERS):
        return graph
    first = Step(f"{graph.name}.{INPUT}", ACTIVATION, (INPUT,), negative_slope=IDENTITY_SLOPE)
    steps = tuple(
        replace(s, inputs=tuple(first.name if n == INPUT else n for n in s.inputs)) if s in readers else s
        for s in graph
    )
    return Graph(graph.name, (first, *steps))


def tensor_bits(graph: Graph, tensor: str, plan: Plan) -> int:
    """The width of a tensor inside a part: the widest that any of its readers asks for; see ``SPARE_BITS``."""
    readers = [s for s in graph.consumers(tensor) if not s.has_bits_to_spare]
    if not readers:
        return SPARE_BITS
    return max(
        tensor_bits(graph, s.name, plan) if s.kind == PIXEL_SHUFFLE else plan[s.name].activation for s in readers
    )


class ZeroPoints(Enum):
    """What the zero points of a tensor may be, for OpenVINO's INT8 kernels to run and to be right.

    FIXED:  where a transposed convolution reads it: mid-range, or 0 where nothing is negative, else it runs in float32
    SHARED: one for all channels where a convolution with padding reads it: with one for each channel, OpenVINO 2026.4
            pads with something else, and the borders are wrong by any amount
    FREE:   one for each channel
    """

    FIXED = 0
    SHARED = 1
    FREE = 2


def zero_points_of(graph: Graph, tensor: str) -> ZeroPoints:
    """By the tensor's readers; what has ``SPARE_BITS`` stays fixed."""
    readers = graph.consumers(tensor)
    kinds = {step.kind for step in readers}
    if TRANSPOSED_CONVOLUTION in kinds or all(step.has_bits_to_spare for step in readers):
        return ZeroPoints.FIXED
    padded = any(isinstance(step.module, nn.Conv2d) and any(map(int, step.module.padding)) for step in readers)
    return ZeroPoints.SHARED if padded else ZeroPoints.FREE


def squares_of(normalization: str) -> str:
    """The name of the tensor of squares that a GDN's matrix product reads."""
    return f"{normalization}/squares"
