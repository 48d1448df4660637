"""The exact engine: integers through floating-point matrix products that cannot round.

A product of float32 matrices is exact, in any order of summation and on any instruction set, while every
partial sum is an integer below 2^24 (2^53 in float64). Each operation knows the bound of its accumulator
(``ops.py``), so the narrowest type that is safe is chosen per operation; a sum over a long kernel is split
into pieces that each stay below 2^24 where that is enough. The result therefore depends on neither the thread
count nor the BLAS; ``reference.py`` is the same thing without any matrix product, and must agree.
"""

from collections.abc import Callable, Sequence

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

Centred = Sequence[Ints]


def run(part: Part, q: Ints) -> Ints:
    """Stored integers of the input [C, H, W] to those of the output, int64."""
    tensors = {INPUT: q}
    last_use = part.last_use()
    for index, op in enumerate(part.operations):
        grids = part.input_grids(op)
        centred = [
            tensors[name].astype(np.int64) - grid.zero_point[:, None, None]
            for name, grid in zip(op.inputs, grids, strict=True)
        ]
        tensors[op.name] = _EXECUTE[type(op)](op, centred, grids)
        for name in [n for n in tensors if last_use.get(n, index + 1) <= index]:
            del tensors[name]
    return tensors[part.output]


# --- exact matrix products ----------------------------------------------------------------------------------


def _pieces(bounds: Ints) -> list[slice]:
    """Split K so that the sum of bounds[O, K] over each piece stays below 2^24 in every row."""
    pieces, first, total = [], 0, np.zeros(len(bounds), dtype=np.int64)
    for k in range(bounds.shape[1]):
        total = total + bounds[:, k]
        if total.max() >= FLOAT32_EXACT:
            pieces.append(slice(first, k))
            first, total = k, bounds[:, k]
    return [*pieces, slice(first, bounds.shape[1])]


def exact_product(weight: Ints, magnitude: Ints) -> Callable[[Ints], Ints]:
    """x [K, P] → weight [O, K] @ x, exact, int64, for all integers |x[k]| <= magnitude[k].

    The bound on the whole must be below 2^53, which ``ops.MAX_ACCUMULATOR`` guarantees.
    """
    bounds = abs(weight.astype(np.int64)) * magnitude
    single = bounds.max(initial=0) < FLOAT32_EXACT
    pieces = _pieces(bounds) if single and bounds.sum(axis=1).max(initial=0) < MAX_PIECES * FLOAT32_EXACT else []
    if not pieces:
        wide = weight.astype(np.float64)
        return lambda x: (wide @ x.astype(np.float64)).astype(np.int64)
    parts = [(piece, np.ascontiguousarray(weight[:, piece], dtype=np.float32)) for piece in pieces]

    def product(x: Ints) -> Ints:
        x32 = x.astype(np.float32, copy=False)
        total = (parts[0][1] @ x32[parts[0][0]]).astype(np.int64)
        for piece, w in parts[1:]:
            total += (w @ x32[piece]).astype(np.int64)
        return total

    return product


