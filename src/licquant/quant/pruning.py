"""Channels of the latents that are the same on all calibration images, taken out of the float model.

Such a channel of z (or of y, where its symbols are those of [y]) is made constant for every image: the layer that
writes it gets weights of zero, and so do those that read it, as far as its value lets them. Lowering then leaves out
what nothing reads, and zeros take next to no bytes. All images stay decodable: it is another, smaller model.

What it costs is what images lose that would have used a channel which no calibration image has used.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from licquant.config import FACTORIZED, SCALE_HYPERPRIOR
from licquant.models.graph import ACTIVATION, IDENTITY_SLOPE, INPUT, Graph, Step, apply_slope
from licquant.models.trace import TracedModel
from licquant.quant.calibrate import Calibrated, TensorStatistics
from licquant.quant.dataflow import medians_of
from licquant.quant.gradients import round_half_up


class Pruned(NamedTuple):
    """channels: latent, ``y`` or ``z`` → (how many of its channels are constant now, of how many)"""

    calibrated: Calibrated
    channels: Mapping[str, tuple[int, int]]


@dataclass(frozen=True, eq=False)
class _Latent:
    """writes: the part whose output it is;  reads: those whose input;  values: where its symbols are 0, [C]"""

    writes: Graph
    reads: tuple[Graph, ...]
    values: Tensor


def prune(found: Calibrated) -> Pruned:
    """The model without what its calibration images do not use, and how much that is; ``found`` stays as it is.

    Means and contexts add to y before it is rounded, so that of families that have them only z is pruned; nothing of
    a latent that other layers than plain convolutions write or read. h_a reads y before it is rounded, and then reads 0
    where y was nearly 0.
    """
    traced = copy.deepcopy(found.traced)
    channels = {}
    for name, latent in _latents(traced).items():
        seen = found.statistics[latent.writes.output]
        channels[name] = _take_out(latent, seen), len(seen.low)
    return Pruned(Calibrated(traced, found.statistics), channels)


def _latents(traced: TracedModel) -> dict[str, _Latent]:
    graphs = traced.graphs
    if traced.family == FACTORIZED:
        return {"y": _Latent(graphs["g_a"], (graphs["g_s"],), medians_of(traced))}
    latents = {"z": _Latent(graphs["h_a"], (graphs["h_s"],), medians_of(traced))}
    if traced.family == SCALE_HYPERPRIOR:
        zeros = torch.zeros(graphs["g_s"].input_channels)
        latents["y"] = _Latent(graphs["g_a"], (graphs["h_a"], graphs["g_s"]), zeros)
    return latents


@torch.no_grad()
def _take_out(latent: _Latent, seen: TensorStatistics) -> int:
    """Make the channels whose symbols are 0 on all images constant; how many they are."""
    writer, readers = _writer(latent.writes), list(_readers(latent))
    if writer is None or any(layer is None for layer, _ in readers):
        return 0
    constant = (round_half_up(seen.low - latent.values) == 0) & (round_half_up(seen.high - latent.values) == 0)
    if not constant.any():
        return 0
    _by_channel(writer, output=True)[constant] = 0
    if writer.bias is None:
        writer.bias = nn.Parameter(torch.zeros(writer.out_channels))
    writer.bias[constant] = latent.values[constant]
    for layer, values in readers:
        assert layer is not None
        _gather(_by_channel(layer, output=False), constant, values)
    return int(constant.sum())


def _gather(weight: Tensor, constant: Tensor, values: Tensor) -> None:
    """Zero for constant channels; but one of them, of the largest value, gives for all what they have given together.

    weight: [I, …], of which the first axis is that of the channels that have these values, [I]
    """
    known = torch.where(constant, values, 0.0)
    largest = int(known.abs().argmax())
    share = torch.zeros_like(known) if known[largest] == 0 else known / known[largest]
    together = torch.tensordot(share, weight, dims=1)
    weight[constant] = 0
    if known[largest] != 0:
        weight[largest] = together


def _writer(graph: Graph) -> nn.Conv2d | nn.ConvTranspose2d | None:
    """The plain convolution that writes a part's output, if it is one."""
    last = graph.steps[-1]
    return _plain(last) if last.negative_slope == IDENTITY_SLOPE else None


def _readers(latent: _Latent) -> Iterator[tuple[nn.Conv2d | nn.ConvTranspose2d | None, Tensor]]:
    """Each layer that reads the latent, None for another than a plain convolution, and what it reads of constants."""
    for graph in latent.reads:
        tensors = {INPUT: latent.values}
        for step in graph:
            if step.inputs[0] in tensors and step.kind == ACTIVATION:
                tensors[step.name] = apply_slope(tensors[step.inputs[0]], step.negative_slope)
            else:
                yield from ((_plain(step), tensors[name]) for name in step.inputs if name in tensors)


def _plain(step: Step) -> nn.Conv2d | nn.ConvTranspose2d | None:
    layer = step.module
    return layer if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and layer.groups == 1 else None


def _by_channel(layer: nn.Conv2d | nn.ConvTranspose2d, output: bool) -> Tensor:
    """A view of its weights with the output or the input channels first."""
    return layer.weight if output == isinstance(layer, nn.Conv2d) else layer.weight.transpose(0, 1)
