"""What the INT8 kernels of this machine compute, found by running some: no CPU's name or flag is asked.

One small layer of each kind is run by the very engine, with weights and inputs that make each way in which kernels are
known to err visible: 16-bit sums of two products that saturate, for pairs of channels that are neighbours or not, and
weights that lose a bit. The first that holds is used:

    EXACT   any weights: the INT8 kernels run everything of 8 bits
    PAIRED  convolutions whose pairs of channels fit 16 bits (``saturation.py``); what does not fit runs in float32
    FLOAT   float32, whose sums of such integers are exact

and if none does, ``EngineError``. What is assumed: a kernel that is right on these inputs is right on others, and
layers of other sizes get kernels of the same kind.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache

import numpy as np

from licquant.errors import EngineError
from licquant.program.arithmetic import Ints
from licquant.program.exact import ExactEngine
from licquant.program.grid import Grid
from licquant.program.ops import Convolution, Operation, Rescaling, TransposedConvolution
from licquant.program.part import INPUT, Part
from licquant.program.saturation import in_floats, int8_layers, without_saturation

Run = Callable[[Part, Ints], Ints]
_CHANNELS, _SIZE, _LARGE = 64, 10, 127
_KINDS = ("convolution", "1×1 convolution", "convolution of pixels", "transposed convolution")


class Verdict(Enum):
    """What of this machine's engine may be used."""

    EXACT = "exact"
    PAIRED = "paired"
    FLOAT = "float32"


@dataclass(frozen=True)
class Machine:
    """What the self-test found.

    verdict: what is used
    kinds:   kind of layer → "exact", or "saturates" (right only while pairs fit 16 bits), or "wrong"
    seconds: how long the self-test took
    """

    verdict: Verdict
    kinds: Mapping[str, str]
    seconds: float

    def fit(self, part: Part) -> Part:
        """The same function, of layers that this machine's kernels compute exactly."""
        if self.verdict is Verdict.EXACT:
            return part
        if self.verdict is Verdict.PAIRED:
            return without_saturation(part)
        return in_floats(part, frozenset(op.name for op in int8_layers(part)))


def examine(run: Run) -> Machine:
    """Test an engine; raises ``EngineError`` if neither its INT8 nor its float32 kernels are exact.

    run: a part and stored integers of its input [C, H, W] to those of its output
    """
    start = time.perf_counter()
    kinds = {kind: _examine_kind(kind, run) for kind in _KINDS}
    convolutions = [kinds[kind] for kind in _KINDS[:2]]
    if set(kinds.values()) == {"exact"}:
        verdict = Verdict.EXACT
    elif not all(_agrees(_in_floats(kind), run) for kind in _KINDS):
        raise EngineError(
            "this machine's OpenVINO computes wrongly, in INT8 and in float32: use --engine exact, or another version"
        )
    else:
        verdict = Verdict.FLOAT if "wrong" in convolutions else Verdict.PAIRED
    return Machine(verdict, kinds, time.perf_counter() - start)


def _examine_kind(kind: str, run: Run) -> str:
    if _agrees(_layer(kind, _large), run):
        return "exact"
    return "saturates" if _agrees(_layer(kind, _fitting), run) else "wrong"


def _in_floats(kind: str) -> Part:
    return in_floats(_layer(kind, _large), frozenset({kind}))


def _agrees(part: Part, run: Run) -> bool:
    """Whether an engine gives the exact sums for the extremes of the input, and for mixtures of them."""
    low, high = part.input_grid.range
    x = np.random.default_rng(0).choice([low, high], (part.input_grid.channels, _SIZE, _SIZE))
    x[:, : _SIZE // 2], x[:, 0] = high, low
    return np.array_equal(run(part, x), ExactEngine(part).run(x))


@cache
def _layer(kind: str, weights: Callable[[int, int], Ints]) -> Part:
    """A part of one layer, whose sums stay below 2^24 and come out as they are."""
    inputs, size = (3 if "pixels" in kind else _CHANNELS), (1 if "1×1" in kind else 5)
    by_channel = weights(_CHANNELS, inputs)
    weight = np.zeros((_CHANNELS, inputs, size, size), dtype=np.int32)
    taps = np.arange(_CHANNELS) % size**2  # one for each output, so that all taps are seen and no sum is long
    weight[np.arange(_CHANNELS), :, taps // size, taps % size] = by_channel
    bias, rescaling = np.zeros(_CHANNELS, dtype=np.int64), Rescaling.of_ratio(np.ones(_CHANNELS))
    out = Grid.fixed_point(_CHANNELS, 0)
    zero_point = 128 if "transposed" in kind else 0
    grid = Grid(8, np.ones(inputs), np.full(inputs, zero_point))
    op: Operation
    if "transposed" in kind:
        op = TransposedConvolution(
            kind, (INPUT,), out, weight.transpose(1, 0, 2, 3).copy(), 8, bias, 2, 2, 1, rescaling
        )
    else:
        op = Convolution(kind, (INPUT,), out, weight, 8, bias, 1, size // 2, 1, rescaling)
    return Part("self-test", grid, (op,))


def _large(outputs: int, inputs: int) -> Ints:
    """Weights of any size and sign, [outputs, inputs]; those of every second output have one sign."""
    weight = np.random.default_rng(1).choice([-_LARGE, -_LARGE + 1, 1, _LARGE], (outputs, inputs))
    weight[::2] = abs(weight[::2])
    weight[::8], weight[4::8] = _LARGE, -_LARGE
    return weight


def _fitting(outputs: int, inputs: int) -> Ints:
    """Weights whose channels 2k and 2k + 1 fit 16 bits, while those of other pairs do not."""
    rng = np.random.default_rng(1)
    weight = np.empty((outputs, inputs + 1), dtype=np.int64)
    large_first = rng.integers(0, 2, (outputs, inputs // 2 + 1)) > 0
    large = np.where(rng.integers(0, 4, large_first.shape) > 0, _LARGE, 65)
    pairs = np.where(large_first, large, 128 - large), np.where(large_first, 128 - large, large)
    weight[:, ::2], weight[:, 1::2] = (half[:, : weight[:, i::2].shape[1]] for i, half in enumerate(pairs))
    weight[1::2] *= -1
    return weight[:, :inputs]
