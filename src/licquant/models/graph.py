"""The graph of a part: its layers as steps, in order of execution, each with its place in the plan.

    Step("g_a.0", CONVOLUTION, inputs=("input",), module=Conv2d(…))
    Step("g_a.1", GDN,         inputs=("g_a.0",), module=GDN(…))

An activation function is part of the step before it where nothing else reads that step's output; it is a
piecewise linear function with its knee at 0, so one number describes it: the slope for negative values. A masked
convolution is a convolution whose module has a mask.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from compressai.layers import GDN
from torch import Tensor, nn

INPUT = "input"

CONVOLUTION = "convolution"
TRANSPOSED_CONVOLUTION = "transposed convolution"
NORMALIZATION = "gdn"
ADDITION = "addition"
PRODUCT = "product"
SIGMOID = "sigmoid"
PIXEL_SHUFFLE = "pixel shuffle"
ACTIVATION = "activation"

_WITH_KNEE = (CONVOLUTION, TRANSPOSED_CONVOLUTION, ADDITION, ACTIVATION)
COPY = "/copy"  # ends the name of a tensor's copy
IDENTITY_SLOPE = 1.0  # slope for negative values: ReLU 0, leaky ReLU 0.01, absolute value -1


@dataclass(frozen=True, eq=False)
class Step:
    """One layer, elementwise operation or pixel shuffle.

    name:   its path in the model, e.g. ``g_a.2``; also the name of the tensor it writes
    kind:   one of those above;  module: the layer with its weights, for the first three kinds
    negative_slope: of the activation function that follows, see the top; 1.0 for none
    factor: of a pixel shuffle: [C · factor², H, W] becomes [C, factor · H, factor · W]
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    module: nn.Module | None = None
    negative_slope: float = IDENTITY_SLOPE
    factor: int = 1

    @property
    def has_weights(self) -> bool:
        """Whether it is a layer of the model, and no addition or other function."""
        return self.module is not None

    @property
    def is_identity(self) -> bool:
        """Whether it changes nothing but the grid."""
        return self.kind == ACTIVATION and self.negative_slope == IDENTITY_SLOPE

    @property
    def has_bits_to_spare(self) -> bool:
        """Whether what it reads may have any width, as no matrix product reads it.

        A GDN's numerator, what is added, and what is brought to another grid first.
        """
        return self.kind in (NORMALIZATION, ADDITION, ACTIVATION)


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
        """The tensor that the part writes."""
        return self.steps[-1].name

    @property
    def input_channels(self) -> int:
        """How many channels the part reads: those of its first layer with weights."""
        module = next(step.module for step in self.steps if step.module is not None)
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            return module.in_channels
        assert isinstance(module, GDN)
        return len(module.beta)

    def consumers(self, tensor: str) -> list[Step]:
        """The steps that read a tensor, in their order."""
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
        y = inputs[0] + inputs[1]
    elif step.kind == PRODUCT:
        y = inputs[0] * inputs[1]
    elif step.kind == SIGMOID:
        y = torch.sigmoid(inputs[0])
    elif step.kind == PIXEL_SHUFFLE:
        y = F.pixel_shuffle(inputs[0], step.factor)
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

    A pixel shuffle only moves values, so the activation function goes to the step before it. GDN, sigmoid and
    products compute their output from no accumulator that has a knee, so nothing is folded into them.
    """
    for step in graph:
        source = _fusible_source(graph, step) if step.kind == ACTIVATION else None
        if source is not None:
            steps = [
                replace(
                    s,
                    inputs=tuple(step.inputs[0] if n == step.name else n for n in s.inputs),
                    negative_slope=step.negative_slope if s is source else s.negative_slope,
                )
                for s in graph
                if s is not step
            ]
            return fuse_activations(Graph(graph.name, tuple(steps)))
    return graph


def with_copies(graph: Graph) -> Graph:
    """The graph with a copy of every tensor that both an addition and layers read, which the layers read instead.

    A copy has a grid of its own. So what goes around a residual block keeps bits of which it would lose a little with
    every sum, while the layers beside it read bytes.
    """
    copies = {
        tensor: Step(f"{graph.name}.{INPUT}{COPY}" if tensor == INPUT else f"{tensor}{COPY}", ACTIVATION, (tensor,))
        for tensor in (INPUT, *(step.name for step in graph))
        if any(step.kind == ADDITION for step in graph.consumers(tensor))
        and not all(step.has_bits_to_spare for step in graph.consumers(tensor))
    }
    steps = [copies[INPUT]] if INPUT in copies else []
    for step in graph:
        read = tuple(copies[n].name if n in copies and not step.has_bits_to_spare else n for n in step.inputs)
        steps += [replace(step, inputs=read), *([copies[step.name]] if step.name in copies else [])]
    return Graph(graph.name, tuple(steps))


def _fusible_source(graph: Graph, activation: Step) -> Step | None:
    """The step that the activation function can become part of, if any."""
    reader = activation
    while True:
        source = next((s for s in graph if s.name == reader.inputs[0]), None)
        if source is None or graph.consumers(source.name) != [reader]:
            return None
        if source.kind != PIXEL_SHUFFLE:
            fits = source.kind in _WITH_KNEE and source.negative_slope == IDENTITY_SLOPE
            return source if fits else None
        reader = source
