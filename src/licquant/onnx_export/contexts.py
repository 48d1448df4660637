"""Contexts, alike for every family: a model for each group of channels, which reads some positions side by side.

    ŷ of the group where its taps lie ──neighbours──> context ──────┐
    hyper, and what channelsK makes of the groups before ──known────┴──entropy parameters──> table and mean

In which pass a position is, is a number, its *time*: (column + step · row) mod period. Anti-diagonals have a period
that no plane reaches, checkerboards have 1 and 2, and no context at time 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from licquant.codec.latents.channel_groups import ChannelGroupsCoder
from licquant.codec.latents.context import AutoregressiveCoder
from licquant.codec.latents.families import LatentCoder
from licquant.codec.latents.hyperprior import GaussianCoder
from licquant.codec.latents.orders import Diagonals
from licquant.codec.latents.spatial import SpatialContext
from licquant.errors import ExportError
from licquant.onnx_export import latents
from licquant.onnx_export.graph import Dimension, Graph, Value
from licquant.onnx_export.parts import emit
from licquant.onnx_export.sums import stored_type
from licquant.program.arithmetic import Ints
from licquant.program.grid import Grid
from licquant.program.ops import Convolution, Operation, Requantize, Rescaling
from licquant.program.part import Part, Program

PLANE = ("y_height", "y_width")
POSITIONS = (1, "positions")
ENDLESS = 1 << 30  # a period


def spatial_contexts(coder: LatentCoder) -> list[SpatialContext]:
    """One for each group of channels; none where all symbols of y are one pass."""
    if isinstance(coder, ChannelGroupsCoder):
        return [group.spatial for group in coder.groups]
    return [coder.context] if isinstance(coder, AutoregressiveCoder) else []


def order_record(contexts: list[SpatialContext]) -> dict[str, Any]:
    """In which passes the symbols of y are coded, as ``tables.json`` has it."""
    order = contexts[0].order
    step, period = (order.step, ENDLESS) if isinstance(order, Diagonals) else (1, 2)
    ends = np.cumsum([one.convolution.channels for one in contexts]).tolist()
    groups = [
        {"channels": [end - one.convolution.channels, end], "taps": one.convolution.taps.tolist()}
        for one, end in zip(contexts, ends, strict=True)
    ]
    margin = max(one.convolution.margin for one in contexts)
    return {"step": step, "period": period, "margin": margin, "groups": groups}


def context_graphs(coder: GaussianCoder, program: Program) -> Iterator[Graph]:
    """context0, and for each further group of channels channelsK and contextK."""
    hyper = coder.h_s.output_grid
    for k, spatial in enumerate(spatial_contexts(coder)):
        if isinstance(coder, ChannelGroupsCoder):
            context, parameters, first = program[f"spatial_context.y{k}"], program[f"entropy_parameters.y{k}"], True
        else:
            assert isinstance(coder, AutoregressiveCoder)
            context, parameters = program["context_prediction"], program["entropy_parameters"]
            first = coder.context_first
        if k:
            yield _channels(f"channels{k}", program[f"channel_context.y{k}"], hyper)
        graph = Graph(f"context{k}")
        seen = _seen(graph, context, spatial)
        count = parameters.input_grid.channels - context.output_grid.channels
        known = graph.input("known", stored_type(hyper), [1, count, *POSITIONS])
        joined = graph.node("Concat", *((seen, known) if first else (known, seen)), axis=1)
        found = emit(graph, parameters, joined, doubles=False)
        channels = context.input_grid.channels
        outputs = latents.gaussian_parameters(graph, coder.quantizer, found, channels)
        latents.parameters_out(graph, outputs, [1, channels, *POSITIONS])
        yield graph


def _channels(name: str, part: Part, hyper: Grid) -> Graph:
    """ŷ of all groups before, and hyper → what the next group's context knows of every position."""
    graph, before = Graph(name), part.input_grid
    y_hat = graph.input("y_hat", stored_type(before), [1, before.channels, *PLANE])
    known = graph.input("hyper", stored_type(hyper), [1, hyper.channels, *PLANE])
    joined = graph.node("Concat", emit(graph, part, y_hat, doubles=False), known, axis=1)
    graph.output("known", joined, stored_type(hyper), [1, part.output_grid.channels + hyper.channels, *PLANE])
    return graph


def _seen(graph: Graph, context: Part, spatial: SpatialContext) -> Value:
    """The context at some positions, from what its taps read at each of them, channel by channel."""
    part, grid = _gathered(context, spatial.convolution.taps), context.output_grid
    shape: list[Dimension] = [1, part.input_grid.channels, *POSITIONS]
    seen = emit(graph, part, graph.input("neighbours", stored_type(part.input_grid), shape), doubles=False)
    time = graph.input("time", np.int32, [1])
    if isinstance(spatial.order, Diagonals):
        return seen  # at any time
    return graph.node("Where", graph.cast(time, np.bool_), seen, graph.channels(grid.zero_point, stored_type(grid)))


def _gathered(part: Part, taps: Ints) -> Part:
    """A context whose convolution reads its taps [T, 2] (down, right) as channels, c·T + t, of one position.

    Raises ``ExportError`` if anything but a change of grid comes before the convolution: outside of the plane it would
    have to be left out.
    """
    at = next(i for i, op in enumerate(part.operations) if not isinstance(op, Requantize))
    count, convolution = len(taps), part.operations[at]
    if not isinstance(convolution, Convolution) or convolution.kernel == (1, 1):
        raise ExportError(f"{convolution.name}: only a change of grid may come before the convolution of a context")
    before: list[Operation] = []
    for op in part.operations[:at]:
        assert isinstance(op, Requantize)
        own = op.rescaling
        rescaling = Rescaling(*(v.repeat(count) for v in (own.positive, own.negative, own.shift)))
        before.append(replace(op, grid=_repeated(op.grid, count), rescaling=rescaling))
    weight = convolution.weight[:, :, taps[:, 0] + convolution.padding, taps[:, 1] + convolution.padding]
    pointwise = replace(convolution, weight=weight.reshape(len(weight), -1, 1, 1), padding=0)
    operations = (*before, pointwise, *part.operations[at + 1 :])
    return Part(part.name, _repeated(part.input_grid, count), operations)


def _repeated(grid: Grid, count: int) -> Grid:
    return Grid(grid.bits, grid.scale.repeat(count), grid.zero_point.repeat(count))
