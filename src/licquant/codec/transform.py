"""g_a and g_s of a codec on images of any size, of fixed widths or with a selector."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from licquant.codec.regions import EdgePadded, Planes
from licquant.codec.tiling import Window, fits_one_tile, run_tiled, sample_tiled
from licquant.program.arithmetic import Ints
from licquant.program.chain import Chain, Engine
from licquant.program.dynamic import DynamicPart
from licquant.program.part import Part
from licquant.program.selector import positions


class StaticTransform:
    """One part on one engine.

    tile: the largest side of its output that is computed in one go
    """

    def __init__(self, part: Part, engine: Engine, tile: int) -> None:
        self._part, self._engine, self._tile = part, engine, tile

    def prepare(self) -> None:
        """Make ready what ``run`` would have to make first."""
        self._engine.prepare()

    def run(self, q: Planes, window: Window | None = None) -> tuple[Ints, dict[str, int]]:
        """Stored integers of the input [C, H, W] to those of the output, or of a window of it, and the widths chosen:
        none here."""
        return run_tiled(self._engine.run, self._part, q, self._tile, window), {}

    def widths(self, q: Planes) -> dict[str, int]:
        """Stage → the width chosen for this input: nothing is chosen here."""
        return {}


class DynamicTransform:
    """A dynamic part on one engine for each stage and width. One image has one set of widths, whatever its tiles."""

    def __init__(self, part: DynamicPart, engine: Callable[[Part], Engine], tile: int) -> None:
        self._chain, self._part, self._tile = Chain(part, engine), part, tile

    def prepare(self) -> None:
        """Which stages will run is not known yet."""

    def run(self, q: Planes, window: Window | None = None) -> tuple[Ints, dict[str, int]]:
        """Stored integers of the input [C, H, W] to those of the output, or of a window of it, and the ``widths`` that
        are chosen for the whole."""
        chain, part = self._chain, self._part.part
        if not chain.selects_by_input and self._fits(q):
            first = chain.start(q[:, :, :])  # once, for the selector and for the next stage
            widths = chain.choose(first)
            return run_tiled(lambda _: chain.finish(first, widths), part, q, self._tile, window), self._named(widths)
        widths = self._choose(q)
        output = run_tiled(lambda piece: chain.finish(chain.start(piece), widths), part, q, self._tile, window)
        return output, self._named(widths)

    def widths(self, q: Planes) -> dict[str, int]:
        """Stage → the width chosen for this input; the first stage has none to choose."""
        return self._named(self._choose(q))

    def _named(self, widths: Sequence[int]) -> dict[str, int]:
        return dict(zip([stage.name for stage in self._part.stages[1:]], widths, strict=True))

    def _choose(self, q: Planes) -> tuple[int, ...]:
        chain = self._chain
        if chain.selects_by_input:
            return self._choose_by_input(q)
        if self._fits(q):
            return chain.choose(chain.start(q[:, :, :]))
        first = self._part.stages[0].widest
        size = first.output_size((q.shape[1], q.shape[2]))
        tile = self._tile * size[0] // self._part.part.output_size((q.shape[1], q.shape[2]))[0]
        rows, columns = (positions(n) for n in size)
        return chain.choose_by_samples(sample_tiled(chain.start, first, q, tile, rows, columns), size)

    def _choose_by_input(self, q: Planes) -> tuple[int, ...]:
        if not isinstance(q, EdgePadded):
            return self._chain.choose(q)
        size = q.shape[1], q.shape[2]
        rows, columns = (positions(n) for n in size)
        return self._chain.choose_by_samples(q.at(rows, columns), size)

    def _fits(self, q: Planes) -> bool:
        return fits_one_tile(self._part.part, q, self._tile)
