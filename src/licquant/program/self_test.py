"""What the INT8 kernels of this machine compute, found by running some: no CPU's name or flag is asked.

Without instructions such as VNNI, kernels add the products of two bytes in 16 bits, which saturate, or halve the
weights lest they do. So one small layer of each kind that a part has is run by the very engine, once a process, with
weights and inputs for which any such shortcut gives other sums:

    EXACT   for any weights
    PAIRS   for weights with which the products of two neighbouring channels fit 16 bits (``saturation.py``)
    WRONG   for these neither

Where all are exact, and what is fused to them rounds as everywhere, parts run as they are. Else they are laid out so
that pairs fit, and what is left over runs in float32, whose sums of the same integers are exact up to 2^24. If these
err as well, there is ``EngineError``.

What is assumed: kernels that are right here are right with other numbers, and layers of other sizes get kernels of the
same kind.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property

import numpy as np

from licquant.errors import EngineError
from licquant.program import kernel_rounding, single_rounding
from licquant.program.arithmetic import FIXED_POINT_BITS, MAX_BITS, Ints
from licquant.program.exact import ExactEngine
from licquant.program.grid import Grid
from licquant.program.openvino_layers import Layer, in_halves, runs_as_convolution
from licquant.program.ops import Convolution, Operation, Rescaling, TransposedConvolution
from licquant.program.part import INPUT, Part
from licquant.program.saturation import BYTE_BITS, PAIR_LIMIT, in_floats, int8_layers, laid_out, saturates

# Parts, and the stored integers [C, H, W] that each reads, to those that each gives.
Run = Callable[[Sequence[Part], Sequence[Ints]], Sequence[Ints]]
_LOG = logging.getLogger(__name__)
_SIZE, _LARGE, _FEW = 8, 127, 4
_CHANNELS = 32  # enough for the kernels that wide layers get


class Sums(Enum):
    """For which weights a kernel's sums are right."""

    EXACT = "exact"
    PAIRS = "exact where pairs fit 16 bits"
    WRONG = "wrong"


@dataclass(frozen=True)
class Kind:
    """A kind of layer that has kernels of its own."""

    inputs: int
    kernel: int
    zero_point: int | Sequence[int] = 0
    groups: int = 1
    transposed: bool = False
    rescaled: bool = False  # to 16 bits, by the kernel itself
    bits: int = BYTE_BITS  # of what it reads; wider ones are taken apart
    side: int = _SIZE  # of the image that it is tested with


_PLAIN, _SHIFTED, _UNEVEN = "convolution", "convolution with a zero point", "convolution with uneven zero points"
_ONE, _GROUPED, _DEPTHWISE, _PIXELS = (
    "1×1 convolution",
    "grouped convolution",
    "depthwise convolution",
    "convolution of pixels",
)
_TRANSPOSED, ROUNDING, _HALVES = "transposed convolution", "rounding in the kernel", "sum of two halves"
KINDS = {
    _PLAIN: Kind(_CHANNELS, 3),
    _SHIFTED: Kind(_CHANNELS, 3, zero_point=128),
    _UNEVEN: Kind(_CHANNELS, 3, zero_point=range(100, 100 + _CHANNELS)),
    _ONE: Kind(_CHANNELS, 1),
    _GROUPED: Kind(_CHANNELS, 3, groups=4),
    _DEPTHWISE: Kind(_CHANNELS, 3, groups=_CHANNELS),
    _PIXELS: Kind(3, 3),
    _TRANSPOSED: Kind(_CHANNELS, 5, zero_point=128, transposed=True),
    ROUNDING: Kind(_CHANNELS, 3, zero_point=128, rescaled=True),
    # At one position OpenVINO has been seen to let one half overwrite the other (``openvino_layers.py``).
    _HALVES: Kind(_CHANNELS, 3, zero_point=512, bits=10, side=1),
}


def kind_of(op: Operation, part: Part, apart: bool) -> str:
    """The kind of an INT8 layer, as ``openvino_graph.build`` runs it; the halves of values are signed."""
    grid = part.input_grids(op)[0]
    zero_point = grid.zero_point if grid.bits <= BYTE_BITS else np.full(grid.channels, 1 << (BYTE_BITS - 1))
    if isinstance(op, TransposedConvolution) and not runs_as_convolution(op, apart):
        return _TRANSPOSED
    if not isinstance(op, Convolution | TransposedConvolution):
        return _ONE
    if isinstance(op, Convolution) and op.groups > 1:
        return _DEPTHWISE if op.groups == len(zero_point) else _GROUPED
    if (zero_point != zero_point[0]).any():
        return _UNEVEN
    if len(zero_point) <= _FEW:
        return _PIXELS
    return _ONE if max(op.kernel) == 1 else _SHIFTED if zero_point.any() else _PLAIN


