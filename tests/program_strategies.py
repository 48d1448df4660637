"""Random programs for property tests: every operation, any width, any zero point."""

import numpy as np

from licquant.program.arithmetic import dyadic
from licquant.program.grid import Grid
from licquant.program.ops import (
    Add,
    Convolution,
    Gdn,
    Multiply,
    PixelShuffle,
    Requantize,
    Rescaling,
    Sigmoid,
    TransposedConvolution,
)
from licquant.program.part import Part


def random_grid(rng: np.random.Generator, channels: int, bits: int) -> Grid:
    zero_point = rng.integers(0, 1 << bits, channels) if rng.random() < 0.5 else np.full(channels, 1 << bits >> 1)
    return Grid(bits, np.full(channels, 0.1), zero_point.astype(np.int64))


def random_rescaling(rng: np.random.Generator, channels: int, ratio: float) -> Rescaling:
    return Rescaling.of_ratio(ratio * rng.uniform(0.5, 2, channels), float(rng.choice([1.0, 0.0, -1.0, 0.1])))


def random_part(seed: int, bits: int, weight_bits: int, inputs: int = 4, channels: int = 6) -> Part:
    """Convolution, GDN, transposed convolution, inverse GDN, change of grid, addition, grouped convolution."""
    rng = np.random.default_rng(seed)
    high = (1 << (weight_bits - 1)) - 1
    kernel, stride = int(rng.integers(1, 6)), int(rng.integers(1, 4))
    gain = 2.0 ** (1 - weight_bits)

    def grid(n: int) -> Grid:
        return random_grid(rng, n, bits)

    def weights(*shape: int) -> np.ndarray:
        return rng.integers(-high, high + 1, shape).astype(np.int32)

    def gdn(name: str, source: str, inverse: bool) -> Gdn:
        multiplier, shift = dyadic(rng.uniform(2.0**-9, 2.0**-7, channels))
        gamma = rng.integers(0, high + 1, (channels, channels)).astype(np.int32)
        square_bits = int(rng.integers(2, bits + 1))
        squares = dyadic(rng.uniform(0.5, 2, channels) * 2.0 ** (square_bits - 2 * bits))
        beta = rng.integers(1, 1000, channels)
        return Gdn(
            name, (source,), grid(channels), gamma, weight_bits, beta, square_bits, *squares, multiplier, shift, inverse
        )  # fmt: skip

    first = Convolution(
        "c", ("input",), grid(channels), weights(channels, inputs, kernel, kernel), weight_bits,
        rng.integers(-1000, 1000, channels), stride, kernel // 2, 1, random_rescaling(rng, channels, gain / kernel**2),
    )  # fmt: skip
    transposed = TransposedConvolution(
        "d", ("g",), grid(channels), weights(channels, channels, kernel, kernel), weight_bits,
        rng.integers(-1000, 1000, channels), stride, kernel // 2, min(1, stride - 1),
        random_rescaling(rng, channels, gain / kernel),
    )  # fmt: skip
    last = Convolution(
        "o", ("a",), Grid.fixed_point(2 * channels, 8), weights(2 * channels, 1, 3, 3), weight_bits,
        rng.integers(-1000, 1000, 2 * channels), 1, 1, channels, random_rescaling(rng, 2 * channels, 0.3),
    )  # fmt: skip
    return Part(
        "random",
        grid(inputs),
        (
            first,
            gdn("g", "c", inverse=False),
            transposed,
            gdn("i", "d", inverse=True),
            Requantize("r", ("d",), grid(channels), random_rescaling(rng, channels, 0.7)),
            Add("a", ("i", "r"), grid(channels), (np.arange(1, channels + 1) * 100, np.full(channels, 333)),
                random_rescaling(rng, channels, 2e-3)),
            last,
        ),
    )  # fmt: skip


def gated_part(seed: int, bits: int, weight_bits: int, inputs: int = 4, channels: int = 3) -> Part:
    """A sub-pixel convolution, and an attention gate on what it writes: x + x · sigmoid(x)."""
    rng = np.random.default_rng(seed)
    high = (1 << (weight_bits - 1)) - 1
    factor = int(rng.integers(1, 4))
    narrow = random_grid(rng, channels, bits)
    wide = Grid(bits, narrow.scale.repeat(factor**2), narrow.zero_point.repeat(factor**2))
    weight = rng.integers(-high, high + 1, (wide.channels, inputs, 3, 3)).astype(np.int32)
    convolution = Convolution(
        "c", ("input",), wide, weight, weight_bits, rng.integers(-1000, 1000, wide.channels), 1, 1, 1,
        random_rescaling(rng, wide.channels, 2.0 ** (1 - weight_bits) / 9),
    )  # fmt: skip
    table = rng.integers(0, 1 << bits, 1 << bits)
    return Part(
        "gated",
        random_grid(rng, inputs, bits),
        (
            convolution,
            PixelShuffle("s", ("c",), narrow, factor),
            Sigmoid("g", ("s",), random_grid(rng, channels, bits), table),
            Multiply("m", ("s", "g"), random_grid(rng, channels, bits), random_rescaling(rng, channels, 2.0**-bits)),
            Add("a", ("m", "s"), random_grid(rng, channels, bits), (np.full(channels, 300), np.full(channels, 70)),
                random_rescaling(rng, channels, 2e-3)),
        ),
    )  # fmt: skip
