"""Running a part on a large image piece by piece, with the same result as in one go.

Each piece of the output is computed from the input rows and columns that it depends on
(``Part.receptive_field``), so there are no seams; only the memory is bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from licquant.program.arithmetic import Ints
from licquant.program.part import Part

TILE_PIXELS = 1024  # side of a piece, in pixels of the image


def run_tiled(run: Callable[[Ints], Ints], part: Part, q: Ints, tile: int) -> Ints:
    """``run(q)`` for stored integers q [C, H, W], the output computed in pieces of at most tile × tile."""
    height, width = part.output_size((q.shape[1], q.shape[2]))
    if height <= tile and width <= tile:
        return run(q)
    output: Ints | None = None
    for rows in _spans(height, tile):
        for columns in _spans(width, tile):
            top, row_skip, bottom = _input_span(part, rows, q.shape[1], height)
            left, column_skip, right = _input_span(part, columns, q.shape[2], width)
            piece = run(q[:, top:bottom, left:right])[
                :,
                row_skip : row_skip + rows[1] - rows[0],
                column_skip : column_skip + columns[1] - columns[0],
            ]
            if output is None:
                # rows × columns × channels in memory, as the engines give and take it
                output = np.moveaxis(np.empty((height, width, len(piece)), piece.dtype), -1, 0)
            output[:, rows[0] : rows[1], columns[0] : columns[1]] = piece
    assert output is not None
    return output


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
