"""A small dynamic artifact made of integers alone, the same everywhere: three stages a side in up to 8 bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from licquant.codec.files.artifact import Artifact
from licquant.codec.latents import families
from licquant.config import LayerBits, Plan
from licquant.program.arithmetic import nested_weight
from licquant.program.dynamic import DynamicPart, Stage, split
from licquant.program.grid import Grid
from licquant.program.ops import Convolution, Operation, Requantize, Rescaling, TransposedConvolution
from licquant.program.part import INPUT, Part, Program
from licquant.program.selector import Selector
from tests.latent_programs import LATENT, random_program, random_tables

WIDTHS = (4, 6, 8)
SAME = {"g_a": (WIDTHS, WIDTHS), "g_s": (WIDTHS, WIDTHS)}
UNEVEN = {"g_a": (WIDTHS, (6, 8)), "g_s": ((8,), WIDTHS)}  # of the stages after the first
N, M, HIDDEN = 5, 6, 3


class Draws:
    """Integers from a linear congruential generator: unlike a library's, theirs never change."""

    def __init__(self, seed: int) -> None:
        self.state = seed

    def __call__(self, low: int, high: int, *shape: int) -> np.ndarray:
        """int64 of that shape in low..high, both included."""
        values = []
        for _ in range(int(np.prod(shape))):
            self.state = (1664525 * self.state + 1013904223) % 2**32
            values.append(low + (self.state >> 8) % (high - low + 1))
        return np.array(values, dtype=np.int64).reshape(shape)


def grid(channels: int, bits: int = 8, zero_point: int = 0) -> Grid:
    return Grid(bits, np.full(channels, 0.05), np.full(channels, zero_point, dtype=np.int64))