def _correlate(x: Ints, weight: Ints, magnitude: Ints, stride: int) -> Ints:
    """Plain correlation without padding: x [I, H, W], weight [O, I, kh, kw] → int64 [O, H', W']."""
    outputs, inputs, kh, kw = weight.shape
    product = exact_product(weight.reshape(outputs, -1), magnitude.repeat(kh * kw))
    windows = sliding_window_view(x.astype(np.float64 if magnitude.max() >= FLOAT32_EXACT else np.float32), (kh, kw), (1, 2))
    windows = windows[:, ::stride, ::stride].transpose(0, 3, 4, 1, 2)  # I kh kw H' W'
    height, width = windows.shape[3:]
    acc = np.empty((outputs, height, width), dtype=np.int64)
    rows = max(1, BLOCK_VALUES // (inputs * kh * kw * width))
    for first in range(0, height, rows):
        block = windows[..., first : first + rows, :]
        acc[:, first : first + rows] = product(block.reshape(inputs * kh * kw, -1)).reshape(outputs, -1, width)
    return acc


# --- operations ---------------------------------------------------------------------------------------------


def _convolution(op: Convolution, x: Centred, grids: Sequence[Grid]) -> Ints:
    p = op.padding
    padded = np.pad(x[0], ((0, 0), (p, p), (p, p)))
    acc = np.concatenate(
        [
            _correlate(inputs, weight, magnitude, op.stride)
            for inputs, weight, magnitude in zip(
                np.split(padded, op.groups),
                np.split(op.weight, op.groups),
                np.split(grids[0].magnitude, op.groups),
                strict=True,
            )
        ]
    )
    return op.rescaling.apply(acc + op.bias[:, None, None], op.grid)


def _transposed_convolution(op: TransposedConvolution, x: Centred, grids: Sequence[Grid]) -> Ints:
    """Output rows of one remainder modulo the stride all use the same taps: a convolution for each remainder."""
    height, width = op.output_size(x[0].shape[1:])
    acc = np.empty((op.weight.shape[1], height, width), dtype=np.int64)
    for row in range(min(op.stride, height)):
        for column in range(min(op.stride, width)):
            target = acc[:, row :: op.stride, column :: op.stride]
            target[...] = _phase(op, x[0], grids[0], (row, column), target.shape[1:])
    return op.rescaling.apply(acc + op.bias[:, None, None], op.grid)


def _phase(
    op: TransposedConvolution, x: Ints, grid: Grid, remainder: tuple[int, int], size: tuple[int, ...]
) -> Ints:
    """The output positions stride·j + remainder: out[j] = Σ_t w[t] x[j + (remainder + padding - t)/stride]."""
    taps, pads, offsets = [], [], []
    for r, k, n, count in zip(remainder, op.kernel, x.shape[1:], size, strict=True):
        axis = [t for t in range(k) if (r + op.padding - t) % op.stride == 0][::-1]  # by ascending offset
        if not axis:
            return np.zeros((op.weight.shape[1], *size), dtype=np.int64)
        low, high = ((r + op.padding - t) // op.stride for t in (axis[0], axis[-1]))
        taps.append(axis)
        offsets.append(max(low, 0))
        pads.append((max(-low, 0), max(count - 1 + high - (n - 1), 0)))
    weight = op.weight[:, :, taps[0]][:, :, :, taps[1]].transpose(1, 0, 2, 3)
    padded = np.pad(x, ((0, 0), *pads))[
        :,
        offsets[0] : offsets[0] + size[0] + len(taps[0]) - 1,
        offsets[1] : offsets[1] + size[1] + len(taps[1]) - 1,
    ]
    return _correlate(padded, weight, grid.magnitude, 1)


def _gdn(op: Gdn, x: Centred, grids: Sequence[Grid]) -> Ints:
    q = x[0]
    high = activation_range(grids[0].bits)[1]
    shift = op.square_shift[:, None, None]
    u = np.minimum((q * q + ((np.int64(1) << shift) >> 1)) >> shift, high)
    magnitude = np.full(len(q), high, dtype=np.int64)
    norm = _correlate(u, op.gamma[:, :, None, None], magnitude, 1) + op.beta[:, None, None]
    return gdn_output(op, q, norm)


def _add(op: Add, x: Centred, grids: Sequence[Grid]) -> Ints:
    acc = op.multipliers[0][:, None, None] * x[0]
    for m, q in zip(op.multipliers[1:], x[1:], strict=True):
        acc = acc + m[:, None, None] * q
    return op.rescaling.apply(acc, op.grid)


def _requantize(op: Requantize, x: Centred, grids: Sequence[Grid]) -> Ints:
    return op.rescaling.apply(x[0], op.grid)


_EXECUTE: dict[type[Operation], Callable[..., Ints]] = {
    Convolution: _convolution,
    TransposedConvolution: _transposed_convolution,
    Gdn: _gdn,
    Add: _add,
    Requantize: _requantize,
}
