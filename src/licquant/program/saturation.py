"""A part laid out so that 16-bit sums of two products cannot overflow.

Without instructions such as VNNI, INT8 kernels multiply unsigned bytes by signed ones and add the products of the
input channels 2k and 2k + 1 in 16 bits, which saturate: 255 · (|a| + |b|) > 2^15 for two large weights of one sign.
Few weights are large, though, so most pairs of channels never saturate, whatever comes in. The channels of the tensors
between layers have no order of their own: here they are put in one in which neighbours fit each other, and a channel
that fits no other is given one of zeros as its neighbour. What the part computes stays exactly the same.

A layer that has no such order (its input comes from outside, or is signed) runs in float32 instead, where all its sums
are exact: it is given wide weights, which no INT8 kernel reads.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from licquant.program.arithmetic import MAX_BITS, Ints
from licquant.program.grid import Grid
from licquant.program.ops import (
    Add,
    Convolution,
    Gdn,
    Operation,
    PixelShuffle,
    Rescaling,
    TransposedConvolution,
)
from licquant.program.part import INPUT, Part

PAIR_LIMIT = 128  # |a| + |b| of two weights of one sign: 255 · 128 < 2^15
BYTE_BITS = 8
BLOCK = 8  # kernels work on so many channels at a time
_ABSENT = -1  # stands for a channel of zeros in an order


def int8_layers(part: Part) -> list[Operation]:
    """The layers that the engine runs by INT8 kernels if nothing forbids it."""
    return [op for op in part.operations if _weight(op) is not None and _bits(op, part) <= BYTE_BITS]


def in_floats(part: Part, names: Container[str]) -> Part:
    """The part with those layers' weights declared so wide that no INT8 kernel reads them."""
    wide = [
        replace(op, weight_bits=MAX_BITS) if op.name in names else op  # type: ignore[call-arg]
        for op in part.operations
    ]
    return Part(part.name, part.input_grid, tuple(wide))


