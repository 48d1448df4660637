"""A part of which stages come in several widths, one of which is chosen for every image (DynaQuant, Bao 2026).

    input ──stage 0, fixed──┬──stage 1 at b₁──stage 2 at b₂── … ──> output
                            └──selector──> b₁, b₂, …           (or the selector reads the input)

A stage is a child module of the model's part. The tensor between two stages has one grid, that of the program at
the widest widths, whatever the widths before and after it: a stage of several widths brings it to its own grid
first, from 16 bits. So one program for each stage and width is enough, and at the widest widths the chain is the
static program itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from licquant.errors import LoweringError
from licquant.program.arithmetic import MAX_BITS, MIN_BITS, Ints
from licquant.program.grid import Grid
from licquant.program.ops import Operation
from licquant.program.part import INPUT, Part
from licquant.program.selector import Selector

_PROBE = (1 << 10, 1 << 10)  # a size that every stride divides


@dataclass(frozen=True, eq=False)
class Stage:
    """One link of the chain.

    name:  the module's path, e.g. ``g_a.2``
    parts: width → the stage as a part of its own, ascending; a stage that keeps its width has one
    """

    name: str
    parts: Mapping[int, Part]

    def __post_init__(self) -> None:
        if not self.parts or list(self.parts) != sorted(self.parts):
            raise LoweringError(f"{self.name}: the widths of a stage must ascend")
        if not MIN_BITS <= min(self.parts) <= max(self.parts) <= MAX_BITS:
            raise LoweringError(f"{self.name}: the widths of a stage lie between {MIN_BITS} and {MAX_BITS}")
        widest = self.widest
        for part in self.parts.values():
            same = part.input_grid.same(widest.input_grid) and part.output_grid.same(widest.output_grid)
            if not same or _geometry(part) != _geometry(widest):
                raise LoweringError(f"{self.name}: what it reads and writes depends on its width")

    @property
    def widths(self) -> tuple[int, ...]:
        """Bits, ascending."""
        return tuple(self.parts)

    @property
    def widest(self) -> Part:
        """The stage at the most bits: as it is in the static program."""
        return self.parts[self.widths[-1]]


@dataclass(frozen=True, eq=False)
class DynamicPart:
    """A part with its stages in every width.

    part:     the whole at the widest widths
    stages:   the first has one width, others may; the widest are pieces of ``part``, in order
    selector: chooses the widths of those that have several

    Raises ``LoweringError`` on construction if they do not fit one another.
    """

    part: Part
    stages: tuple[Stage, ...]
    selector: Selector

    def __post_init__(self) -> None:
        name, selector = self.part.name, self.selector
        if sum(len(stage.widest.operations) for stage in self.stages) != len(self.part.operations):
            raise LoweringError(f"{name}: its stages are not all of it")
        if len(self.stages[0].parts) != 1:
            raise LoweringError(f"{name}: its first stage has more than one width")
        if tuple(stage.widths for stage in self.stages if len(stage.parts) > 1) != selector.candidates:
            raise LoweringError(f"{name}: its selector chooses of other widths than its stages have")
        if selector.tensor not in (INPUT, self.stages[0].widest.output):
            raise LoweringError(f"{name}: its selector reads neither its input nor its first stage")
        if self.selected_grid.channels != selector.network.input_grid.channels:
            raise LoweringError(f"{name}: its selector reads another number of channels")

    @property
    def selected_grid(self) -> Grid:
        """The grid of what the selector pools."""
        return self.part.grid_of(self.selector.tensor)

    def choose(self, logits: Ints) -> tuple[int, ...]:
        """The widths of all stages but the first, given what the selector's network puts out."""
        chosen = iter(self.selector.choice(logits))
        return tuple(next(chosen) if len(stage.parts) > 1 else stage.widths[0] for stage in self.stages[1:])


def split(part: Part, lengths: Sequence[int]) -> list[Part]:
    """Consecutive pieces of that many operations, each a part that reads what the one before it writes.

    Raises ``LoweringError`` for a piece that reads anything else.
    """
    pieces, first, grid, before = [], 0, part.input_grid, INPUT
    for length in lengths:
        operations = part.operations[first : first + length]
        if length < 1 or len(operations) < length:
            raise LoweringError(f"{part.name}: its stages are not all of it")
        if first and any(INPUT in op.inputs for op in operations):
            raise LoweringError(f"{part.name}: a stage reads more than the one before it writes")
        piece = Part(part.name, grid, tuple(_reading(op, before, INPUT) for op in operations))
        pieces.append(piece)
        first, grid, before = first + length, piece.output_grid, piece.output
    return pieces


def _reading(op: Operation, old: str, new: str) -> Operation:
    """The operation with one of its inputs renamed."""
    return replace(op, inputs=tuple(new if name == old else name for name in op.inputs))


def _geometry(part: Part) -> tuple[tuple[int, int], tuple[int, int]]:
    return part.output_size(_PROBE), part.receptive_field(0, 63)
