"""The exact engine: integers through floating-point matrix products that cannot round.

A product of float32 matrices is exact, in any order of summation and on any instruction set, while every
partial sum is an integer below 2^24 (2^53 in float64). Each operation knows the bound of its accumulator
(``ops.py``), so the narrowest type that is safe is chosen per operation; a sum over a long kernel is split
into pieces that each stay below 2^24 where that is enough. The result therefore depends on neither the thread
count nor the BLAS; ``reference.py`` is the same thing without any matrix product, and must agree.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from licquant.program.arithmetic import Ints, activation_range
from licquant.program.grid import Grid
from licquant.program.ops import Add, Convolution, Gdn, Operation, Requantize, TransposedConvolution
from licquant.program.part import INPUT, Part
from licquant.program.reference import gdn_output

FLOAT32_EXACT = 1 << 24
MAX_PIECES = 4  # more float32 pieces than this are slower than one float64 product
BLOCK_VALUES = 1 << 22  # gathered inputs at a time: bounds the memory, and stays near the caches


class _Prepared(Protocol):
    """An operation with its weights laid out: centred inputs [C, H, W] to stored integers of the output."""

    def __call__(self, x: Sequence[Ints]) -> Ints: ...


class ExactEngine:
    """Runs one part in integers; weights are laid out once, on construction."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self._last_use = part.last_use()
        self._grids = [part.input_grids(op) for op in part.operations]
        self._execute: list[_Prepared] = [
            _PREPARE[type(op)](op, grids) for op, grids in zip(part.operations, self._grids, strict=True)
        ]

    def run(self, q: Ints) -> Ints:
        """Stored integers of the input [C, H, W] to those of the output, int64."""
        tensors = {INPUT: q}
        for index, (op, grids, execute) in enumerate(
            zip(self.part.operations, self._grids, self._execute, strict=True)
        ):
            centred = [
                tensors[name].astype(np.int64) - grid.zero_point[:, None, None]
                for name, grid in zip(op.inputs, grids, strict=True)
            ]
            tensors[op.name] = execute(centred)
            for name in [n for n in tensors if self._last_use.get(n, index + 1) <= index]:
                del tensors[name]
        return tensors[self.part.output]


# --- exact matrix products ----------------------------------------------------------------------------------


def _pieces(bounds: Ints) -> list[slice]:
    """Split K so that the sum of bounds[O, K] over each piece stays below 2^24 in every row."""
    pieces, first = [], 0
    cumulative = np.cumsum(bounds, axis=1)
    while True:
        before = cumulative[:, first - 1 : first] if first else 0
        fits = ((cumulative[:, first:] - before) < FLOAT32_EXACT).all(axis=0)
        length = len(fits) if fits.all() else int(fits.argmin())
        pieces.append(slice(first, first + length))
        first += length
        if first >= bounds.shape[1]:
            return pieces


def exact_product(weight: Ints, magnitude: Ints) -> Callable[[Ints], Ints]:
    """x [K, P] → weight [O, K] @ x, exact, int64, for all integers |x[k]| <= magnitude[k].

    The bound on the whole must be below 2^53, which ``ops.MAX_ACCUMULATOR`` guarantees.
    """
    bounds = abs(weight.astype(np.int64)) * magnitude
    short = bounds.max(initial=0) < FLOAT32_EXACT
    few = bounds.sum(axis=1).max(initial=0) < MAX_PIECES * FLOAT32_EXACT
    if not (short and few):
        wide = weight.astype(np.float64)
        return lambda x: (wide @ x.astype(np.float64)).astype(np.int64)
    parts = [(piece, np.ascontiguousarray(weight[:, piece], dtype=np.float32)) for piece in _pieces(bounds)]

    def product(x: Ints) -> Ints:
        x32 = x.astype(np.float32, copy=False)
        total = (parts[0][1] @ x32[parts[0][0]]).astype(np.int64)
        for piece, w in parts[1:]:
            total += (w @ x32[piece]).astype(np.int64)
        return total

    return product


