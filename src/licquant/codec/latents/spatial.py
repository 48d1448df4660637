"""Gaussian parameters from a context in the plane, pass by pass.

    ŷ so far ──masked convolution──> context ──┐
    what is known of every position ───────────┴──entropy parameters──> σ, μ of the positions of one pass

All positions of a pass go through each layer in one exact matrix product. A short product costs as much as
loading its weights, so taps that reach back further are multiplied for several passes at once: those 4 or more
passes back for four, those 2 or 3 back for two, the rest for one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from licquant.codec.latents.gaussian import CodePass
from licquant.codec.latents.masked import MaskedConvolution, Plane
from licquant.codec.latents.orders import Checkerboard, Diagonals, Pass
from licquant.codec.latents.pointwise import SplitLayers, chain
from licquant.errors import ArtifactError
from licquant.program.arithmetic import Floats, Ints
from licquant.program.grid import Grid
from licquant.program.part import Part
from licquant.program.rescaler import exact_dtype
from licquant.program.threads import in_parallel, limited_threads, thread_count

_SMALLEST_PIECE, _LARGEST_PIECE = 256, 2048  # positions at a time: worth a thread of its own, and bounds the memory
_VECTOR = 16  # positions that a matrix product handles at once: 16 take less time than 11
_LEVELS = 3  # of taps: those at least 1, 2 and 4 passes back


class SpatialContext:
    """The two parts of a context model in the plane.

    context, parameters: the parts; known: grids of what is known of every position, in the order of their channels
    context_first:       whether the context's channels come before the known ones in ``parameters``' input
    order:               in which positions are coded
    """

    def __init__(
        self,
        context: Part,
        parameters: Part,
        known: Sequence[Grid],
        context_first: bool,
        order: type[Diagonals] | type[Checkerboard],
    ) -> None:
        """Raises ``ArtifactError`` if the parts do not fit one another, or the mask the order."""
        grids = [context.output_grid, *known] if context_first else [*known, context.output_grid]
        if not _joined(grids, parameters.input_grid):
            raise ArtifactError(f"{parameters.name} does not read what {context.name} and the others write")
        self.convolution = MaskedConvolution(context)
        self.order = order(self.convolution.taps)
        level = np.minimum(np.log2(self.order.lags).astype(np.int64), _LEVELS - 1)
        self.taps = [np.flatnonzero(level == k) for k in range(level.max() + 1)]
        self.shares = [self.convolution.share(taps) for taps in self.taps]
        self.layers = SplitLayers(chain(parameters), parameters.input_grid)
        self._dtype = exact_dtype(parameters.input_grid)
        self._zero_point = np.concatenate([grid.zero_point for grid in known])[:, None].astype(self._dtype)
        channels, count = context.output_grid.channels, parameters.input_grid.channels
        split = channels if context_first else count - channels
        halves = self.layers.share(slice(0, split)), self.layers.share(slice(split, count))
        self.of_context, self._of_known = halves if context_first else halves[::-1]

    def code_passes(self, known: Ints, channels: slice, code: CodePass) -> Ints:
        """Code some channels of ŷ pass by pass; known: stored integers [C, H, W]. Returns ŷ int32 [c, H, W]."""
        run = _Run(self, self._known_shares(known), known.shape[1:], channels, code)
        passes, block = self.order.passes(*known.shape[1:]), 1 << len(self.taps) - 1
        largest = max(len(one.positions) for one in passes)
        # Small products take as long on two threads as on one, and far longer where other work has one of the cores.
        with limited_threads(1 if largest <= _SMALLEST_PIECE else None):
            for first in range(0, len(passes), block):
                run.block(passes[first : first + block], len(self.taps) - 1, None)
        return run.y_hat.reshape(-1, *known.shape[1:])

    def _known_shares(self, known: Ints) -> Floats:
        """What all known channels add to the first layer's accumulator: [positions, O]."""
        flat = known.reshape(len(known), -1)

        def share(piece: slice) -> Floats:
            stored: Floats = flat[:, piece].astype(self._dtype)
            return np.ascontiguousarray(self._of_known(stored - self._zero_point).T)

        return np.concatenate(in_parallel(share, _pieces(flat.shape[1])))


class _Run:
    """One plane on its way through the passes."""

    def __init__(
        self, context: SpatialContext, known: Floats, size: tuple[int, ...], channels: slice, code: CodePass
    ) -> None:
        self._context, self._known, self._channels, self._code = context, known, channels, code
        self._plane = Plane(context.convolution, *size)
        self.y_hat = np.zeros((context.convolution.channels, size[0] * size[1]), dtype=np.int32)

    def block(self, passes: Sequence[Pass], level: int, acc: Floats | None) -> None:
        """At most 2^level passes; acc: what the taps of higher levels add at all their positions, [O, P]."""
        positions = np.concatenate([one.positions for one in passes])
        if not positions.size:
            return
        if level == 0:
            self._pass(passes[0], acc)
            return
        share = self._share(level, _padded(positions))[:, : len(positions)]
        acc = share if acc is None else share + acc
        half, start = 1 << level - 1, 0
        for part in filter(None, (passes[:half], passes[half:])):
            end = start + sum(len(one.positions) for one in part)
            self.block(part, level - 1, acc[:, start:end])
            start = end

    def _pass(self, one: Pass, acc: Floats | None) -> None:
        both, count = self._parameters(one, acc), len(self.y_hat)
        found = self._code(self._channels, one.positions, both[:count], both[count:])
        self._plane.put(one.positions, found)
        self.y_hat[:, one.positions] = found

    def _parameters(self, one: Pass, acc: Floats | None) -> Ints:
        """σ and μ in fixed point, int64 [2 · c, P]."""
        context = self._context

        def parameters(piece: slice) -> Ints:
            positions = one.positions[piece]
            padded = _padded(positions)
            total = self._known.take(padded, axis=0).T
            if one.has_context:
                share = self._share(0, padded)
                if acc is not None:
                    share = share + acc.take(_padded(np.arange(piece.start, piece.start + len(positions))), axis=1)
                total = total + context.of_context(context.convolution.finish(share))
            return context.layers.finish(total)[:, : len(positions)].astype(np.int64)

        found = in_parallel(parameters, _pieces(len(one.positions)))
        return found[0] if len(found) == 1 else np.concatenate(found, axis=1)

    def _share(self, level: int, positions: Ints) -> Floats:
        return self._context.shares[level](self._plane.neighbours(positions, self._context.taps[level]))


def _pieces(count: int) -> list[slice]:
    """All of so many positions, in pieces for the threads to share."""
    size = min(_LARGEST_PIECE, max(_SMALLEST_PIECE, -(-count // thread_count())))
    return [slice(first, first + size) for first in range(0, count, size)]


def _padded(positions: Ints) -> Ints:
    """The positions, the last one repeated as often as a matrix product does not notice."""
    count = len(positions)
    whole = max(4, 1 << (count - 1).bit_length()) if count <= _VECTOR else -(-count // _VECTOR) * _VECTOR
    return positions.take(np.arange(whole), mode="clip")


def _joined(grids: Sequence[Grid], whole: Grid) -> bool:
    """Whether ``whole`` is the grids' channels one after another."""
    same = {grid.bits for grid in grids} == {whole.bits}
    return same and np.array_equal(np.concatenate([grid.zero_point for grid in grids]), whole.zero_point)