class Machine:
    """What the self-test finds, each kind when it is first asked for.

    seconds: how long it has taken so far
    """

    def __init__(self, run: Run) -> None:
        self._run, self._found, self._lock = run, dict[str, Sums](), threading.Lock()
        self.seconds = 0.0

    def sums(self, kinds: Iterable[str] = KINDS) -> Mapping[str, Sums]:
        """Kind → for which weights its INT8 kernel is right.

        ``EngineError`` if one is not exact and the float32 kernel that would stand in errs, too.
        """
        with self._lock:
            start, new = time.perf_counter(), sorted(set(kinds) - set(self._found))
            if new:
                self._found |= _examine(new, self._run)
                self.seconds += time.perf_counter() - start
                for kind in new:
                    _LOG.debug("INT8 %s: %s", kind, self._found[kind].value)
            return {kind: self._found[kind] for kind in kinds}

    @property
    def used(self) -> str:
        """What runs layers of 8 bits, for people: by all kinds."""
        found = set(self.sums().values())
        if found == {Sums.EXACT}:
            return "INT8"
        return "float32" if found == {Sums.WRONG} else "INT8 where it is exact, else float32"

    @cached_property
    def fused(self) -> bool:
        """Whether elementwise kernels multiply and add with one rounding, as those of machines with VNNI do."""
        part, q, expected = single_rounding.examples()
        return bool(np.array_equal(self._run([part], [q])[0], expected))

    @cached_property
    def rounds_bytes(self) -> bool:
        """Whether kernels of layers round bytes that another layer reads as those of AVX512-VNNI do."""
        part, q, expected = single_rounding.byte_examples()
        return bool(np.array_equal(self._run([part], [q])[0], expected))

    def fit(self, part: Part) -> tuple[Part, Part | None, bool]:
        """(the same function, of layers that this machine's kernels compute exactly; like; fused).

        The latter two are for ``openvino_graph.build``; what is laid out anew is to be built like the part itself.
        """
        halved = [op for op in part.operations if isinstance(op, Layer) and in_halves(op, part.input_grids(op)[0])]
        layers = [*int8_layers(part), *halved]
        if not layers:
            return part, None, True
        needed = {ROUNDING, *(kind_of(op, part, False) for op in layers)} | ({_HALVES} if halved else set())
        if set(self.sums(needed).values()) == {Sums.EXACT}:
            return part, None, True
        fitted = laid_out(part)
        layers = int8_layers(fitted)
        kinds = {op.name: kind_of(op, fitted, True) for op in layers}
        found = self.sums(kinds.values())
        usable = {Sums.EXACT: lambda op: True, Sums.PAIRS: lambda op: not saturates(op), Sums.WRONG: lambda op: False}
        wide = {op.name for op in layers if not usable[found[kinds[op.name]]](op)}
        return in_floats(fitted, wide), part, self.fused


def _examine(kinds: Sequence[str], run: Run) -> dict[str, Sums]:
    parts = [_part(kind, _large) for kind in kinds]
    exact = dict(zip(kinds, _agree(parts, run), strict=True))
    others = [kind for kind in kinds if not exact[kind]]
    if not others:
        return dict.fromkeys(kinds, Sums.EXACT)
    floats = [in_floats(_part(kind, _large), {kind}) for kind in others if kind != ROUNDING]
    agree = _agree([*(_part(kind, _fitting) for kind in others), *floats], run)
    if not all(agree[len(others) :]):
        raise EngineError(
            "OpenVINO's kernels compute wrong sums on this machine, in INT8 and in float32: use the engine exact"
        )
    paired = dict(zip(others, agree, strict=False))
    return {kind: Sums.EXACT if exact[kind] else Sums.PAIRS if paired[kind] else Sums.WRONG for kind in kinds}


def _agree(parts: Sequence[Part], run: Run) -> list[bool]:
    """Whether an engine gives the right result of each part, for the extremes of its input and for mixtures of them."""
    inputs = [_extremes(part) for part in parts]
    expected = [_expected(part, x) for part, x in zip(parts, inputs, strict=True)]
    return [np.array_equal(a, b) for a, b in zip(run(parts, inputs), expected, strict=True)]