def saturates(op: Operation) -> bool:
    """Whether two neighbouring input channels of a layer can sum up to more than 16 bits hold."""
    weight = _weight(op)
    assert weight is not None
    even, odd = weight[: len(weight) // 2 * 2 : 2].astype(np.int32), weight[1::2].astype(np.int32)
    return bool((abs(even + odd)[(even > 0) == (odd > 0)] > PAIR_LIMIT).any())


def laid_out(part: Part) -> Part:
    """The same function, in which as few layers as possible saturate."""
    return _Orders(part).apply()


def _weight(op: Operation) -> Ints | None:
    """Weights as [input channel, everything else]; None for layers without.

    Grouped kernels pair channels in their own way: each channel is its own neighbour.
    """
    if isinstance(op, Convolution):
        by_input = op.weight.transpose(1, 0, 2, 3) if op.groups == 1 else op.weight.reshape(1, -1).repeat(2, axis=0)
    elif isinstance(op, TransposedConvolution):
        by_input = op.weight
    elif isinstance(op, Gdn):
        by_input = op.gamma.T
    else:
        return None
    return by_input.reshape(len(by_input), -1)


def _bits(op: Any, part: Part) -> int:
    """The wider of what a layer with weights multiplies."""
    read = op.square_bits if isinstance(op, Gdn) else part.input_grids(op)[0].bits
    return int(max(op.weight_bits, read))


class _Orders:
    """Chooses an order of channels for every set of tensors that must share one, and applies them."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self._set: dict[str, str] = {INPUT: INPUT}  # tensor → the first tensor of its set
        for op in part.operations:
            self._set[op.name] = op.name
            if not isinstance(op, Convolution | TransposedConvolution | PixelShuffle):
                for name in op.inputs:
                    self._join(op.name, name)
        fixed = {self._set[name] for name in (INPUT, part.output)}
        for op in part.operations:
            if isinstance(op, PixelShuffle) or (isinstance(op, Convolution) and op.groups > 1):
                fixed |= {self._set[name] for name in (op.name, *op.inputs)}
        self._order = {first: self._choose(first) for first in set(self._set.values()) - fixed}

    def _join(self, a: str, b: str) -> None:
        kept, gone = self._set[a], self._set[b]
        self._set = {name: kept if first == gone else first for name, first in self._set.items()}

    def _choose(self, first: str) -> Ints:
        readers = [op for op in int8_layers(self._part) if self._set[op.inputs[0]] == first]
        if not any(saturates(op) for op in readers):
            return np.arange(self._part.grid_of(first).channels)
        weights = [weight for op in readers if (weight := _weight(op)) is not None]
        return _paired(np.logical_or.reduce([_conflicts(weight) for weight in weights]))

    def apply(self) -> Part:
        return Part(self._part.name, self._part.input_grid, tuple(self._reordered(op) for op in self._part.operations))

    def _reordered(self, op: Operation) -> Operation:
        written, read = (self._order.get(self._set[name]) for name in (op.name, op.inputs[0]))
        if isinstance(op, Convolution | TransposedConvolution):
            outputs, inputs = (0, 1) if isinstance(op, Convolution) else (1, 0)
            op = replace(op, weight=_taken(op.weight, read, inputs))
            if written is None:
                return op
            weight, bias = _taken(op.weight, written, outputs), _taken(op.bias, written)
            return replace(op, grid=_grid(op.grid, written), weight=weight, bias=bias, rescaling=_of(op, written))
        if written is None:
            return op
        if isinstance(op, Gdn):
            names = ("beta", "square_multiplier", "square_shift", "multiplier", "shift")
            vectors = {name: _repeated(getattr(op, name), written) for name in names}
            gamma = _taken(_taken(op.gamma, written, 0), written, 1)
            return replace(op, grid=_grid(op.grid, written), gamma=gamma, **vectors)
        changed: dict[str, Any] = {"grid": _grid(op.grid, written)}
        if isinstance(op, Add):
            changed["multipliers"] = tuple(_repeated(m, written) for m in op.multipliers)
        if hasattr(op, "rescaling"):
            changed["rescaling"] = _of(op, written)
        return replace(op, **changed)


def _conflicts(weight: Ints) -> Any:
    """bool[I, I]: which two input channels of [I, K] weights must not be neighbours."""
    by_column = np.ascontiguousarray(weight.T, dtype=np.int16)
    found = np.zeros((len(weight), len(weight)), dtype=bool)
    for signed in (by_column, -by_column):
        signed = signed[(signed > PAIR_LIMIT // 2).any(axis=1)]
        for channel in range(len(weight)):
            own = signed[:, channel]
            large = np.flatnonzero(own > PAIR_LIMIT // 2)  # one of two that are too much
            found[channel] |= (signed[large] > PAIR_LIMIT - own[large, None]).any(axis=0)
    found |= found.T
    np.fill_diagonal(found, False)
    return found


def _paired(conflicts: Any) -> Ints:
    """An order in which no neighbours 2k, 2k + 1 conflict; who finds no partner stands beside ``_ABSENT``.

    Who has fewest possible partners chooses first, and the one that has fewest itself: nearly as many pairs as there
    can be.
    """
    possible = ~conflicts
    np.fill_diagonal(possible, False)
    left, pairs, alone = np.ones(len(possible), dtype=bool), [], []
    while left.any():
        degree = (possible & left).sum(axis=1)
        one = int(np.flatnonzero(left)[degree[left].argmin()])
        left[one] = False
        partners = np.flatnonzero(possible[one] & left)
        if len(partners):
            other = int(partners[degree[partners].argmin()])
            left[other] = False
            pairs += [one, other]
        else:
            alone += [one, _ABSENT]
    order = pairs + alone
    return np.array(order + [_ABSENT] * (-len(order) % BLOCK))


def _taken(values: Ints, order: Ints | None, axis: int = 0) -> Ints:
    """Along an axis, in that order; zeros for ``_ABSENT``."""
    if order is None:
        return values
    shape = [1] * values.ndim
    shape[axis] = -1
    return values.take(np.maximum(order, 0), axis=axis) * (order != _ABSENT).reshape(shape).astype(values.dtype)


def _repeated(values: Any, order: Ints) -> Any:
    """In that order; the first channel's for ``_ABSENT``, as a tensor with one value for all channels runs faster."""
    return values[np.maximum(order, 0)]


def _grid(grid: Grid, order: Ints) -> Grid:
    return Grid(grid.bits, _repeated(grid.scale, order), _repeated(grid.zero_point, order))


def _of(op: Any, order: Ints) -> Rescaling:
    own: Rescaling = op.rescaling
    vectors: Sequence[Ints] = (own.positive, own.negative, own.shift)
    return Rescaling(*(_repeated(v, order) for v in vectors))
