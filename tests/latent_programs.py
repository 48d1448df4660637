"""Random integer programs and tables of every family, of any size: what the latent coders are tested and timed with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from licquant.codec.entropy.tables import CodingTables, gaussian_pmfs
from licquant.codec.files.latent_tables import FactorizedTables, HyperpriorTables, LatentTables
from licquant.codec.latents import families
from licquant.program.grid import Grid
from licquant.program.ops import Convolution, Operation, Requantize, Rescaling, TransposedConvolution
from licquant.program.part import INPUT, Part, Program

FAMILIES = tuple(families.FAMILIES)
LATENT, SCALE = 8, 10  # fraction bits of y and ŷ, of σ and μ


class Maker:
    """Makes layers with random weights whose outputs fill their grids."""

    def __init__(self, seed: int = 0, bits: int = 8) -> None:
        self.rng, self.bits = np.random.default_rng(seed), bits

    def grid(self, channels: int) -> Grid:
        """An activation grid with its own zero point for each channel."""
        middle = 1 << self.bits >> 1
        zero_point = self.rng.integers(middle - middle // 4, middle + middle // 4 + 1, channels)
        return Grid(self.bits, np.full(channels, 0.05), zero_point)

    def weights(self, *shape: int) -> np.ndarray:
        return np.clip(np.rint(self.rng.normal(0, 30, shape)), -127, 127).astype(np.int32)

    def rescaling(self, grid: Grid, taps: int, slope: float = 1.0) -> Rescaling:
        """From an accumulator of that many random products to a spread of a fifth of the grid (2.5 if fixed point)."""
        spread = 2.5 * (1 << SCALE) if grid.bits == 32 else (1 << grid.bits) / 5
        ratio = spread / (30 * np.sqrt(taps) * (1 << self.bits) / 5)
        return Rescaling.of_ratio(ratio * self.rng.uniform(0.7, 1.4, grid.channels), slope)

    def convolution(
        self,
        name: str,
        source: str,
        grid: Grid,
        inputs: int,
        kernel: int,
        slope: float = 1.0,
        mask: Sequence[Any] | np.ndarray = (),
    ) -> Convolution:
        weight = self.weights(grid.channels, inputs, kernel, kernel)
        if len(mask):
            weight *= np.array(mask, dtype=np.int32)
        taps = max(1, int(np.count_nonzero(mask))) if len(mask) else kernel * kernel
        scale = 30 * (1 << self.bits) * np.sqrt(taps * inputs) / 5
        bias = self.rng.integers(-int(scale / 4), int(scale / 4) + 1, grid.channels)
        if grid.bits == 32:  # most σ are positive
            bias[: grid.channels // 2] += int(0.7 * scale)
        rescaling = self.rescaling(grid, taps * inputs, slope)
        return Convolution(name, (source,), grid, weight, 8, bias, 1, kernel // 2, 1, rescaling)

    def reading_latent(self, part: str, channels: int) -> Requantize:
        """ŷ in fixed point onto an activation grid: ±8 fills it."""
        ratio = np.full(channels, (1 << self.bits) / (16 << LATENT))
        return Requantize(f"{part}.input", (INPUT,), self.grid(channels), Rescaling.of_ratio(ratio))

    def pointwise(self, name: str, grid: Grid, widths: Sequence[int], slope: float = 0.01) -> Part:
        """1×1 convolutions with leaky ReLU between them; σ and μ come out."""
        operations: list[Operation] = []
        source, inputs = INPUT, grid.channels
        for index, width in enumerate(widths):
            last = index == len(widths) - 1
            out = Grid.fixed_point(width, SCALE) if last else self.grid(width)
            operations.append(self.convolution(f"{name}.{index}", source, out, inputs, 1, 1.0 if last else slope))
            source, inputs = operations[-1].name, width
        return Part(name, grid, tuple(operations))

    def masked(self, name: str, channels: int, mask: np.ndarray) -> Part:
        first = self.reading_latent(name, channels)
        second = self.convolution(name, first.name, self.grid(2 * channels), channels, len(mask), mask=mask)
        return Part(name, Grid.fixed_point(channels, LATENT), (first, second))

    def hyper_synthesis(self, n: int, widths: Sequence[int], output: Grid) -> Part:
        """Two transposed convolutions that double the size, then a 3×3 convolution."""
        first = Requantize("h_s.input", (INPUT,), self.grid(n), Rescaling.of_ratio(np.full(n, (1 << self.bits) / 4096)))
        operations: list[Operation] = [first]
        inputs = n
        for index, width in enumerate(widths):
            grid = self.grid(width)
            weight, bias = self.weights(inputs, width, 5, 5), np.zeros(width, dtype=np.int64)
            rescaling = self.rescaling(grid, 6 * inputs, 0.01)
            operations.append(
                TransposedConvolution(f"h_s.{index}", (operations[-1].name,), grid, weight, 8, bias, 2, 2, 1, rescaling)
            )
            inputs = width
        operations.append(self.convolution("h_s.last", operations[-1].name, output, inputs, 3))
        return Part("h_s", Grid.fixed_point(n, LATENT), tuple(operations))


def causal_mask(kernel: int = 5) -> np.ndarray:
    """What comes before the middle in raster order (mask A of van den Oord 2016)."""
    mask = np.zeros((kernel, kernel), dtype=bool)
    mask.ravel()[: kernel * kernel // 2] = True
    return mask


def checkerboard_mask(kernel: int = 5) -> np.ndarray:
    """Neighbours an odd number of steps away (He 2021)."""
    row, column = np.indices((kernel, kernel))
    return (row + column) % 2 == 1


def random_program(
    family: str, n: int = 4, m: int = 6, seed: int = 0, bits: int = 8, groups: Sequence[int] = ()
) -> Program:
    """A program with N channels of z and M of y, strides 16 and 4; g_a, h_a and g_s are one layer each."""
    make = Maker(seed, bits)
    parts = [_analysis(make, m), _synthesis(make, m, 0 if family == families.SCALE_HYPERPRIOR else LATENT)]
    if family != families.FACTORIZED:
        parts += [_hyper_analysis(make, m, n)]
    match family:
        case families.SCALE_HYPERPRIOR:
            parts += [make.hyper_synthesis(n, (n, n), Grid.fixed_point(m, SCALE))]
        case families.MEAN_SCALE_HYPERPRIOR:
            parts += [make.hyper_synthesis(n, (m, m * 3 // 2), Grid.fixed_point(2 * m, SCALE))]
        case families.AUTOREGRESSIVE | families.CHECKERBOARD:
            autoregressive = family == families.AUTOREGRESSIVE
            mask = causal_mask() if autoregressive else checkerboard_mask()
            h_s = make.hyper_synthesis(n, (m, m * 3 // 2), make.grid(2 * m))
            context = make.masked("context_prediction", m, mask)
            read = (h_s, context) if autoregressive else (context, h_s)
            widths = (m * 10 // 3, m * 8 // 3, 2 * m)
            parts += [h_s, context, make.pointwise("entropy_parameters", joined(*read), widths)]
        case families.CHANNEL_GROUPS:
            parts += _channel_groups(make, n, m, groups or (m // 3, m - m // 3))
    return Program({part.name: part for part in parts})


def random_tables(program: Program, family: str, levels: int = 40) -> LatentTables:
    if family == families.FACTORIZED:
        channels = program["g_a"].output_grid.channels
        return FactorizedTables(*_bottleneck(channels))
    scales = np.geomspace(0.11, 64, levels)
    thresholds = np.floor(np.sqrt(scales[1:] * scales[:-1]) * 2.0**SCALE).astype(np.int64)
    y = CodingTables.from_probabilities(*gaussian_pmfs(scales.tolist()))
    return HyperpriorTables(*_bottleneck(program["h_s"].input_grid.channels), y, thresholds)


def random_latents(program: Program, size: tuple[int, int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(y in fixed point, symbols of z) for z of that (height, width)."""
    rng = np.random.default_rng(seed)
    m = program["g_a"].output_grid.channels
    y = np.floor(rng.laplace(0, 2 << LATENT, (m, 4 * size[0], 4 * size[1]))).astype(np.int64)
    n = program["h_s"].input_grid.channels if "h_s" in program else 0
    return y, np.rint(rng.laplace(0, 2, (n, *size))).astype(np.int32)


