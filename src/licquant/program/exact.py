"""The exact engine: integers through floating-point matrix products that cannot round.

A product of float32 matrices is exact, in any order of summation and on any instruction set, while every
partial sum is an integer below 2^24 (2^53 in float64). Each operation knows the bound of its accumulator
(``ops.py``), so the narrowest type that is safe is chosen per operation; a sum over a long kernel is split
into pieces that each stay below 2^24 where that is enough. The result therefore depends on neither the thread
count nor the BLAS; ``reference.py`` is the same thing without any matrix product, and must agree. Large products
are tried with INT8 kernels first, where a test of the layer allows it (``checked.py``).
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from licquant.program.arithmetic import Floats, Ints, activation_range
from licquant.program.checked import SMALLEST_WORK, CheckedCorrelation
from licquant.program.grid import Grid
from licquant.program.ops import (
    Add,
    Convolution,
    Gdn,
    Gdn1,
    Multiply,
    Operation,
    PixelShuffle,
    Requantize,
    Sigmoid,
    TransposedConvolution,
)
from licquant.program.part import INPUT, Part
from licquant.program.reference import gdn_output, gdn_squares
from licquant.program.rescaler import Centred, Rescaler, exact_dtype
from licquant.program.threads import in_parallel, thread_count
from licquant.program.unread import without_unread

FLOAT32_EXACT = 1 << 24
MAX_PIECES = 4  # more float32 pieces than this are slower than one float64 product
BLOCK_VALUES = 1 << 22  # gathered inputs at a time: bounds the memory, and stays near the caches


# Between operations a tensor is q - zero_point [C, H, W], as ``rescaler.py`` writes it.


class _Prepared(Protocol):
    """An operation with its weights laid out: centred inputs to centred output."""

    def __call__(self, x: Sequence[Centred]) -> Centred: ...


class ExactEngine:
    """Runs one part in integers; weights are laid out once, on construction."""

    def __init__(self, part: Part) -> None:
        self.part = part = without_unread(part)
        self._last_use = part.last_use()
        self._execute: list[_Prepared] = [_PREPARE[type(op)](op, part.input_grids(op)) for op in part.operations]

    def prepare(self) -> None:
        """Its weights are laid out already."""

    def run(self, q: Ints) -> Ints:
        """Stored integers of the input [C, H, W] to those of the output, int64."""
        tensors: dict[str, Centred] = {INPUT: _centred(q, self.part.input_grid)}
        for index, (op, execute) in enumerate(zip(self.part.operations, self._execute, strict=True)):
            tensors[op.name] = execute([tensors[name] for name in op.inputs])
            for name in [n for n in tensors if self._last_use.get(n, index + 1) <= index]:
                del tensors[name]
        stored = tensors[self.part.output].astype(np.int64)
        return np.add(stored, self.part.output_grid.zero_point[:, None, None], out=stored)

    def hand_on(self, q: Ints) -> Ints:
        """``run``, by the name that all engines have for what only another engine reads."""
        return self.run(q)


def _centred(q: Ints, grid: Grid) -> Centred:
    centred: Centred = q.astype(exact_dtype(grid))
    centred -= grid.zero_point[:, None, None].astype(centred.dtype)
    return centred


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


def exact_product(weight: Ints, magnitude: Ints) -> Callable[[Floats], Floats]:
    """x [K, P] → weight [O, K] @ x, exact, in floats, for all integers |x[k]| <= magnitude[k].

    The bound on the whole must be below 2^53, which ``ops.MAX_ACCUMULATOR`` guarantees.
    """
    in_floats, checked = _float_product(weight, magnitude), CheckedCorrelation(weight[:, :, None, None], 1)

    def product(x: Floats) -> Floats:
        found = checked(x[:, None])
        return in_floats(x) if found is None else found[:, 0]

    return product


def _float_product(weight: Ints, magnitude: Ints) -> Callable[[Floats], Floats]:
    """``exact_product`` by BLAS alone."""
    size = abs(weight)  # of its own type: no weight is the lowest integer of it
    longest = (size.max(axis=0, initial=0) * magnitude.astype(np.float64)).max(initial=0)
    # In float64 sums below 2^53 are exact, as their terms are not negative; what is above is far too large anyway.
    largest = (size.astype(np.float64) @ magnitude.astype(np.float64)).max(initial=0)
    if longest >= FLOAT32_EXACT or largest >= MAX_PIECES * FLOAT32_EXACT:
        wide = weight.astype(np.float64)
        return lambda x: wide @ x.astype(np.float64)
    pieces = [slice(None)] if largest < FLOAT32_EXACT else _pieces(size * magnitude)
    parts = [(piece, np.ascontiguousarray(weight[:, piece], dtype=np.float32)) for piece in pieces]

    def product(x: Floats) -> Floats:
        x32 = x.astype(np.float32, copy=False)
        if len(parts) == 1:
            return parts[0][1] @ x32
        total = (parts[0][1] @ x32[parts[0][0]]).astype(np.float64)
        for piece, w in parts[1:]:
            total += w @ x32[piece]
        return total

    return product


class _Correlation:
    """Plain correlation without padding: x [I, H, W], weight [O, I, kh, kw] → floats [O, H', W']."""

    def __init__(self, weight: Ints, magnitude: Ints, stride: int) -> None:
        self.shape, self.stride = weight.shape, stride
        taps = weight.shape[2] * weight.shape[3]
        self.checked = CheckedCorrelation(weight, stride)
        self.product = _float_product(weight.reshape(len(weight), -1), magnitude.repeat(taps))
        self.dtype: type = np.float64 if magnitude.max() >= FLOAT32_EXACT else np.float32

    def __call__(self, x: Centred) -> Floats:
        found = self.checked(x)
        if found is not None:
            return found
        outputs, inputs, kh, kw = self.shape
        windows: Floats = sliding_window_view(x.astype(self.dtype), (kh, kw), (1, 2))  # type: ignore[call-overload]
        windows = windows[:, :: self.stride, :: self.stride].transpose(0, 3, 4, 1, 2)  # I kh kw H' W'
        height, width = windows.shape[3:]
        acc = np.empty((outputs, height, width))
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

    rescale = Rescaler(op.rescaling, op.grid, op.bound(grids), op.bias)

    def execute(x: Sequence[Centred]) -> Centred:
        p = op.padding
        padded = np.pad(x[0], ((0, 0), (p, p), (p, p)))
        height, width = op.output_size((x[0].shape[1], x[0].shape[2]))

        def rows(piece: slice) -> Centred:
            needed = padded[:, piece.start * op.stride : (piece.stop - 1) * op.stride + op.kernel[0]]
            groups = zip(correlations, np.split(needed, op.groups), strict=True)
            sums = [correlate(q) for correlate, q in groups]
            return rescale(sums[0] if len(sums) == 1 else np.concatenate(sums))

        found = in_parallel(rows, _pieces_of_rows(height, op.weight.size * width))
        return found[0] if len(found) == 1 else np.concatenate(found, axis=1)

    return execute


def _pieces_of_rows(height: int, work: int) -> list[slice]:
    """The rows of an output, each so many multiply-accumulates, in pieces for the threads to share."""
    count = min(thread_count(), height, max(1, height * work // SMALLEST_WORK))
    ends = [height * index // count for index in range(count + 1)]
    return [slice(first, last) for first, last in pairwise(ends)]


def _transposed_convolution(op: TransposedConvolution, grids: Sequence[Grid]) -> _Prepared:
    """A convolution that writes all output positions stride·j + r of one input position j, for every remainder r."""
    weight, low = _by_remainders(op)
    correlate = _Correlation(weight, grids[0].magnitude, 1)
    rescale = Rescaler(op.rescaling, op.grid, op.bound(grids), op.bias)

    def execute(x: Sequence[Centred]) -> Centred:
        height, width = op.output_size((x[0].shape[1], x[0].shape[2]))
        counts = -(-height // op.stride), -(-width // op.stride)
        read = _window(x[0], low, [n + taps - 1 for n, taps in zip(counts, weight.shape[2:], strict=True)])

        def rows(piece: slice) -> Centred:
            sums = correlate(read[:, piece.start : piece.stop + weight.shape[2] - 1])
            blocks = sums.reshape(op.stride, op.stride, -1, *sums.shape[1:]).transpose(2, 3, 0, 4, 1)
            placed = np.ascontiguousarray(blocks).reshape(len(blocks), -1, counts[1] * op.stride)
            return rescale(placed)[:, :, :width]

        found = in_parallel(rows, _pieces_of_rows(counts[0], weight.size * counts[1]))
        return (found[0] if len(found) == 1 else np.concatenate(found, axis=1))[:, :height]

    return execute


def _by_remainders(op: TransposedConvolution) -> tuple[Ints, list[int]]:
    """Weights [stride · stride · O, I, h, w], and the (down, right) of the first that each output reads.

    out[stride·j + r] = Σ_t w[t] x[j + (r + padding - t)/stride] over the taps t that divide.
    """
    reached = [
        [(r, t, (r + op.padding - t) // op.stride) for r in range(op.stride) for t in range(k)
         if (r + op.padding - t) % op.stride == 0]
        for k in op.kernel
    ]  # fmt: skip
    low = [min(at for _, _, at in axis) for axis in reached]
    size = [max(at for _, _, at in axis) - first + 1 for axis, first in zip(reached, low, strict=True)]
    inputs, outputs = op.weight.shape[:2]
    weight = np.zeros((op.stride, op.stride, outputs, inputs, *size), dtype=op.weight.dtype)
    for row, down, i in reached[0]:
        for column, right, j in reached[1]:
            weight[row, column, :, :, i - low[0], j - low[1]] = op.weight[:, :, down, right].T
    return weight.reshape(-1, inputs, *size), low


def _window(x: Centred, first: Sequence[int], size: Sequence[int]) -> Centred:
    """Rows and columns first, first + 1, … of x, so many; zeros where there is nothing."""
    pads, kept = [(0, 0)], [slice(None)]
    for low, length, have in zip(first, size, x.shape[1:], strict=True):
        pads.append((max(-low, 0), max(low + length - have, 0)))
        kept.append(slice(max(low, 0), max(low, 0) + length))
    return np.pad(x, pads)[tuple(kept)]


def _gdn(op: Gdn, grids: Sequence[Grid]) -> _Prepared:
    correlate = _Correlation(op.gamma[:, :, None, None], np.full(len(op.gamma), activation_range(op.square_bits)[1]), 1)

    def execute(x: Sequence[Centred]) -> Centred:
        q = x[0].astype(np.int64)
        norm = correlate(gdn_squares(op, q).astype(np.float64)).astype(np.int64) + op.beta[:, None, None]
        return _centred(gdn_output(op, q, norm), op.grid)

    return execute


def _add(op: Add, grids: Sequence[Grid]) -> _Prepared:
    multipliers = [m[:, None, None].astype(np.float64) for m in op.multipliers]
    rescale = Rescaler(op.rescaling, op.grid, op.bound(grids))

    def execute(x: Sequence[Centred]) -> Centred:
        acc = multipliers[0] * x[0]
        for m, q in zip(multipliers[1:], x[1:], strict=True):
            acc += m * q
        return rescale(acc)

    return execute


def _requantize(op: Requantize, grids: Sequence[Grid]) -> _Prepared:
    rescale = Rescaler(op.rescaling, op.grid, op.bound(grids))
    return lambda x: rescale(x[0])


def _multiply(op: Multiply, grids: Sequence[Grid]) -> _Prepared:
    rescale = Rescaler(op.rescaling, op.grid, op.bound(grids))
    return lambda x: rescale(x[0].astype(np.float64) * x[1])


def _sigmoid(op: Sigmoid, grids: Sequence[Grid]) -> _Prepared:
    stored = grids[0].zero_point[:, None, None]
    return lambda x: _centred(op.table[x[0].astype(np.int64) + stored], op.grid)


def _pixel_shuffle(op: PixelShuffle, grids: Sequence[Grid]) -> _Prepared:
    return lambda x: op.apply(x[0])


_PREPARE: dict[type[Operation], Callable[..., _Prepared]] = {
    Convolution: _convolution,
    TransposedConvolution: _transposed_convolution,
    Gdn: _gdn,
    Gdn1: _gdn,
    Add: _add,
    Requantize: _requantize,
    Multiply: _multiply,
    Sigmoid: _sigmoid,
    PixelShuffle: _pixel_shuffle,
}
