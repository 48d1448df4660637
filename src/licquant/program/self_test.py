"""What the INT8 kernels of this machine compute, found by running some: no CPU's name or flag is asked.

Without instructions such as VNNI, kernels add the products of two bytes in 16 bits, which saturate, or halve the
weights lest they do. So one small layer of each kind is run by the very engine, with weights and inputs for which any
such shortcut gives other sums. Where all sums are exact, INT8 kernels run what has at most 8 bits. Where one is not,
float32 kernels run everything: their sums of the same integers are exact up to 2^24, and with them the results agree
with those of exact INT8 kernels but for the rounding of floats. If these err as well, there is ``EngineError``.

What is assumed: kernels that are right here are right with other numbers, and layers of other sizes get kernels of the
same kind.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from licquant.errors import EngineError
from licquant.program.arithmetic import MAX_BITS, Ints
from licquant.program.exact import ExactEngine
from licquant.program.grid import Grid
from licquant.program.ops import Convolution, Gdn, Operation, Rescaling, TransposedConvolution
from licquant.program.part import INPUT, Part

# Parts and the stored integers [C, H, W] that each reads, to those that each gives.
Run = Callable[[Sequence[Part], Sequence[Ints]], Sequence[Ints]]
BYTE_BITS = 8
_SIZE, _LARGE = 8, 127


@dataclass(frozen=True)
class Kind:
    """A kind of layer that has kernels of its own."""

    inputs: int
    kernel: int
    zero_point: int = 0
    groups: int = 1
    transposed: bool = False


_CHANNELS = 32  # enough for the kernels that wide layers get
KINDS = {
    "convolution": Kind(_CHANNELS, 5),
    "convolution with a zero point": Kind(_CHANNELS, 5, zero_point=128),
    "1×1 convolution": Kind(_CHANNELS, 1),
    "grouped convolution": Kind(_CHANNELS, 5, groups=4),
    "depthwise convolution": Kind(_CHANNELS, 5, groups=_CHANNELS),
    "convolution of pixels": Kind(3, 5),
    "transposed convolution": Kind(_CHANNELS, 5, zero_point=128, transposed=True),
}


@dataclass(frozen=True)
class Machine:
    """What the self-test found.

    exact:   kind of layer → whether its INT8 kernel computes exact sums
    seconds: how long the self-test took
    """

    exact: Mapping[str, bool]
    seconds: float

    @property
    def int8(self) -> bool:
        """Whether INT8 kernels are used; else float32."""
        return all(self.exact.values())

    def fit(self, part: Part) -> Part:
        """The same function, of layers that this machine's kernels compute exactly."""
        return part if self.int8 else in_floats(part)


def examine(run: Run) -> Machine:
    """Test an engine; ``EngineError`` if neither its INT8 nor its float32 kernels are exact.

    run: all parts at once, as compiling them one by one would take longer
    """
    start = time.perf_counter()
    parts = [_part(name, kind) for name, kind in KINDS.items()]
    exact = dict(zip(KINDS, _agree(parts, run), strict=True))
    if not all(exact.values()) and not all(_agree([in_floats(part) for part in parts], run)):
        raise EngineError(
            "OpenVINO's kernels compute wrong sums on this machine, in INT8 and in float32: use the engine exact"
        )
    return Machine(exact, time.perf_counter() - start)


def has_int8(part: Part) -> bool:
    """Whether INT8 kernels run a layer of the part if nothing forbids it."""
    return any(_int8(op, part) for op in part.operations)


def in_floats(part: Part) -> Part:
    """The part with all weights declared so wide that no INT8 kernel reads them."""
    wide = [
        replace(op, weight_bits=MAX_BITS) if _int8(op, part) else op  # type: ignore[call-arg]
        for op in part.operations
    ]
    return Part(part.name, part.input_grid, tuple(wide))


def _int8(op: Operation, part: Part) -> bool:
    if isinstance(op, Gdn):
        return max(op.weight_bits, op.square_bits) <= BYTE_BITS
    if isinstance(op, Convolution | TransposedConvolution):
        return max(op.weight_bits, part.input_grids(op)[0].bits) <= BYTE_BITS
    return False


def _agree(parts: Sequence[Part], run: Run) -> list[bool]:
    """Whether an engine gives the exact sums of each part, for the extremes of its input and for mixtures of them."""
    inputs = [_extremes(part.input_grid) for part in parts]
    expected = [ExactEngine(part).run(x) for part, x in zip(parts, inputs, strict=True)]
    return [np.array_equal(a, b) for a, b in zip(run(parts, inputs), expected, strict=True)]


def _extremes(grid: Grid) -> Ints:
    low, high = grid.range
    x = np.random.default_rng(0).choice([low, high], (grid.channels, _SIZE, _SIZE))
    x[:, : _SIZE // 2], x[:, 0] = high, low
    return x


def _part(name: str, kind: Kind) -> Part:
    """A part of one layer, whose sums stay below 2^24 and come out as they are."""
    inputs, size = kind.inputs, kind.kernel
    by_channel = np.random.default_rng(1).choice([-_LARGE, 1 - _LARGE, 1, _LARGE], (_CHANNELS, inputs // kind.groups))
    by_channel[::2] = abs(by_channel[::2])
    by_channel[::8], by_channel[4::8] = _LARGE, -_LARGE
    weight = np.zeros((*by_channel.shape, size, size), dtype=np.int32)
    taps = np.arange(_CHANNELS) % size**2  # one for each output: all are seen, and no sum is long
    weight[np.arange(_CHANNELS), :, taps // size, taps % size] = by_channel
    bias, rescaling = np.zeros(_CHANNELS, dtype=np.int64), Rescaling.of_ratio(np.ones(_CHANNELS))
    out = Grid.fixed_point(_CHANNELS, 0)
    op: Operation
    if kind.transposed:
        weight = weight.transpose(1, 0, 2, 3).copy()
        op = TransposedConvolution(name, (INPUT,), out, weight, BYTE_BITS, bias, 2, 2, 1, rescaling)
    else:
        op = Convolution(name, (INPUT,), out, weight, BYTE_BITS, bias, 1, size // 2, kind.groups, rescaling)
    return Part("self-test", Grid(BYTE_BITS, np.ones(inputs), np.full(inputs, kind.zero_point)), (op,))