def _extremes(part: Part) -> Ints:
    grid, rng = part.input_grid, np.random.default_rng(0)
    low, high = grid.range
    if KINDS[part.output].rescaled:
        return rng.integers(low, high + 1, (grid.channels, 2 * _SIZE, 2 * _SIZE))
    side = KINDS[part.output].side
    x = rng.choice([low, high], (grid.channels, side, side))
    if side > 1:
        x[:, : side // 2], x[:, 0] = high, low
    return x


def _expected(part: Part, x: Ints) -> Ints:
    """The exact sums; what is rescaled as ``rounding`` says, in float32 as all machines are to do it."""
    (op,) = part.operations
    if op.grid.bits == FIXED_POINT_BITS:
        return ExactEngine(part).run(x)
    assert isinstance(op, Convolution)
    plain = replace(op, grid=Grid.fixed_point(_CHANNELS, 0), rescaling=Rescaling.of_ratio(np.ones(_CHANNELS)))
    sums = ExactEngine(Part(part.name, part.input_grid, (plain,))).run(x)
    scale = kernel_rounding.scale_and_shift(op.grid, op.rescaling.ratio)[0]
    rest = kernel_rounding.added(op.grid, op.rescaling.ratio, stored=False)
    rounded = np.rint(sums.astype(np.float32) * scale[:, None, None] + rest[:, None, None])
    return rounded.astype(np.int64) + op.grid.zero_point[:, None, None]


def _part(name: str, weights: Callable[[int, int], Ints]) -> Part:
    """A part of one layer, whose sums stay below 2^24 and come out as they are, or rescaled."""
    kind = KINDS[name]
    inputs, size = kind.inputs, kind.kernel
    by_channel = (_small if kind.rescaled else weights)(_CHANNELS, inputs // kind.groups)
    weight = np.zeros((*by_channel.shape, size, size), dtype=np.int32)
    # One for each output: all are seen, and no sum is long; of a single position, the middle one.
    taps = np.arange(_CHANNELS) % size**2 if kind.side > 1 else np.full(_CHANNELS, size**2 // 2)
    weight[np.arange(_CHANNELS), :, taps // size, taps % size] = by_channel
    rng = np.random.default_rng(1)
    # Only where it counts: a layer with a bias has other kernels fused to it.
    biased = kind.rescaled or kind.bits > BYTE_BITS
    bias = rng.integers(-50000, 50000, _CHANNELS) if biased else np.zeros(_CHANNELS, dtype=np.int64)
    out, rescaling = Grid.fixed_point(_CHANNELS, 0), Rescaling.of_ratio(np.ones(_CHANNELS))
    if kind.rescaled:  # sums of all sizes and ratios that are no round numbers
        out = Grid(MAX_BITS, np.ones(_CHANNELS), np.full(_CHANNELS, 1 << (MAX_BITS - 1)))
        rescaling = Rescaling.of_ratio(rng.uniform(0.1, 0.3, _CHANNELS))
    op: Operation
    if kind.transposed:
        weight = weight.transpose(1, 0, 2, 3).copy()
        op = TransposedConvolution(
            name, (INPUT,), out, weight, BYTE_BITS, bias, stride=2, padding=2, output_padding=1, rescaling=rescaling
        )
    else:
        op = Convolution(
            name,
            (INPUT,),
            out,
            weight,
            BYTE_BITS,
            bias,
            stride=1,
            padding=size // 2,
            groups=kind.groups,
            rescaling=rescaling,
        )
    zero_point = np.broadcast_to(kind.zero_point, inputs).astype(np.int64)
    return Part("self-test", Grid(kind.bits, np.ones(inputs), zero_point), (op,))


def _large(outputs: int, inputs: int) -> Ints:
    """Weights of any size and sign, [outputs, inputs]; those of every second output have one sign."""
    weight = np.random.default_rng(1).choice([-_LARGE, 1 - _LARGE, 1, _LARGE], (outputs, inputs))
    weight[::2] = abs(weight[::2])
    weight[::8], weight[4::8] = _LARGE, -_LARGE
    return weight


def _fitting(outputs: int, inputs: int) -> Ints:
    """Weights of which those of the channels 2k and 2k + 1 fit 16 bits, and those of other pairs do not."""
    rng, pairs = np.random.default_rng(1), -(-inputs // 2)
    large = rng.choice([65, _LARGE, _LARGE], (outputs, pairs))
    both = np.stack([large, PAIR_LIMIT - large], axis=2)
    swapped = rng.integers(0, 2, (outputs, pairs)) > 0
    both[swapped] = both[swapped][:, ::-1]
    weight = both.reshape(outputs, -1)[:, :inputs]
    weight[1::2] *= -1
    return weight


def _small(outputs: int, inputs: int) -> Ints:
    return np.random.default_rng(1).integers(-20, 21, (outputs, inputs))
