"""How the latent is quantized, in integers: symbols, the fixed point they stand for, and the tables of symbols."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from licquant.codec.latents.bottleneck import LARGEST_SYMBOL, BottleneckCoder
from licquant.codec.latents.gaussian import GaussianQuantizer
from licquant.onnx_export.graph import Dimension, Graph, Value
from licquant.onnx_export.numbers import floor_divided
from licquant.program.arithmetic import INT32_MAX, Ints

# Every function takes and gives int32 [N, C, H, W].


def bottleneck_symbols(graph: Graph, coder: BottleneckCoder, latent: Value) -> Value:
    """``BottleneckCoder.round``."""
    half = (1 << coder.fraction_bits) >> 1
    centred = graph.node("Add", graph.cast(latent, np.int64), graph.channels(half - coder.medians.ravel(), np.int64))
    return _as_int32(graph, _halved(graph, centred, coder.fraction_bits))


def bottleneck_restored(graph: Graph, coder: BottleneckCoder, symbols: Value) -> Value:
    """``BottleneckCoder.restore``."""
    limited = graph.clip(graph.cast(symbols, np.int64), -LARGEST_SYMBOL, LARGEST_SYMBOL, np.int64)
    scaled = graph.node("Mul", limited, graph.constant(1 << coder.fraction_bits, np.int64))
    return _as_int32(graph, graph.node("Add", scaled, graph.channels(coder.medians.ravel(), np.int64)))


def lowered(graph: Graph, latent: Value, bits: int) -> Value:
    """Fixed point with so many fraction bits less, rounded half up."""
    if not bits:
        return latent
    half = graph.node("Add", graph.cast(latent, np.int64), graph.constant(1 << bits >> 1, np.int64))
    return _as_int32(graph, _halved(graph, half, bits))


def gaussian_parameters(
    graph: Graph, quantizer: GaussianQuantizer, output: Value, channels: int
) -> tuple[Value, Value]:
    """(table of each symbol, its mean in the fixed point of ŷ) from the part that writes σ and, after it, μ."""
    sigma, mean = _split(graph, output, channels)
    return table_index(graph, quantizer.tables.thresholds, sigma), means(graph, quantizer, mean)


def parameters_out(graph: Graph, parameters: tuple[Value, Value], shape: Sequence[Dimension]) -> None:
    """Tables and means as the outputs of a model."""
    for name, value in zip(("index", "means"), parameters, strict=True):
        graph.output(name, value, np.int32, shape)


def means(graph: Graph, quantizer: GaussianQuantizer, mean: Value) -> Value:
    """``GaussianQuantizer.mean``."""
    return lowered(graph, mean, quantizer.parameter_bits - quantizer.output_bits)


def no_means(graph: Graph, index: Value) -> Value:
    """Zeros, as many as indices."""
    return graph.node("Mul", index, graph.constant(0, np.int32))


def table_index(graph: Graph, thresholds: Ints, sigma: Value) -> Value:
    """How many of the ascending thresholds lie below max(σ, 0): a binary search, a bit of the index a step."""
    steps = len(thresholds).bit_length()
    # Thresholds that no σ exceeds make their number 2^steps - 1.
    padded = np.full((1 << steps) - 1, INT32_MAX)
    padded[: len(thresholds)] = thresholds
    sigma = graph.node("Max", sigma, graph.constant(0, np.int32))
    index = graph.node("Mul", sigma, graph.constant(0, np.int32))
    for step in reversed([1 << bit for bit in range(steps)]):
        middle = graph.node("Add", index, graph.constant(step - 1, np.int32))
        above = graph.node("Greater", sigma, graph.node("Gather", graph.constant(padded, np.int32), middle))
        further = graph.node("Mul", graph.cast(above, np.int32), graph.constant(step, np.int32))
        index = graph.node("Add", index, further)
    return index


def gaussian_symbols(graph: Graph, quantizer: GaussianQuantizer, y: Value, mean: Value) -> Value:
    """``GaussianQuantizer.symbols``; mean: in the fixed point of ŷ."""
    step = 1 << quantizer.latent_bits - quantizer.output_bits
    finer = graph.node("Mul", graph.cast(mean, np.int64), graph.constant(step, np.int64))
    centred = graph.node("Sub", graph.cast(y, np.int64), finer)
    half = graph.node("Add", centred, graph.constant((1 << quantizer.latent_bits) >> 1, np.int64))
    return _as_int32(graph, _halved(graph, half, quantizer.latent_bits))


def gaussian_restored(graph: Graph, quantizer: GaussianQuantizer, symbols: Value, mean: Value) -> Value:
    """``GaussianQuantizer.restore``."""
    step = graph.constant(1 << quantizer.output_bits, np.int64)
    scaled = graph.node("Mul", graph.cast(symbols, np.int64), step)
    return _as_int32(graph, graph.node("Add", scaled, graph.cast(mean, np.int64)))


def _split(graph: Graph, value: Value, channels: int) -> list[Value]:
    """The channels up to some, and the others."""

    def part(first: int, last: int) -> Value:
        return graph.node("Slice", value, *(graph.constant([n], np.int64) for n in (first, last, 1)))

    return [part(0, channels), part(channels, 2 * channels)]


def _halved(graph: Graph, value: Value, times: int) -> Value:
    """v >> times, of int64."""
    return floor_divided(graph, value, graph.constant(1 << times, np.int64)) if times else value


def _as_int32(graph: Graph, value: Value) -> Value:
    return graph.cast(graph.clip(value, -INT32_MAX, INT32_MAX, np.int64), np.int32)
