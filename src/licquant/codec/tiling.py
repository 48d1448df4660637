"""Running a part on a large image piece by piece, with the same result as in one go.

Each piece of the output is computed from the input rows and columns that it depends on
(``Part.receptive_field``), so there are no seams; only the memory is bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from licquant.codec.regions import Planes
from licquant.errors import LoweringError
from licquant.program.arithmetic import Handed, Ints
from licquant.program.part import Part

TILE_PIXELS = 1024  # side of a piece, in pixels of the image
LATENT_TILE = 128  # in positions of y, where Gaussian parameters are computed


class Window(NamedTuple):
    """What is wanted of an output: [first, last) rows and columns."""

    rows: tuple[int, int]
    columns: tuple[int, int]


class _Piece(NamedTuple):
    """[first, last) rows and columns of the output, the input that they need, and their place in what that gives."""

    rows: tuple[int, int]
    columns: tuple[int, int]
    needed: tuple[slice, slice]
    place: tuple[slice, slice]


def fits_one_tile(part: Part, q: Planes, tile: int) -> bool:
    """Whether ``run_tiled`` runs the part in one go."""
    return max(part.output_size((q.shape[1], q.shape[2]))) <= tile


def run_tiled(run: Callable[[Ints], Ints], part: Part, q: Planes, tile: int, window: Window | None = None) -> Ints:
    """``run(q)`` for stored integers q [C, H, W], the output computed in pieces of at most tile × tile.

    window: of the output, at least one element of it; the rest is left out, and pieces outside are not computed
    """
    height, width = part.output_size((q.shape[1], q.shape[2]))
    (top, bottom), (left, right) = window or ((0, height), (0, width))
    if fits_one_tile(part, q, tile):
        return run(q[:, :, :])[:, top:bottom, left:right]
    output: Ints | None = None
    for piece in _pieces(part, q, tile):
        rows = max(piece.rows[0], top), min(piece.rows[1], bottom)
        columns = max(piece.columns[0], left), min(piece.columns[1], right)
        if rows[0] >= rows[1] or columns[0] >= columns[1]:
            continue
        found = run(q[:, *piece.needed])[:, *piece.place]
        if output is None:
            # rows × columns × channels in memory, as the engines give and take it
            shape = (bottom - top, right - left, len(found))
            output = np.moveaxis(np.empty(shape, _stored_type(part, found)), -1, 0)
        output[:, rows[0] - top : rows[1] - top, columns[0] - left : columns[1] - left] = found[
            :,
            rows[0] - piece.rows[0] : rows[1] - piece.rows[0],
            columns[0] - piece.columns[0] : columns[1] - piece.columns[0],
        ]
    assert output is not None
    return output


def largest_piece(part: Part, size: int, tile: int) -> int:
    """The longest side of the input that any piece of the output needs, for an input of that side."""
    length = part.output_size((size, size))[0]
    if length <= tile:
        return size
    spans = [_input_span(part, span, size, length) for span in _spans(length, tile)]
    return max(last - first for first, _, last in spans)


def sample_tiled(run: Callable[[Ints], Handed], part: Part, q: Planes, tile: int, rows: Ints, columns: Ints) -> Handed:
    """``run(q)[:, rows[:, None], columns]``: [C, R, K], computed in the same pieces."""
    output: Handed | None = None
    for piece in _pieces(part, q, tile):
        found = run(q[:, *piece.needed])[:, *piece.place]
        spans = (rows, piece.rows), (columns, piece.columns)
        here = [np.flatnonzero((n >= low) & (n < high)) for n, (low, high) in spans]
        place = [n[index] - low for index, (n, (low, _)) in zip(here, spans, strict=True)]
        if output is None:
            output = np.empty((len(found), len(rows), len(columns)), found.dtype)
        channels = np.arange(len(found))
        output[np.ix_(channels, *here)] = found[np.ix_(channels, *place)]
    assert output is not None
    return output


def _stored_type(part: Part, found: Ints) -> Any:
    """A large output is kept as the narrowest integers that hold its grid."""
    if found.dtype.kind == "f":
        return found.dtype
    return np.uint8 if part.output_grid.bits <= 8 else np.int32


def _pieces(part: Part, q: Planes, tile: int) -> Iterator[_Piece]:
    """Raises ``LoweringError`` for a part that does not make of a piece's input what it makes of the whole."""
    height, width = part.output_size((q.shape[1], q.shape[2]))
    for rows in _spans(height, tile):
        for columns in _spans(width, tile):
            top, row_skip, bottom = _input_span(part, rows, q.shape[1], height)
            left, column_skip, right = _input_span(part, columns, q.shape[2], width)
            place = (
                slice(row_skip, row_skip + rows[1] - rows[0]),
                slice(column_skip, column_skip + columns[1] - columns[0]),
            )
            if not _covers(part, (bottom - top, right - left), place):
                raise LoweringError(f"{part.name}: cannot be computed in pieces of {tile}×{tile}")
            yield _Piece(rows, columns, (slice(top, bottom), slice(left, right)), place)


def _covers(part: Part, size: tuple[int, int], place: tuple[slice, slice]) -> bool:
    """Whether what the part makes of an input of that size has the place in it."""
    return min(size) >= 1 and all(
        p.start >= 0 and p.stop <= n for p, n in zip(place, part.output_size(size), strict=True)
    )


def _spans(size: int, tile: int) -> Iterator[tuple[int, int]]:
    """[first, last) pieces of nearly equal length: few different shapes, since each costs a compilation."""
    count = -(-size // tile)
    length = -(-size // count)
    for first in range(0, size, length):
        yield first, min(first + length, size)


def _input_span(part: Part, wanted: tuple[int, int], size_in: int, size_out: int) -> tuple[int, int, int]:
    """([first, last) of the input, output rows to skip) for the wanted output rows.

    A part either reduces (size_in = k · size_out) or enlarges (size_out = k · size_in); pieces start at whole
    steps of the reduction so that their grids coincide with the image's.
    """
    low, high = part.receptive_field(wanted[0], wanted[1] - 1)
    step = max(size_in // size_out, 1)
    first = max(low, 0) // step * step
    last = min(-(-(high + 1) // step) * step, size_in)
    skip = wanted[0] - (first // step if step > 1 else first * (size_out // size_in))
    return first, skip, last