def convolution(draw: Draws, name: str, source: str, inputs: int, out: Grid, kernel: int, stride: int) -> Convolution:
    ratio = np.full(out.channels, (8.0 if out.bits == 32 else 1 / 64) / (4 * kernel * np.sqrt(inputs)))
    weight, bias = draw(-127, 127, out.channels, inputs, kernel, kernel), draw(-2000, 2000, out.channels)
    rescaling = Rescaling.of_ratio(ratio, 1.0 if out.bits == 32 else 0.0)
    return Convolution(name, (source,), out, weight.astype(np.int32), 8, bias, stride, kernel // 2, 1, rescaling)


def transposed(draw: Draws, name: str, source: str, inputs: int, out: Grid, stride: int) -> TransposedConvolution:
    ratio = np.full(out.channels, 1 / 64 / (4 * np.sqrt(inputs)))
    weight, bias = draw(-127, 127, inputs, out.channels, stride + 2, stride + 2), draw(-2000, 2000, out.channels)
    return TransposedConvolution(
        name, (source,), out, weight.astype(np.int32), 8, bias, stride, 1, 0, Rescaling.of_ratio(ratio, 0.25)
    )


def narrowed(stage: Part, bits: int) -> Part:
    """A stage of one layer of 8 bits in fewer, its inputs' steps ``factor`` times as large."""
    (op,) = stage.operations
    assert isinstance(op, Convolution | TransposedConvolution)
    step, factor = 2 ** (8 - bits), 2 ** (8 - bits) * 1.07  # a power of two would make ties of every 2^n-th value
    read = replace(stage.input_grid, bits=bits, zero_point=(stage.input_grid.zero_point / factor).astype(np.int64))
    name, fewer = f"{op.name}/{INPUT}", Rescaling.of_ratio(np.full(read.channels, 1 / factor))
    ratio = np.ldexp(op.rescaling.positive.astype(float), -op.rescaling.shift) * step * factor
    narrow = replace(
        op,
        inputs=(name,),
        weight=nested_weight(op.weight, 8, bits),
        weight_bits=bits,
        bias=np.floor(op.bias / (step * factor) + 0.5).astype(np.int64),
        rescaling=Rescaling.of_ratio(ratio, op.rescaling.negative[0] / op.rescaling.positive[0]),
    )
    return Part(stage.name, stage.input_grid, (Requantize(name, (INPUT,), read, fewer), narrow))


def dynamic_part(draw: Draws, part: Part, tensor: str, widths: tuple[tuple[int, ...], ...]) -> DynamicPart:
    first, *others = split(part, [1] * len(part.operations))
    stages = [Stage(first.output, {8: first})]
    for piece, of in zip(others, widths, strict=True):
        stages.append(Stage(piece.output, {**{bits: narrowed(piece, bits) for bits in of[:-1]}, 8: piece}))
    several = tuple(of for of in widths if len(of) > 1)
    channels = part.grid_of(tensor).channels
    outputs = sum(map(len, several))
    name = f"{part.name}.selector"
    features = Requantize(f"{name}.features", (INPUT,), grid(channels), Rescaling.of_ratio(np.full(channels, 1 / 16)))
    hidden = replace(convolution(draw, f"{name}.hidden", features.name, channels, grid(HIDDEN), 5, 1), padding=0)
    logits = convolution(draw, f"{name}.logits", hidden.name, HIDDEN, Grid.fixed_point(outputs, 8), 1, 1)
    network = Part(name, Grid.fixed_point(channels, 8), (features, hidden, logits))
    return DynamicPart(part, tuple(stages), Selector(tensor, several, network))


def dynamic_artifact(seed: int = 14, widths: Mapping[str, tuple[tuple[int, ...], ...]] = SAME) -> Artifact:
    """A scale hyperprior with strides 16 and 4; widths: of every stage after the first, the last one 8."""
    draw = Draws(seed)
    analysis: tuple[Operation, ...] = (
        convolution(draw, "g_a.0", INPUT, 3, grid(N), 5, 4),
        convolution(draw, "g_a.1", "g_a.0", N, grid(N), 3, 2),
        convolution(draw, "g_a.2", "g_a.1", N, Grid.fixed_point(M, LATENT), 3, 2),
    )
    ratio = Rescaling.of_ratio(np.full(N, 1 / 8))
    synthesis: tuple[Operation, ...] = (
        replace(convolution(draw, "g_s.0", INPUT, M, grid(N, zero_point=128), 3, 1), rescaling=ratio),
        transposed(draw, "g_s.1", "g_s.0", N, grid(N, zero_point=100), 4),
        transposed(draw, "g_s.2", "g_s.1", N, Grid.pixels(), 4),
    )
    parts = dict(random_program(families.SCALE_HYPERPRIOR, n=4, m=M))
    parts["g_a"] = Part("g_a", Grid.pixels(), analysis)
    parts["g_s"] = Part("g_s", Grid.fixed_point(M, 0), synthesis)
    program = Program(parts)
    dynamic = {
        "g_a": dynamic_part(draw, parts["g_a"], "g_a.0", widths["g_a"]),
        "g_s": dynamic_part(draw, parts["g_s"], INPUT, widths["g_s"]),
    }
    plan = Plan({op.name: LayerBits(8, 8) for name in ("g_a", "g_s") for op in parts[name].operations})
    tables = random_tables(program, families.SCALE_HYPERPRIOR)
    return Artifact(families.SCALE_HYPERPRIOR, program, tables, plan, dynamic=dynamic)


def static_part(dynamic: DynamicPart, widths: Sequence[int]) -> Part:
    """The part at these widths of all stages but the first: what a chain of them must compute, as one program."""
    operations: list[Operation] = []
    for stage, width in zip(dynamic.stages, (*dynamic.stages[0].parts, *widths), strict=True):
        before = operations[-1].name if operations else INPUT
        operations += [
            replace(op, inputs=tuple(before if name == INPUT else name for name in op.inputs))
            for op in stage.parts[width].operations
        ]
    return Part(dynamic.part.name, dynamic.part.input_grid, tuple(operations))
