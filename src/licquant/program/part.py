"""A part of the codec (g_a, g_s, h_a, h_s, …) as an integer program, and a program: all parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from licquant.errors import LoweringError
from licquant.program.fields import check_fields
from licquant.program.grid import Grid
from licquant.program.ops import Convolution, Operation, PixelShuffle, TransposedConvolution

INPUT = "input"
MAX_OPERATIONS = 1 << 10  # of a part; models have up to about 200, and looking through all for each takes its square


@dataclass(frozen=True, eq=False)
class Part:
    """Operations in order of execution; each reads the tensor ``"input"`` or earlier operations' outputs.

    The last operation's output is the part's. Raises ``LoweringError`` on construction if an operation reads
    what is not there, if shapes do not fit, or if an accumulator could overflow.
    """

    name: str
    input_grid: Grid
    operations: tuple[Operation, ...]

    def __post_init__(self) -> None:
        if not self.operations:
            raise LoweringError(f"{self.name}: a part needs at least one operation")
        if len(self.operations) > MAX_OPERATIONS:
            raise LoweringError(f"{self.name}: {len(self.operations)} operations: at most {MAX_OPERATIONS} can be run")
        grids = {INPUT: self.input_grid}
        for op in self.operations:
            if op.name in grids:
                raise LoweringError(f"{self.name}: two tensors are named {op.name}")
            missing = [name for name in op.inputs if name not in grids]
            if missing or not op.inputs:
                raise LoweringError(f"{op.name}: reads {(missing or ['nothing'])[0]}, which is not computed before it")
            read = [grids[name] for name in op.inputs]
            check_fields(op, read)
            op.check(read)
            grids[op.name] = op.grid

    @property
    def output_grid(self) -> Grid:
        """That of the last operation."""
        return self.operations[-1].grid

    @property
    def output(self) -> str:
        """The tensor that the part writes."""
        return self.operations[-1].name

    def input_grids(self, op: Operation) -> list[Grid]:
        """The grids of the tensors that ``op`` reads."""
        return [self.grid_of(name) for name in op.inputs]

    def grid_of(self, tensor: str) -> Grid:
        """The grid of a tensor by its name: ``INPUT``, or an operation's."""
        if tensor == INPUT:
            return self.input_grid
        return next(op.grid for op in self.operations if op.name == tensor)

    def last_use(self) -> dict[str, int]:
        """Tensor → index of the last operation that reads it: afterwards its memory can go."""
        return {name: i for i, op in enumerate(self.operations) for name in op.inputs}

    def sizes(self, size: tuple[int, int]) -> dict[str, tuple[int, int]]:
        """(height, width) of every tensor for an input of that size.

        Raises ``LoweringError`` where nothing would be left of a tensor, or where the branches that meet in an
        operation differ.
        """
        sizes = {INPUT: size}
        for op in self.operations:
            read = [sizes[name] for name in op.inputs]
            sizes[op.name] = op.output_size(read[0])
            if min(sizes[op.name]) < 1 or any(other != read[0] for other in read[1:]):
                raise LoweringError(f"{op.name}: cannot be computed for a tensor of {size[0]}×{size[1]} positions")
        return sizes

    def output_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of the output for an input of that size; ``LoweringError`` as ``sizes``."""
        return self.sizes(size)[self.output]

    def receptive_field(self, first: int, last: int) -> tuple[int, int]:
        """(first, last) input row that the output rows first..last depend on; may lie outside the image.

        The same for columns: kernels are taken at their larger side.
        """
        wanted = {self.output: (first, last)}
        for op in reversed(self.operations):
            if op.name not in wanted:
                continue
            low, high = wanted[op.name]
            if isinstance(op, Convolution):
                low = low * op.stride - op.padding
                high = high * op.stride - op.padding + max(op.kernel) - 1
            elif isinstance(op, TransposedConvolution):
                low = -((max(op.kernel) - 1 - low - op.padding) // op.stride)
                high = (high + op.padding) // op.stride
            elif isinstance(op, PixelShuffle):
                low, high = low // op.factor, high // op.factor
            for name in op.inputs:
                a, b = wanted.get(name, (low, high))
                wanted[name] = (min(a, low), max(b, high))
        return wanted[INPUT]


@dataclass(frozen=True, eq=False)
class Program(Mapping[str, Part]):
    """Part name → part, e.g. ``program["g_a"]``."""

    parts: Mapping[str, Part] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Part:
        return self.parts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.parts)

    def __len__(self) -> int:
        return len(self.parts)
