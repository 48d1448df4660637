"""GDN of both kinds in ONNX, in integers or in float64 (see ``numbers.py``). The formulas are those of ``ops.Gdn``."""

from __future__ import annotations

import math

import numpy as np

from licquant.onnx_export.graph import Graph, Value
from licquant.onnx_export.numbers import (
    EXACT,
    centred,
    fits_product,
    fits_quotient,
    floor_divided,
    floored,
    joined,
    shifted,
    stored,
)
from licquant.onnx_export.sums import matrix, stored_type
from licquant.program.arithmetic import MAX_NORM, MULTIPLIER_BITS, Floats, Ints, activation_range
from licquant.program.grid import Grid
from licquant.program.ops import Gdn, Gdn1

_SPLIT_BITS = 10  # of a product, as in ``arithmetic.rescale_product``
_ROOT_BITS = (MAX_NORM.bit_length() - 1 + 16 + 1) // 2  # of floor(√(n · 2^16)), n < 2^35


def gdn(graph: Graph, op: Gdn, x: Value, grid: Grid, doubles: bool) -> Value:
    """Stored integers of a GDN;  doubles: whether float64 may be used, which it is where it is exact."""
    if doubles and _fits(op, grid):
        return _in_doubles(graph, op, x, grid)
    return _in_integers(graph, op, x, grid)


def _fits(op: Gdn, grid: Grid) -> bool:
    """Whether float64 computes this GDN without rounding anything that matters."""
    magnitude, root = grid.magnitude.astype(np.float64), _largest_root(op, grid)
    read = magnitude if isinstance(op, Gdn1) else magnitude**2
    squares = read * op.square_multiplier + np.ldexp(1.0, op.square_shift)
    if not (squares < EXACT).all() or not (magnitude * root < EXACT).all():
        return False
    if op.inverse:
        product = magnitude * root * op.multiplier
        return _fits_whole(op, product) or _fits_apart(op, product)
    numerator = magnitude * op.multiplier * np.ldexp(1.0, np.maximum(24 - op.shift, 0))
    denominator = root * np.ldexp(1.0, np.maximum(op.shift - 24, 0))
    return fits_quotient(float((2 * numerator + denominator).max()), float(2 * denominator.max()), op.grid)


def _largest_root(op: Gdn, grid: Grid) -> float:
    """Of the norm, or the norm itself in the first kind of GDN."""
    bound = float(max(op.bound([grid]), 1))
    return bound if isinstance(op, Gdn1) else math.sqrt(bound * 2.0**16)


def _product_shift(op: Gdn) -> Ints:
    """s of an inverse GDN's R(x · root · multiplier, s)."""
    return op.shift + (10 if isinstance(op, Gdn1) else 8)


def _fits_whole(op: Gdn, product: Floats) -> bool:
    return fits_product(float(product.max()), _product_shift(op), op.grid)


def _fits_apart(op: Gdn, product: Floats) -> bool:
    """Whether the product is exact without its ten lowest bits, which cannot reach the result if s > 10."""
    shift = _product_shift(op) - _SPLIT_BITS
    largest = np.ldexp(product, -_SPLIT_BITS) + np.ldexp(1.0, 2 * MULTIPLIER_BITS + 1)
    return bool((shift > 0).all() and (largest + (op.grid.zero_point + 1) * np.ldexp(1.0, shift) < EXACT).all())


def _norm(graph: Graph, op: Gdn, squares: Value, dtype: type) -> Value:
    """n, at least 1, from the squares or magnitudes u."""
    channels = len(op.gamma)
    grid = Grid(op.square_bits, np.ones(channels), np.zeros(channels, dtype=np.int64))
    squares = graph.cast(squares, stored_type(grid))
    sums = matrix(graph, op.name, op.gamma, op.weight_bits, squares, grid, op.beta)
    norm = graph.node("Add", joined(graph, sums, dtype), graph.channels(sums.constant, dtype))
    return norm if op.beta.min() >= 1 else graph.node("Max", norm, graph.constant(1, dtype))


