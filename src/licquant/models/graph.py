"""The graph of a part: its layers as steps, in order of execution, each with its place in the plan.

    Step("g_a.0", CONVOLUTION, inputs=("input",), module=Conv2d(…))
    Step("g_a.1", GDN,         inputs=("g_a.0",), module=GDN(…))

An activation function is part of the step before it where nothing else reads that step's output; it is a
piecewise linear function with its knee at 0, so one number describes it: the slope for negative values.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

INPUT = "input"

CONVOLUTION = "convolution"
TRANSPOSED_CONVOLUTION = "transposed convolution"
NORMALIZATION = "gdn"
ADDITION = "addition"
ACTIVATION = "activation"

IDENTITY_SLOPE = 1.0  # slope for negative values: ReLU 0, leaky ReLU 0.01, absolute value -1


@dataclass(frozen=True, eq=False)
class Step:
    """One layer, addition or lone activation function.

    name: its path in the model, e.g. ``g_a.2``; also the name of the tensor it writes
    kind: one of the five above;  module: the layer with its weights, None for the last two kinds
    negative_slope: of the activation function that follows, see the top; 1.0 for none
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    module: nn.Module | None = None
    negative_slope: float = IDENTITY_SLOPE

    @property
    def has_weights(self) -> bool:
        return self.module is not None


@dataclass(frozen=True, eq=False)
class Graph:
    """A part as steps; the last step's output is the part's."""

    name: str
    steps: tuple[Step, ...]

    def __iter__(self) -> Iterator[Step]:
        return iter(self.steps)

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def output(self) -> str:
        return self.steps[-1].name

    def consumers(self, tensor: str) -> list[Step]:
        return [step for step in self.steps if tensor in step.inputs]

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Every tensor of the float network, by name, for the input x [B, C, H, W]."""
        tensors = {INPUT: x}
        for step in self.steps:
            tensors[step.name] = run_float(step, [tensors[name] for name in step.inputs])
        return tensors


def run_float(step: Step, inputs: Sequence[Tensor]) -> Tensor:
    """The step in floating point, as the original model computes it."""
    if step.module is not None:
        y = step.module(inputs[0])
    elif step.kind == ADDITION:
        y = torch.stack(list(inputs)).sum(dim=0)
    else:
        y = inputs[0]
    return apply_slope(y, step.negative_slope)


def apply_slope(y: Tensor, negative_slope: float) -> Tensor:
    """y for y >= 0, negative_slope · y for y < 0."""
    if negative_slope == IDENTITY_SLOPE:
        return y
    return F.relu(y) if negative_slope == 0 else torch.where(y < 0, negative_slope * y, y)


def fuse_activations(graph: Graph) -> Graph:
    """Fold each lone activation function into the step before it where that step's output has no other reader.

    GDN computes its output from a root, not from an accumulator, so nothing is folded into it.
    """
    steps = list(graph.steps)
    position = 0
    while position < len(steps):
        step = steps[position]
        source = next((s for s in steps if s.name in step.inputs), None) if step.kind == ACTIVATION else None
        readers = sum(s.inputs.count(source.name) for s in steps) if source else 0
        plain = source is not None and source.kind != NORMALIZATION and source.negative_slope == IDENTITY_SLOPE
        if source is None or not plain or readers > 1:
            position += 1
            continue
        steps[steps.index(source)] = replace(source, negative_slope=step.negative_slope)
        steps.pop(position)
        steps = [replace(s, inputs=tuple(source.name if n == step.name else n for n in s.inputs)) for s in steps]
    return Graph(graph.name, tuple(steps))