class _Correlation:
    """Plain correlation without padding: x [I, H, W], weight [O, I, kh, kw] → int64 [O, H', W']."""

    def __init__(self, weight: Ints, magnitude: Ints, stride: int) -> None:
        self.shape, self.stride = weight.shape, stride
        taps = weight.shape[2] * weight.shape[3]
        self.product = exact_product(weight.reshape(len(weight), -1), magnitude.repeat(taps))
        self.dtype = np.float64 if magnitude.max() >= FLOAT32_EXACT else np.float32

    def __call__(self, x: Ints) -> Ints:
        outputs, inputs, kh, kw = self.shape
        windows = sliding_window_view(x.astype(self.dtype), (kh, kw), (1, 2))
        windows = windows[:, :: self.stride, :: self.stride].transpose(0, 3, 4, 1, 2)  # I kh kw H' W'
        height, width = windows.shape[3:]
        acc = np.empty((outputs, height, width), dtype=np.int64)
        rows = max(1, BLOCK_VALUES // (inputs * kh * kw * width))
        for first in range(0, height, rows):
            block = windows[..., first : first + rows, :].reshape(inputs * kh * kw, -1)
            acc[:, first : first + rows] = self.product(block).reshape(outputs, -1, width)
        return acc


# --- operations ---------------------------------------------------------------------------------------------


def _convolution(op: Convolution, grids: Sequence[Grid]) -> _Prepared:
    correlations = [
        _Correlation(weight, magnitude, op.stride)
        for weight, magnitude in zip(
            np.split(op.weight, op.groups), np.split(grids[0].magnitude, op.groups), strict=True
        )
    ]

    def execute(x: Sequence[Ints]) -> Ints:
        p = op.padding
        padded = np.split(np.pad(x[0], ((0, 0), (p, p), (p, p))), op.groups)
        acc = np.concatenate([correlate(q) for correlate, q in zip(correlations, padded, strict=True)])
        return op.rescaling.apply(acc + op.bias[:, None, None], op.grid)

    return execute


def _transposed_convolution(op: TransposedConvolution, grids: Sequence[Grid]) -> _Prepared:
    """Output rows of one remainder modulo the stride all use the same taps: a convolution for each remainder."""
    phases = [
        _Phase(op, grids[0], (row, column)) for row in range(op.stride) for column in range(op.stride)
    ]

    def execute(x: Sequence[Ints]) -> Ints:
        acc = np.empty((op.weight.shape[1], *op.output_size(x[0].shape[1:])), dtype=np.int64)
        for phase in phases:
            target = acc[:, phase.remainder[0] :: op.stride, phase.remainder[1] :: op.stride]
            if target.size:
                target[...] = phase(x[0], target.shape[1:])
        return op.rescaling.apply(acc + op.bias[:, None, None], op.grid)

    return execute


class _Phase:
    """The output positions stride·j + remainder: out[j] = Σ_t w[t] x[j + (remainder + padding - t)/stride]."""

    def __init__(self, op: TransposedConvolution, grid: Grid, remainder: tuple[int, int]) -> None:
        self.remainder, self.outputs = remainder, op.weight.shape[1]
        # Taps that reach this remainder, by ascending offset; none if the kernel is shorter than the stride.
        taps = [
            [t for t in range(k) if (r + op.padding - t) % op.stride == 0][::-1]
            for r, k in zip(remainder, op.kernel, strict=True)
        ]
        self.correlation: _Correlation | None = None
        if all(taps):
            weight = op.weight[:, :, taps[0]][:, :, :, taps[1]].transpose(1, 0, 2, 3)
            self.correlation = _Correlation(weight, grid.magnitude, 1)
            self.low = [(r + op.padding - t[0]) // op.stride for r, t in zip(remainder, taps, strict=True)]
            self.counts = [len(t) for t in taps]

    def __call__(self, x: Ints, size: tuple[int, ...]) -> Ints:
        if self.correlation is None:
            return np.zeros((self.outputs, *size), dtype=np.int64)
        pads, slices = [], [slice(None)]
        for low, count, have, want in zip(self.low, self.counts, x.shape[1:], size, strict=True):
            length = want + count - 1
            pads.append((max(-low, 0), max(low + length - have, 0)))
            slices.append(slice(max(low, 0), max(low, 0) + length))
        return self.correlation(np.pad(x, ((0, 0), *pads))[tuple(slices)])


def _gdn(op: Gdn, grids: Sequence[Grid]) -> _Prepared:
    high = activation_range(grids[0].bits)[1]
    correlate = _Correlation(op.gamma[:, :, None, None], np.full(len(op.gamma), high), 1)
    shift = op.square_shift[:, None, None]

    def execute(x: Sequence[Ints]) -> Ints:
        u = np.minimum((x[0] * x[0] + ((np.int64(1) << shift) >> 1)) >> shift, high)
        return gdn_output(op, x[0], correlate(u) + op.beta[:, None, None])

    return execute


def _add(op: Add, grids: Sequence[Grid]) -> _Prepared:
    def execute(x: Sequence[Ints]) -> Ints:
        acc = op.multipliers[0][:, None, None] * x[0]
        for m, q in zip(op.multipliers[1:], x[1:], strict=True):
            acc = acc + m[:, None, None] * q
        return op.rescaling.apply(acc, op.grid)

    return execute


def _requantize(op: Requantize, grids: Sequence[Grid]) -> _Prepared:
    return lambda x: op.rescaling.apply(x[0], op.grid)


_PREPARE: dict[type[Operation], Callable[..., _Prepared]] = {
    Convolution: _convolution,
    TransposedConvolution: _transposed_convolution,
    Gdn: _gdn,
    Add: _add,
    Requantize: _requantize,
}