def _in_doubles(graph: Graph, op: Gdn, x: Value, grid: Grid) -> Value:
    def scaled(value: Value, factors: np.ndarray) -> Value:
        return graph.node("Mul", value, graph.channels(factors, np.float64))

    def added(value: Value, addend: np.ndarray) -> Value:
        return graph.node("Add", value, graph.channels(addend, np.float64))

    first, dtype = isinstance(op, Gdn1), np.float64
    q = centred(graph, x, grid, dtype)
    read = graph.node("Abs", q) if first else graph.node("Mul", q, q)
    half = np.full(len(op.gamma), 0.5)
    u = added(scaled(read, np.ldexp(op.square_multiplier.astype(dtype), -op.square_shift)), half)
    u = graph.node("Min", u, graph.constant(activation_range(op.square_bits)[1], dtype))
    root = norm = _norm(graph, op, u, dtype)
    if not first:  # the root of an integer below 2^51 is never rounded up to the next integer
        root = graph.node("Floor", graph.node("Sqrt", graph.node("Mul", norm, graph.constant(1 << 16, dtype))))
    multiplier = op.multiplier.astype(dtype)
    if op.inverse:
        shift = _product_shift(op)
        if _fits_whole(op, grid.magnitude * _largest_root(op, grid) * multiplier):
            product = scaled(graph.node("Mul", q, root), np.ldexp(multiplier, -shift))
        else:
            upper = graph.node("Floor", scaled(root, np.full(1, 2.0**-_SPLIT_BITS)))
            lower = graph.node("Sub", root, scaled(upper, np.full(1, 2.0**_SPLIT_BITS)))
            weighted = scaled(q, multiplier)
            rest = scaled(graph.node("Mul", weighted, lower), np.full(1, 2.0**-_SPLIT_BITS))
            product = graph.node("Add", graph.node("Mul", weighted, upper), graph.node("Floor", rest))
            product = scaled(product, np.ldexp(1.0, _SPLIT_BITS - shift))
        return floored(graph, added(product, op.grid.zero_point + half), op.grid)
    # Numerator and denominator both divided by 2^max(shift - 24, 0), which takes nothing from either.
    total = graph.node("Add", scaled(q, np.ldexp(multiplier, 25 - op.shift)), root)
    quotient = graph.node("Floor", graph.node("Div", total, scaled(root, np.full(1, 2.0))))
    return floored(graph, added(quotient, op.grid.zero_point), op.grid)


def _in_integers(graph: Graph, op: Gdn, x: Value, grid: Grid) -> Value:
    def scaled(value: Value, factors: np.ndarray) -> Value:
        return graph.node("Mul", value, graph.channels(factors, np.int64))

    first, dtype = isinstance(op, Gdn1), np.int64
    q = centred(graph, x, grid, dtype)
    read = graph.node("Abs", q) if first else graph.node("Mul", q, q)
    u = shifted(graph, scaled(read, op.square_multiplier), op.square_shift)
    u = graph.node("Min", u, graph.constant(activation_range(op.square_bits)[1], dtype))
    root = norm = _norm(graph, op, u, dtype)
    if not first:
        root = _root(graph, graph.node("Mul", norm, graph.constant(1 << 16, dtype)))
    if op.inverse:
        if first:
            return stored(graph, _rescaled_product(graph, op, scaled(q, op.multiplier), norm), op.grid, dtype)
        product = scaled(graph.node("Mul", q, root), op.multiplier)
        return stored(graph, shifted(graph, product, op.shift + 8), op.grid, dtype)
    numerator = scaled(q, 2 * (op.multiplier << np.maximum(24 - op.shift, 0)))
    denominator = scaled(root, np.int64(1) << np.maximum(op.shift - 24, 0))
    total = graph.node("Add", numerator, denominator)
    twice = graph.node("Mul", denominator, graph.constant(2, dtype))
    return stored(graph, floor_divided(graph, total, twice), op.grid, dtype)


def _rescaled_product(graph: Graph, op: Gdn, q: Value, norm: Value) -> Value:
    """(q · n + 2^(s-1)) >> s, s = shift + 10, for products of up to 68 bits: ``arithmetic.rescale_product``."""
    step = graph.constant(1 << 10, np.int64)
    upper = graph.node("Mul", q, graph.node("Div", norm, step))
    lower = floor_divided(graph, graph.node("Mul", q, graph.node("Mod", norm, step)), step)
    return shifted(graph, graph.node("Add", upper, lower), op.shift)


def _root(graph: Graph, value: Value) -> Value:
    """⌊√v⌋ of int64 below 2^51, bit by bit from the highest."""
    root = graph.node("Mul", value, graph.constant(0, np.int64))
    for bit in reversed(range(_ROOT_BITS)):
        larger = graph.node("Add", root, graph.constant(1 << bit, np.int64))
        above = graph.node("Greater", graph.node("Mul", larger, larger), value)
        root = graph.node("Where", above, root, larger)
    return root
