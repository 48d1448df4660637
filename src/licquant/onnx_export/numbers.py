"""Accumulators to stored integers, in one of two kinds of numbers that give the same.

int64 is for what every runtime must compute alike: no node has a floating-point number in or out. float64 is for the
free zone, where it takes a fraction of the time: integers, and integers divided by powers of two, which it holds
exactly. That it does is proved for each operation when it is written (the functions named ``fits``); one that float64
would have to round is written in int64.

What saturates need not be exact: rounding to float64 keeps the order of numbers, so what lies beyond the last integer
of the output's grid goes on lying there.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from licquant.onnx_export.graph import Graph, Value
from licquant.onnx_export.sums import Sums, stored_type
from licquant.program.arithmetic import Ints
from licquant.program.grid import Grid
from licquant.program.ops import Rescaling

EXACT = 1 << 53  # of float64: every integer up to here

Accumulator = Callable[[type], Value]


def rescaled(
    graph: Graph, acc: Accumulator, rescaling: Rescaling, grid: Grid, constant: Ints, bound: int, doubles: bool
) -> Value:
    """Stored integers of (acc + constant) · m · 2^-s, rounded half up, on a grid.

    acc: writes the accumulator [N, C, H, W] in numbers of a type;  constant: int64[C]
    bound: of |acc + constant| and |constant|;  doubles: whether float64 may be used
    """
    if doubles and _fits_rescaling(rescaling, grid, bound):
        return _rescaled_doubles(graph, acc(np.float64), rescaling, grid, constant)
    return _rescaled_integers(graph, acc(np.int64), rescaling, grid, constant)


def _rescaled_integers(graph: Graph, acc: Value, rescaling: Rescaling, grid: Grid, constant: Ints) -> Value:
    """Intermediate results stay below 2^63, as they do in ``program/arithmetic.py``."""
    if constant.any():
        acc = graph.node("Add", acc, graph.channels(constant, np.int64))
    multiplier = graph.channels(rescaling.positive, np.int64)
    if not rescaling.linear:
        negative = graph.node("Less", acc, graph.constant(0, np.int64))
        multiplier = graph.node("Where", negative, graph.channels(rescaling.negative, np.int64), multiplier)
    return stored(graph, shifted(graph, graph.node("Mul", acc, multiplier), rescaling.shift), grid, np.int64)


def _rescaled_doubles(graph: Graph, acc: Value, rescaling: Rescaling, grid: Grid, constant: Ints) -> Value:
    """A knee is the larger of both lines; where the grid ends at 0, its clamp is the ReLU."""
    lines = [rescaling.positive]
    if not rescaling.linear and (rescaling.negative.any() or grid.range[0] < 0 or grid.zero_point.any()):
        lines.append(rescaling.negative)
    found = []
    for multiplier in lines:
        slope = np.ldexp(multiplier.astype(np.float64), -rescaling.shift)
        y = graph.node("Mul", acc, graph.channels(slope, np.float64))
        rest = constant * slope + (grid.zero_point + 0.5)
        found.append(graph.node("Add", y, graph.channels(rest, np.float64)))
    y = graph.node("Max", *found) if len(found) > 1 else found[0]
    return floored(graph, y, grid)


def _fits_rescaling(rescaling: Rescaling, grid: Grid, bound: int) -> bool:
    """Whether float64 rounds nothing, for |acc + constant| <= bound and |constant| <= bound.

    Everything is a multiple of 2^-s, so counted in units of it; acc itself may have twice the bound. A knee is the
    larger of both lines where the negative one is the flatter.
    """
    if (rescaling.negative > rescaling.positive).any():
        return False
    largest = np.maximum(rescaling.positive, abs(rescaling.negative)).astype(np.float64)
    units = np.ldexp(1.0, rescaling.shift)
    return bool((3.0 * bound * largest + (grid.zero_point + 1) * units < EXACT).all())


def fits_product(bound: float, shift: Ints, grid: Grid) -> bool:
    """Whether floor(p · 2^-s + 1/2 + zero_point) is exact on a grid for integers |p| <= bound, rounded to float64."""
    units = np.ldexp(1.0, shift)
    beyond = ((1 << grid.bits) + grid.zero_point + 1) * units  # saturates
    return bool((np.minimum(bound, beyond) + (grid.zero_point + 1) * units < EXACT).all())


def fits_quotient(numerator: float, denominator: float, grid: Grid) -> bool:
    """Whether floor(a / b) is exact on a grid for integers |a| <= numerator, 0 < b <= denominator.

    The rounded quotient is off by at most |a / b| · 2^-53, which is below 1 / b, the least distance of a / b to the
    integer above it, while |a| < 2^53.
    """
    beyond = ((1 << grid.bits) + int(grid.zero_point.max()) + 2) * denominator
    return min(numerator, beyond) < EXACT


def shifted(graph: Graph, value: Value, shift: Ints) -> Value:
    """(v + 2^(s-1)) >> s, of int64 and for each channel."""
    rounded = graph.node("Add", value, graph.channels(np.int64(1) << (shift - 1), np.int64))
    return floor_divided(graph, rounded, graph.channels(np.int64(1) << shift, np.int64))


def floored(graph: Graph, y: Value, grid: Grid) -> Value:
    """⌊y⌋ of float64, clamped to a grid: a cast leaves the fraction out, so only negative ones need more."""
    low, high = grid.range
    y = graph.clip(graph.node("Floor", y) if low < 0 else y, low, high, np.float64)
    return graph.cast(y, stored_type(grid))


def floor_divided(graph: Graph, a: Value, b: Value) -> Value:
    """⌊a / b⌋ of int64, b > 0. Div rounds to 0, Mod has the sign of b: what it leaves divides without a rest."""
    return graph.node("Div", graph.node("Sub", a, graph.node("Mod", a, b)), b)


def stored(graph: Graph, y: Value, grid: Grid, dtype: type) -> Value:
    """Integers q - zero_point of some type to stored ones, clamped."""
    if grid.zero_point.any():
        y = graph.node("Add", y, graph.channels(grid.zero_point, dtype))
    return graph.cast(graph.clip(y, *grid.range, dtype), stored_type(grid))


def centred(graph: Graph, x: Value, grid: Grid, dtype: type) -> Value:
    """Stored integers to q - zero_point."""
    x = graph.cast(x, dtype)
    return graph.node("Sub", x, graph.channels(grid.zero_point, dtype)) if grid.zero_point.any() else x


def joined(graph: Graph, sums: Sums, dtype: type) -> Value:
    """All planes of a sum in one number, without its constant."""
    total: Value | None = None
    for place, plane in sums.planes:
        term = graph.cast(plane, dtype)
        if place:
            term = graph.node("Mul", term, graph.constant(1 << 8 * place, dtype))
        total = term if total is None else graph.node("Add", total, term)
    assert total is not None
    return total
