"""The dynamic bit-width selector: which of the candidate widths each stage of a part gets for this image.

    tensor ──cells, means of |q - zero_point|──> [C, 5, 5] ──network──> logits [stages × candidates] ──argmax──> widths

From the tensor's integers on, everything is integers, so the choice is the same on every machine. It follows
DynaQuant (Bao 2026: adaptive pooling to 5×5, flatten, two linear layers; equation 7), with two differences:

* Magnitudes are averaged, not values. The mean of what a convolution puts out is a linear function of the mean
  pixels: it says nothing of texture.
* At most 4 × 4 evenly spaced positions of a cell are read, so that the time does not grow with the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from licquant.errors import LoweringError
from licquant.program.arithmetic import (
    FIXED_POINT_BITS,
    INT32_MAX,
    MAX_BITS,
    MIN_BITS,
    Floats,
    Handed,
    Ints,
    divide_half_up,
)
from licquant.program.part import Part

CELLS = 5  # along either side
FRACTION_BITS = 8  # of the means
_POSITIONS = 4  # of a cell along either side


def cells(size: int) -> Sequence[Ints]:
    """The positions, of 0..size-1, that each cell reads: int64[<= 4] five times; size >= 1.

    Cell i covers floor(i · size / 5) to ceil((i + 1) · size / 5), as PyTorch's adaptive pooling; from its n positions
    at most 4 are taken, in the middles of equal pieces.
    """
    found = []
    for i in range(CELLS):
        first, end = i * size // CELLS, -(-(i + 1) * size // CELLS)
        count = min(end - first, _POSITIONS)
        found.append(first + (2 * np.arange(count) + 1) * (end - first) // (2 * count))
    return found


@cache
def positions(size: int) -> Ints:
    """Those of all cells, one cell after another: what ``pool`` wants to be given."""
    return np.concatenate(cells(size))


def pool(samples: Floats, size: tuple[int, int]) -> Ints:
    """The mean of |q - zero_point| over each cell, in units of 2^-8, rounded half up: int64 [C, 5, 5].

    samples: centred integers [C, R, K] at the ``positions`` of the rows and columns of a tensor of that size, below
        2^32, as float64: their sums are exact in any order
    """
    of_rows, of_columns = (_cells_of_positions(n) for n in size)
    magnitude = abs(np.moveaxis(samples, 0, -1))  # as ``sample`` has them in memory: many times faster
    in_rows = np.stack([magnitude[cell].sum(0) for cell in of_rows])
    sums = np.stack([in_rows[:, cell].sum(1) for cell in of_columns], 1).astype(np.int64)
    height, width = ([cell.stop - cell.start for cell in of] for of in (of_rows, of_columns))
    counts = np.outer(height, width)
    return np.minimum(divide_half_up(np.moveaxis(sums, -1, 0) << FRACTION_BITS, counts), INT32_MAX)


@cache
def _cells_of_positions(size: int) -> tuple[slice, ...]:
    """Where each cell's positions are among the ``positions``."""
    ends = np.cumsum([len(cell) for cell in cells(size)]).tolist()
    return tuple(slice(first, end) for first, end in zip([0, *ends], ends, strict=False))


def sample(tensor: Handed, rows: Ints, columns: Ints) -> Handed:
    """A tensor [C, H, W] at those rows and columns: [C, R, K]."""
    # The fast engine mostly has the channels of a position next to each other in memory.
    return np.moveaxis(np.moveaxis(tensor, 0, -1)[rows[:, None], columns], -1, 0)


def centred(samples: Handed, zero_point: Ints) -> Floats:
    """q - zero_point of stored integers [C, R, K], as float64; what is not rounded yet is, half up."""
    whole = samples.astype(np.float64)
    if samples.dtype.kind == "f":
        whole += 0.5
        np.floor(whole, out=whole)
    whole -= zero_point[:, None, None]
    return whole


@dataclass(frozen=True, eq=False)
class Selector:
    """What chooses the widths of a dynamic part.

    tensor:     the name of what is pooled: the part's input, or the output of its first stage
    candidates: the widths that each stage may get, ascending
    network:    means [C, 5, 5] in fixed point to logits [candidates of all stages, 1, 1]: 5×5 convolution with ReLU
        (a linear layer of the flattened means), then 1×1 convolution
    """

    tensor: str
    candidates: tuple[tuple[int, ...], ...]
    network: Part

    def __post_init__(self) -> None:
        if not self.candidates or any(len(of) < 2 or list(of) != sorted(set(of)) for of in self.candidates):
            raise LoweringError("candidate widths must be at least two different ones, and ascend")
        if not all(MIN_BITS <= of[0] <= of[-1] <= MAX_BITS for of in self.candidates):
            raise LoweringError(f"candidate widths lie between {MIN_BITS} and {MAX_BITS}")
        grids, logits = (self.network.input_grid, self.network.output_grid), sum(map(len, self.candidates))
        if any(grid.bits != FIXED_POINT_BITS for grid in grids) or grids[1].channels != logits:
            raise LoweringError("the selector's input or logits do not fit")
        if self.network.output_size((CELLS, CELLS)) != (1, 1):
            raise LoweringError("the selector's network does not read 5 × 5 cells")

    def choice(self, logits: Ints) -> tuple[int, ...]:
        """The width of each stage: that of the largest logit, the lowest width of equal ones."""
        ends = np.cumsum([len(of) for of in self.candidates])
        of_stages = np.split(logits.ravel(), ends[:-1])
        return tuple(of[int(own.argmax())] for of, own in zip(self.candidates, of_stages, strict=True))
