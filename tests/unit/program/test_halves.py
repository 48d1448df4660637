"""A factor wider than 8 bits is taken apart into halves that INT8 kernels read; the sums stay what they are."""

from collections.abc import Sequence

import numpy as np
import pytest

from licquant.program import openvino_engine
from licquant.program.exact import ExactEngine
from licquant.program.grid import Grid
from licquant.program.openvino_engine import OpenVinoEngine, compile_model
from licquant.program.ops import Convolution, Gdn, Operation, Rescaling, TransposedConvolution
from licquant.program.part import INPUT, Part
from licquant.program.self_test import KINDS, Machine, Run, _expected

CHANNELS = 4  # so few that no sum leaves the 24 bits of a float32: all must agree to the last digit
WIDE_VALUES = [(9, 8), (10, 8), (14, 8), (12, 4)]
WIDE_WEIGHTS = [(8, 9), (8, 10), (8, 14), (4, 12)]


def part_of(kind: str, bits: int, weight_bits: int, zero_point: int) -> Part:
    """One layer with weights of both ends and between, 1×1 or with one tap a channel."""
    rng, top = np.random.default_rng(bits * weight_bits), (1 << (weight_bits - 1)) - 1
    weight = rng.choice([-top, -top // 2, -1, 1, top], (CHANNELS, CHANNELS, 1, 1)).astype(np.int32)
    weight[0], weight[1] = top, -top
    out, ones = Grid.fixed_point(CHANNELS, 0), Rescaling.of_ratio(np.ones(CHANNELS))
    bias = rng.integers(-1000, 1000, CHANNELS)
    op: Operation = Convolution("a", (INPUT,), out, weight, weight_bits, bias, 1, 0, 1, ones)
    if kind == "transposed":
        spread = np.zeros((CHANNELS, CHANNELS, 3, 3), dtype=np.int32)
        spread[:, :, 1, 1] = weight[:, :, 0, 0]
        op = TransposedConvolution("a", (INPUT,), out, spread, weight_bits, bias, 2, 1, 1, ones)
    grid = Grid(bits, np.ones(CHANNELS), np.full(CHANNELS, zero_point, dtype=np.int64))
    return Part("p", grid, (op,))


def extremes(part: Part, size: tuple[int, int] = (6, 5)) -> np.ndarray:
    low, high = part.input_grid.range
    q = np.random.default_rng(0).choice([low, (low + high) // 3, high - 1, high], (part.input_grid.channels, *size))
    q[:, :1], q[:, 1:2] = low, high
    return q


@pytest.mark.parametrize("kind", ["plain", "transposed"])
@pytest.mark.parametrize(("bits", "weight_bits"), WIDE_VALUES + WIDE_WEIGHTS)
@pytest.mark.parametrize("where", [0, 0.5, 1])
def test_the_sums_are_exact_and_the_kernels_are_of_int8(kind, bits, weight_bits, where):
    part = part_of(kind, bits, weight_bits, round(where * ((1 << bits) - 1)))
    engine, q = OpenVinoEngine(part, 1), extremes(part)
    np.testing.assert_array_equal(engine.run(q), ExactEngine(part).run(q))
    if openvino_engine.machine().fit(part)[1] is None:
        assert engine.execution_types()["a"].lower().endswith("i8")


@pytest.mark.parametrize(("bits", "weight_bits"), [(10, 10), (15, 8), (8, 15)])
def test_two_wide_factors_and_too_wide_ones_are_floats(bits, weight_bits):
    part = part_of("plain", bits, weight_bits, 0)
    compiled = compile_model(OpenVinoEngine(part).model(), 1)
    told = [node.get_rt_info() for node in compiled.get_runtime_model().get_ordered_ops()]
    layers = [info for info in told if info["layerType"].astype(str) in ("Convolution", "FullyConnected")]
    kernels = [str(info["primitiveType"].astype(str)) for info in layers]
    assert len(kernels) == 1
    assert kernels[0].endswith("f32")


def test_the_squares_of_a_gdn_may_be_wide():
    rng = np.random.default_rng(3)
    vectors = {
        "beta": rng.integers(1000, 90000, CHANNELS),
        "square_multiplier": np.full(CHANNELS, 1 << 15, dtype=np.int64),
        "square_shift": np.full(CHANNELS, 21, dtype=np.int64),
        "multiplier": np.full(CHANNELS, 40000, dtype=np.int64),
        "shift": np.full(CHANNELS, 28, dtype=np.int64),
    }
    grid = Grid(8, np.ones(CHANNELS), np.full(CHANNELS, 128, dtype=np.int64))
    gamma = rng.integers(0, 128, (CHANNELS, CHANNELS)).astype(np.int32)
    wide = Grid(12, np.ones(CHANNELS), np.full(CHANNELS, 2048, dtype=np.int64))
    op = Gdn("a", (INPUT,), grid, gamma=gamma, weight_bits=8, square_bits=12, inverse=False, **vectors)
    part = Part("p", wide, (op,))
    engine, q = OpenVinoEngine(part, 1), rng.integers(0, 4096, (CHANNELS, 40, 50))
    expected = ExactEngine(part).run(q)
    assert expected.std() > 5
    assert abs(engine.run(q) - expected).max() <= 1
    if openvino_engine.machine().fit(part)[1] is None:
        assert engine.execution_types()["a"].lower().endswith("i8")


def test_where_int8_kernels_are_wrong_nothing_is_halved():
    """A part without a layer of 8 bits: what its halves need is tested all the same."""

    def run(wrong: bool) -> Run:
        return lambda parts, inputs: [
            _sums(part, q) - (wrong and _narrow(part)) for part, q in zip(parts, inputs, strict=True)
        ]

    part = part_of("plain", 10, 8, 512)
    assert Machine(run(True)).fit(part)[1] is part
    assert Machine(run(False)).fit(part) == (part, None, True)


def test_where_one_half_overwrites_the_other_nothing_is_halved():
    """As OpenVINO's kernels do at one position if they may: each half is right, the sum is not."""

    def run(parts: Sequence[Part], inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        found = [_sums(part, q) for part, q in zip(parts, inputs, strict=True)]
        halved = [part.input_grid.bits > 8 and _narrow(part) for part in parts]
        return [sums // 256 if wrong else sums for sums, wrong in zip(found, halved, strict=True)]

    assert Machine(run).fit(part_of("plain", 10, 8, 512))[1] is not None
    assert Machine(run).fit(part_of("plain", 8, 8, 128))[1] is None


def _sums(part: Part, q: np.ndarray) -> np.ndarray:
    return _expected(part, q) if part.output in KINDS else ExactEngine(part).run(q)


def _narrow(part: Part) -> bool:
    (op,) = part.operations
    return op.weight_bits <= 8  # type: ignore[attr-defined]


SIZES = [(1, 1), (1, 2), (2, 1), (2, 2), (3, 5), (16, 16), (17, 33)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("bits", "weight_bits"), [(10, 8), (8, 10)])
def test_a_layer_of_any_size_sums_both_halves(size, stride, bits, weight_bits):
    """OpenVINO lets one convolution add to what another has written, wrongly where that is a single position."""
    rng, channels = np.random.default_rng(7), 32
    weight = rng.integers(-3, 4, (channels, channels, 3, 3)).astype(np.int32)
    weight[:, 0, 1, 1] = (1 << (weight_bits - 1)) - 1
    grid = Grid(bits, np.ones(channels), np.full(channels, 1 << (bits - 1), dtype=np.int64))
    out, ones = Grid.fixed_point(channels, 0), Rescaling.of_ratio(np.ones(channels))
    bias = rng.integers(-1000, 1000, channels)
    part = Part("p", grid, (Convolution("a", (INPUT,), out, weight, weight_bits, bias, stride, 1, 1, ones),))
    engine, q = OpenVinoEngine(part, 1), extremes(part, size)
    np.testing.assert_array_equal(engine.run(q), ExactEngine(part).run(q))
    if openvino_engine.machine().fit(part)[1] is None:
        assert engine.execution_types()["a"].lower().endswith("i8")