def joined(*parts: Part) -> Grid:
    """The grid of the parts' outputs, one after another."""
    grids = [part.output_grid for part in parts]
    scale, zero_point = (np.concatenate([getattr(g, name) for g in grids]) for name in ("scale", "zero_point"))
    return Grid(grids[0].bits, scale, zero_point)


def _channel_groups(make: Maker, n: int, m: int, groups: Sequence[int]) -> list[Part]:
    h_s = make.hyper_synthesis(n, (n, n * 3 // 2), make.grid(2 * n))
    parts, before = [h_s], 0
    for k, count in enumerate(groups):
        spatial = make.masked(f"spatial_context.y{k}", count, checkerboard_mask())
        read = [spatial, h_s]
        if k:
            name = f"channel_context.y{k}"
            operations: list[Operation] = [make.reading_latent(name, before)]
            widths = (min(224, 4 * m), min(128, 3 * m), 2 * count)
            for index, (inputs, width) in enumerate(zip((before, *widths), widths, strict=False)):
                slope = 0.0 if index < 2 else 1.0
                operations.append(
                    make.convolution(f"{name}.{index}", operations[-1].name, make.grid(width), inputs, 5, slope)
                )
            parts.append(Part(name, Grid.fixed_point(before, LATENT), tuple(operations)))
            read.insert(1, parts[-1])
        grid = joined(*read)
        ramp = np.maximum(np.linspace(grid.channels, 2 * count, 4), 2 * n)[1:].astype(int).tolist()
        parts += [spatial, make.pointwise(f"entropy_parameters.y{k}", grid, (*ramp[:2], 2 * count), 0.0)]
        before += count
    return parts


def _bottleneck(channels: int) -> tuple[CodingTables, np.ndarray]:
    pmfs, offsets = gaussian_pmfs(np.geomspace(0.5, 4, channels).tolist())
    medians = np.arange(channels, dtype=np.int64) * 37 % 256 - 128
    return CodingTables.from_probabilities(pmfs, offsets), medians


def _analysis(make: Maker, m: int) -> Part:
    grid = Grid.fixed_point(m, LATENT)
    rescaling = Rescaling.of_ratio(np.full(m, (3 << LATENT) / (30 * 28 * 60)))
    weight, bias = make.weights(m, 3, 16, 16), np.zeros(m, dtype=np.int64)
    layer = Convolution("g_a.0", (INPUT,), grid, weight, 8, bias, 16, 0, 1, rescaling)
    return Part("g_a", Grid.pixels(), (layer,))


def _hyper_analysis(make: Maker, m: int, n: int) -> Part:
    first = make.reading_latent("h_a", m)
    grid = Grid.fixed_point(n, LATENT)
    rescaling = Rescaling.of_ratio(np.full(n, (2 << LATENT) / (30 * 4 * np.sqrt(m) * 30)))
    weight, bias = make.weights(n, m, 4, 4), np.zeros(n, dtype=np.int64)
    layer = Convolution("h_a.0", (first.name,), grid, weight, 8, bias, 4, 0, 1, rescaling)
    return Part("h_a", Grid.fixed_point(m, LATENT), (first, layer))


def _synthesis(make: Maker, m: int, fraction_bits: int) -> Part:
    first = Requantize(
        "g_s.input", (INPUT,), make.grid(m), Rescaling.of_ratio(np.full(m, (1 << make.bits) / (16 << fraction_bits)))
    )
    rescaling = Rescaling.of_ratio(np.full(3, 50 / (30 * np.sqrt(m) * 30)))
    weight, bias = make.weights(m, 3, 16, 16), np.full(3, 1000, dtype=np.int64)
    layer = TransposedConvolution("g_s.0", (first.name,), Grid.pixels(), weight, 8, bias, 16, 0, 0, rescaling)
    return Part("g_s", Grid.fixed_point(m, fraction_bits), (first, layer))
