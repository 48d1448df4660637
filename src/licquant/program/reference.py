"""The slow integer reference: every sum as its definition reads, weight by weight in int64, without a matrix product.

It exists to be believed: ``exact.py`` must equal it on every input. What is a formula of one element is written once
and not proved by that: the rescaling (``ops.Rescaling``, on ``arithmetic.py``) and the two ends of GDN below, which
``exact.py`` uses too. Those have vectors computed by hand and by whole numbers of Python.
"""

from collections.abc import Callable, Sequence

import numpy as np

from licquant.program.arithmetic import Ints, activation_range, divide_half_up, integer_sqrt, rescale, rescale_product
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

Centred = Sequence[Ints]  # q - zero_point of each input, int64 [C, H, W]


def run(part: Part, q: Ints) -> Ints:
    """Stored integers of the input [C, H, W] to those of the output, int64."""
    tensors: dict[str, Ints] = {INPUT: q.astype(np.int64)}
    for op in part.operations:
        grids = part.input_grids(op)
        centred = [tensors[name] - grid.zero_point[:, None, None] for name, grid in zip(op.inputs, grids, strict=True)]
        tensors[op.name] = _EXECUTE[type(op)](op, centred, grids)
    return tensors[part.output]


def _convolution(op: Convolution, x: Centred, grids: Sequence[Grid]) -> Ints:
    padded = np.pad(x[0], ((0, 0), (op.padding, op.padding), (op.padding, op.padding)))
    height, width = op.output_size((x[0].shape[1], x[0].shape[2]))
    acc = np.tile(op.bias[:, None, None], (1, height, width)).astype(np.int64)
    outputs, per_group = len(op.weight) // op.groups, op.weight.shape[1]
    for o in range(len(op.weight)):
        first = o // outputs * per_group
        for i in range(per_group):
            for a in range(op.kernel[0]):
                for b in range(op.kernel[1]):
                    rows = slice(a, a + (height - 1) * op.stride + 1, op.stride)
                    columns = slice(b, b + (width - 1) * op.stride + 1, op.stride)
                    acc[o] += int(op.weight[o, i, a, b]) * padded[first + i, rows, columns]
    return op.rescaling.apply(acc, op.grid)


def _transposed_convolution(op: TransposedConvolution, x: Centred, grids: Sequence[Grid]) -> Ints:
    height, width = op.output_size((x[0].shape[1], x[0].shape[2]))
    # Every input position adds its kernel to a canvas large enough for all of them; the padding is cut off after.
    rows, columns = x[0].shape[1:]
    margin = op.padding
    canvas = np.zeros(
        (
            op.weight.shape[1],
            max(height + 2 * margin, (rows - 1) * op.stride + op.kernel[0]),
            max(width + 2 * margin, (columns - 1) * op.stride + op.kernel[1]),
        ),
        dtype=np.int64,
    )
    for i in range(op.weight.shape[0]):
        for o in range(op.weight.shape[1]):
            for a in range(op.kernel[0]):
                for b in range(op.kernel[1]):
                    target = canvas[
                        o,
                        a : a + (rows - 1) * op.stride + 1 : op.stride,
                        b : b + (columns - 1) * op.stride + 1 : op.stride,
                    ]
                    target += int(op.weight[i, o, a, b]) * x[0][i]
    acc = canvas[:, margin : margin + height, margin : margin + width] + op.bias[:, None, None]
    return op.rescaling.apply(acc, op.grid)


def _gdn(op: Gdn, x: Centred, grids: Sequence[Grid]) -> Ints:
    q = x[0]
    u = gdn_squares(op, q)
    norm = np.tile(op.beta[:, None, None], (1, *q.shape[1:])).astype(np.int64)
    for o in range(len(op.gamma)):
        for i in range(len(op.gamma)):
            norm[o] += int(op.gamma[o, i]) * u[i]
    return gdn_output(op, q, norm)


def gdn_squares(op: Gdn, q: Ints) -> Ints:
    """u of centred integers q, int64: the same for both exact engines."""
    u = rescale(
        abs(q) if isinstance(op, Gdn1) else q * q, op.square_multiplier[:, None, None], op.square_shift[:, None, None]
    )
    return np.minimum(u, activation_range(op.square_bits)[1])


def gdn_output(op: Gdn, q: Ints, norm: Ints) -> Ints:
    """The division or multiplication by the norm, or by its root: the same for both exact engines."""
    multiplier, shift = op.multiplier[:, None, None], op.shift[:, None, None]
    norm, first = np.maximum(norm, 1), isinstance(op, Gdn1)
    root = norm if first else integer_sqrt(norm << 16)
    if op.inverse and first:
        y = rescale_product(q, norm, multiplier, shift + 10)
    elif op.inverse:
        y = rescale(q * root, multiplier, shift + 8)
    else:
        y = divide_half_up((q * multiplier) << np.maximum(24 - shift, 0), root << np.maximum(shift - 24, 0))
    return np.clip(y + op.grid.zero_point[:, None, None], *op.grid.range)


def _add(op: Add, x: Centred, grids: Sequence[Grid]) -> Ints:
    terms = [m[:, None, None] * q for m, q in zip(op.multipliers, x, strict=True)]
    return op.rescaling.apply(np.sum(terms, axis=0), op.grid)


def _requantize(op: Requantize, x: Centred, grids: Sequence[Grid]) -> Ints:
    return op.rescaling.apply(x[0], op.grid)


def _multiply(op: Multiply, x: Centred, grids: Sequence[Grid]) -> Ints:
    return op.rescaling.apply(x[0] * x[1], op.grid)


def _sigmoid(op: Sigmoid, x: Centred, grids: Sequence[Grid]) -> Ints:
    stored = x[0] + grids[0].zero_point[:, None, None]
    return np.array([op.table[q] for q in stored.ravel()], dtype=np.int64).reshape(stored.shape)


def _pixel_shuffle(op: PixelShuffle, x: Centred, grids: Sequence[Grid]) -> Ints:
    r = op.factor
    y = np.zeros((op.grid.channels, *op.output_size((x[0].shape[1], x[0].shape[2]))), dtype=np.int64)
    for c in range(op.grid.channels):
        for i in range(r):
            for j in range(r):
                y[c, i::r, j::r] = x[0][c * r * r + i * r + j]
    return y + op.grid.zero_point[:, None, None]


_EXECUTE: dict[type[Operation], Callable[..., Ints]] = {
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
