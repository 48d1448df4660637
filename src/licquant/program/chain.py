"""Running a dynamic part: the chosen stages one after another, each on an engine of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Protocol

from licquant.errors import LoweringError
from licquant.program.arithmetic import Handed, Ints
from licquant.program.dynamic import DynamicPart
from licquant.program.exact import ExactEngine
from licquant.program.part import INPUT, Part
from licquant.program.selector import centred, pool, positions, sample


class Engine(Protocol):
    """What runs one part: stored integers [C, H, W] to the same."""

    def prepare(self) -> None:
        """Make ready what ``run`` would have to make first."""

    def run(self, q: Ints, /) -> Ints:
        """Stored integers of the input grid [C, H, W] to those of the output grid."""

    def hand_on(self, q: Ints, /) -> Handed:
        """``run``, for another engine to read before this one is used again."""
        ...


class Chain:
    """A dynamic part on engines: one for each stage and width, made when first needed.

    part: what is run;  engine: makes the engine of a stage
    """

    def __init__(self, part: DynamicPart, engine: Callable[[Part], Engine]) -> None:
        self.part = part
        self._make = engine
        self._engines: dict[tuple[int, int], Engine] = {}

    @property
    def selects_by_input(self) -> bool:
        """Whether the selector reads the part's input; else it reads what ``start`` gives."""
        return self.part.selector.tensor == INPUT

    def start(self, q: Ints) -> Handed:
        """The first stage's output, to be read before the next call."""
        (width,) = self.part.stages[0].parts
        return self._engine(0, width, q).hand_on(q)

    def finish(self, first: Handed, widths: Sequence[int]) -> Ints:
        """The part's output from that of the first stage, with these widths of the others."""
        tensor = first
        for index, width in enumerate(widths[:-1], 1):
            tensor = self._engine(index, width, tensor).hand_on(tensor)
        return self._engine(len(widths), widths[-1], tensor).run(tensor)

    def choose(self, selected: Handed) -> tuple[int, ...]:
        """The widths for a whole tensor [C, H, W] that the selector reads."""
        rows, columns = (positions(n) for n in selected.shape[1:])
        return self.choose_by_samples(sample(selected, rows, columns), (selected.shape[1], selected.shape[2]))

    def choose_by_samples(self, samples: Handed, size: tuple[int, int]) -> tuple[int, ...]:
        """The widths for a tensor of that size, given at the selector's ``positions`` alone: [C, R, K]."""
        means = pool(centred(samples, self.part.selected_grid.zero_point), size)
        return self.part.choose(self._network.run(means))

    @cached_property
    def _network(self) -> ExactEngine:
        return ExactEngine(self.part.selector.network)

    def _engine(self, stage: int, width: int, tensor: Handed) -> Engine:
        """For such a tensor [C, H, W]; ``LoweringError`` if the stage makes another size of it than at its widest."""
        part, widest = self.part.stages[stage].parts[width], self.part.stages[stage].widest
        size = (tensor.shape[1], tensor.shape[2])
        if part is not widest and part.output_size(size) != widest.output_size(size):
            raise LoweringError(f"{part.name}: what a stage makes of a tensor's size depends on its width")
        if (stage, width) not in self._engines:
            self._engines[stage, width] = self._make(part)
        return self._engines[stage, width]
