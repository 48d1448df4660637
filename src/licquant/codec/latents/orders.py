"""The orders in which a plane is coded: passes whose positions do not depend on one another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from licquant.errors import ArtifactError
from licquant.program.arithmetic import Ints


@dataclass(frozen=True, eq=False)
class Pass:
    """Flat positions [P], possibly none, that are coded together; without a context theirs means 0."""

    positions: Ints
    has_context: bool = True


class Diagonals:
    """Anti-diagonals t = column + step · row: for a causal mask (van den Oord 2016, Minnen 2018).

    The step is the smallest that puts every tap on an earlier diagonal: 3 for a 5×5 mask. ``lags``, int64[T], says
    how many diagonals earlier.
    """

    def __init__(self, taps: Ints) -> None:
        """taps: int64[T, 2], (down, right). Raises ``ArtifactError`` for one that is not before its position."""
        down, right = taps.T
        if ((down > 0) | ((down == 0) & (right >= 0))).any():
            raise ArtifactError("the context's convolution reads positions that are not decoded yet")
        above = down < 0
        self.step = max(0, int((right[above] // -down[above]).max(initial=-1)) + 1)
        self.lags = -(right + self.step * down)

    def passes(self, height: int, width: int) -> list[Pass]:
        """One pass for every t, also where a narrow plane has no positions, so that lags count passes."""
        row, column = np.divmod(np.arange(height * width), width)
        time = column + self.step * row
        order = np.argsort(time, kind="stable")
        return [Pass(one) for one in np.split(order, np.searchsorted(time[order], np.arange(1, time[-1] + 1)))]


class Checkerboard:
    """Positions with an even row + column, without a context, then the others with theirs (He 2021)."""

    def __init__(self, taps: Ints) -> None:
        """taps: int64[T, 2], (down, right). Raises ``ArtifactError`` for one that stays on its own half."""
        if (taps.sum(axis=1) % 2 == 0).any():
            raise ArtifactError("the context's convolution reads positions that are not decoded yet")
        self.lags = np.ones(len(taps), dtype=np.int64)

    def passes(self, height: int, width: int) -> list[Pass]:
        """The even squares, which have no context, then the odd ones; positions count row by row."""
        row, column = np.divmod(np.arange(height * width), width)
        odd = (row + column) % 2 == 1
        return [Pass(np.flatnonzero(~odd), has_context=False), Pass(np.flatnonzero(odd))]
