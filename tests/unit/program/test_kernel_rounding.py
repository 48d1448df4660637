"""Layers that are rescaled apart round as kernels of layers do: whatever reads them, and on every instruction set.

Two ways of rounding differ in about one of 100,000 values of 8 bits, so all sums are looked at that there can be. In a
deep network of residual blocks even one such value grows: to a quarter of the values at its end.
"""

import os
import subprocess
import sys

import numpy as np
import pytest

from licquant.program import openvino_graph, single_rounding
from licquant.program.grid import Grid
from licquant.program.kernel_rounding import scale_and_shift
from licquant.program.openvino_engine import OpenVinoEngine, compile_model, machine
from licquant.program.ops import (
    Add,
    Convolution,
    Gdn,
    Operation,
    PixelShuffle,
    Requantize,
    Rescaling,
    TransposedConvolution,
)
from licquant.program.part import INPUT, Part
from licquant.program.self_test import KINDS, Sums

LEVELS = ("AVX512_CORE", "AVX2", "SSE41")
CHANNELS, SIZE = 16, (160, 200)
IN = Grid(8, np.ones(CHANNELS), np.full(CHANNELS, 128))
OUT, DOUBLE = Grid.fixed_point(CHANNELS, 0), Grid.fixed_point(CHANNELS, 1)
READERS = ("nothing", "convolution", "wide", "transposed", "shuffle", "add", "both", "requantize", "gdn")
PLAIN = Rescaling.of_ratio(np.ones(CHANNELS))


def every_sum() -> np.ndarray:
    """Stored integers [C, H, W] with 127 · (q[0] - 128) + q[1] - 128 = -16000, -15999, …"""
    wanted = np.arange(SIZE[0] * SIZE[1]) - SIZE[0] * SIZE[1] // 2
    upper = np.clip(np.rint(wanted / 127), -127, 127).astype(int)
    q = np.full((CHANNELS, wanted.size), 128)
    q[0], q[1] = upper + 128, wanted - 127 * upper + 128
    return q.reshape(CHANNELS, *SIZE)


def layer(name: str, grid: Grid, slope: float, alike: bool, bias: bool) -> Convolution:
    """A layer whose output is all that its grid has, by a ratio of its own for every channel unless they are alike."""
    rng = np.random.default_rng(5)
    weight = np.zeros((CHANNELS, CHANNELS, 1, 1), dtype=np.int32)
    weight[:, 0], weight[:, 1] = 127, 1
    ratio = rng.uniform(0.5, 1, CHANNELS) * grid.range[1] / every_sum()[0].size
    ratio = np.full(CHANNELS, ratio[0]) if alike else ratio
    shift = rng.integers(-300, 300, CHANNELS) if bias else np.zeros(CHANNELS, dtype=np.int64)
    return Convolution(name, (INPUT,), grid, weight, 8, shift, 1, 0, 1, Rescaling.of_ratio(ratio, slope))


def identity(source: str, channels: int = CHANNELS, bits: int = 8) -> Convolution:
    weight, grid = np.eye(channels, dtype=np.int32)[:, :, None, None], Grid.fixed_point(channels, 0)
    none, same = np.zeros(channels, dtype=np.int64), Rescaling.of_ratio(np.ones(channels))
    return Convolution("identity", (source,), grid, weight, bits, none, 1, 0, 1, same)


def read_by(reader: str, one: Convolution, other: Convolution) -> tuple[Operation, ...]:
    """What brings the first layer's values out, beside the second's."""
    grid, ones = one.grid, np.ones(CHANNELS, dtype=np.int64)
    half = np.full(CHANNELS, 1 << 9)
    total = Add("sum", ("one", "other"), grid, (half - 77, half), Rescaling.of_ratio(np.full(CHANNELS, 2.0**-10)))
    none = np.zeros(CHANNELS, dtype=np.int64)
    shuffled = Grid(grid.bits, np.ones(CHANNELS // 4), grid.zero_point[::4])
    weight = np.eye(CHANNELS, dtype=np.int32)[:, :, None, None]
    shift = 10 * ones if grid.bits == 8 else (2 * grid.bits - 6) * ones
    norm = Gdn("gdn", ("one",), IN, 0 * weight[..., 0, 0], 8, ones, 8, ones, shift, ones << 15, 31 * ones, False)
    return {
        "nothing": (one,),
        "convolution": (one, identity("one")),
        "wide": (one, identity("one", bits=16)),
        "transposed": (one, TransposedConvolution("t", ("one",), OUT, weight, 8, none, 1, 0, 0, PLAIN)),
        "shuffle": (one, PixelShuffle("shuffled", ("one",), shuffled, 2), identity("shuffled", CHANNELS // 4)),
        "add": (one, other, total),
        "both": (one, other, total, identity("one"), Requantize("last", ("sum",), OUT, PLAIN),
                 Add("all", ("identity", "last"), DOUBLE, (ones, 999 * ones), Rescaling.of_ratio(ones * 2.0))),
        "requantize": (one, Requantize("last", ("one",), OUT, PLAIN)),
        "gdn": (one, norm),
    }[reader]  # fmt: skip


def run(part: Part, like: Part | None, fused: bool, q: np.ndarray, apart: bool = False) -> np.ndarray:
    request = compile_model(openvino_graph.build(part, like, fused, apart), 1).create_infer_request()
    return np.floor(request.infer([q[None].astype(np.float32)])[0][0] + 0.5).astype(np.int64)


@pytest.mark.parametrize(
    ("bits", "zero_point", "slope", "alike", "bias"),
    [
        (8, 128, 1.0, False, True),
        (8, 128, 0.01, False, True),
        (8, 128, 0.01, True, False),
        (8, 100, 0.01, False, True),
        (8, 255, 1.0, False, False),
        (8, 0, 0, False, True),
        (4, 3, 0.01, False, True),
        (16, 30000, 1.0, False, True),
    ],
)
@pytest.mark.parametrize("reader", READERS)
def test_what_is_rescaled_apart_is_what_kernels_make_of_it(reader, bits, zero_point, slope, alike, bias):
    if set(machine().sums(KINDS.keys() - {"convolution with uneven zero points"}).values()) != {Sums.EXACT}:
        pytest.skip("this machine's kernels round in another way")
    grid = Grid(bits, np.ones(CHANNELS), np.full(CHANNELS, zero_point))
    one, other = (layer(name, grid, s, alike, bias) for name, s in (("one", slope), ("other", 1.0)))
    part, q = Part("p", IN, read_by(reader, one, other)), every_sum()
    native = run(part, None, True, q, not machine().rounds_bytes)
    assert len(np.unique(native)) > 1
    for fused in (True, False):
        np.testing.assert_array_equal(run(part, part, fused, q), native)


def test_bytes_of_both_signs_are_rounded_as_everywhere():
    """Written out they are so on every machine; the values tell it from a rounding before the zero point is added."""
    part, q, expected = single_rounding.byte_examples()
    np.testing.assert_array_equal(run(part, None, True, q, apart=True), expected)
    op = part.operations[0]
    x = 127.0 * (q[0] - 128) + q[1] - 128 + op.bias[:, None, None]
    product = x.astype(np.float32) * scale_and_shift(op.grid, op.rescaling.ratio)[0][:, None, None]
    assert (np.clip(np.rint(product), -128, 127) != expected).sum() > 4


@pytest.mark.parametrize("rounds", [True, False])
def test_an_engine_writes_them_out_where_kernels_round_otherwise(rounds, monkeypatch):
    part, q, expected = single_rounding.byte_examples()
    if machine().fit(part)[1] is not None:
        pytest.skip("this machine's kernels are not exact: parts are laid out anew")
    monkeypatch.setattr(machine(), "rounds_bytes", rounds)
    engine = OpenVinoEngine(part, 1)
    assert engine._rescaled_apart == (not rounds)
    if not rounds:
        np.testing.assert_array_equal(engine.run(q), expected)


@pytest.mark.parametrize("reader", ["nothing", "convolution"])
@pytest.mark.parametrize("residual", [True, False])
def test_sums_are_integers_before_they_are_rounded(residual, reader):
    """All pairs of bytes: OpenVINO multiplied one term by a quotient of both, then the sum by the other."""
    rng, pairs = np.random.default_rng(0), np.indices((256, 256))
    q = np.repeat(pairs, CHANNELS // 2, axis=0)
    weight = np.zeros((CHANNELS, CHANNELS, 1, 1), dtype=np.int32)
    weight[np.arange(CHANNELS), np.roll(np.arange(CHANNELS), CHANNELS // 2)] = 1  # the other one of the pair
    other = Convolution("other", (INPUT,), IN, weight, 8, np.zeros(CHANNELS, dtype=np.int64), 1, 0, 1, PLAIN)
    same = Requantize("same", (INPUT,), IN, PLAIN)
    one, two = (rng.integers(20000, 46000, CHANNELS) for _ in range(2))
    total = Add(
        "sum",
        ("other", INPUT if residual else "same"),
        IN,
        (one, two),
        Rescaling.of_ratio(np.full(CHANNELS, 3.1 * 2.0**-17)),
    )
    operations = (other, total) if residual else (other, same, total)
    part = Part("p", IN, (*operations, identity("sum")) if reader == "convolution" else operations)
    sums = (one[:, None, None] * (np.roll(q, CHANNELS // 2, axis=0) - 128) + two[:, None, None] * (q - 128)).astype(
        float
    )
    scale, shift = (v[:, None, None].astype(float) for v in scale_and_shift(IN, total.rescaling.ratio))
    expected = np.clip(np.rint((sums * scale + shift).astype(np.float32)), 0, 255) - 128 * (reader == "convolution")
    for like, fused in ((None, machine().fused), (part, machine().fused), (part, False)):
        np.testing.assert_array_equal(run(part, like, fused, q), expected)


def residual_network(blocks: int = 4, channels: int = 64) -> tuple[Part, np.ndarray]:
    """Residual blocks with leaky ReLU, as at the full width of Cheng 2020, and an input for them."""
    rng = np.random.default_rng(0)
    grid = Grid(8, np.ones(channels), np.full(channels, 128))
    none, operations, last = np.zeros(channels, dtype=np.int64), [], INPUT
    for block in range(blocks):
        source = last
        for index in range(2):
            weight = np.clip(np.rint(rng.normal(0, 30, (channels, channels, 3, 3))), -127, 127).astype(np.int32)
            ratio = rng.uniform(0.7, 1.4, channels) / (30 * np.sqrt(9 * channels))
            name, bias = f"{block}.{index}", rng.integers(-9999, 9999, channels)
            operations.append(
                Convolution(name, (last,), grid, weight, 8, bias, 1, 1, 1, Rescaling.of_ratio(ratio, 0.01))
            )
            last = name
        multipliers = tuple(rng.integers(20000, 46000, channels) for _ in range(2))
        halved = Rescaling.of_ratio(np.full(channels, 2.0**-16))
        operations.append(Add(f"{block}.sum", (last, source), grid, multipliers, halved))
        last = operations[-1].name
    last_of_all = Convolution("y", (last,), Grid.fixed_point(channels, 0), weight, 8, none, 1, 1, 1, PLAIN_64)
    return Part("p", grid, (*operations, last_of_all)), rng.integers(0, 256, (channels, 48, 48))


PLAIN_64 = Rescaling.of_ratio(np.ones(64))
PROBE = """
import sys
import numpy as np
from licquant.program.openvino_engine import OpenVinoEngine
from tests.unit.program.test_kernel_rounding import residual_network
part, q = residual_network()
np.save(sys.argv[1], OpenVinoEngine(part, 1).run(q))
"""


@pytest.mark.parametrize("level", LEVELS)
def test_residual_blocks_give_the_same_on_every_instruction_set(level, tmp_path):
    target = tmp_path / "found.npy"
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": level}
    done = subprocess.run([sys.executable, "-c", PROBE, str(target)], env=environment, capture_output=True, text=True)
    if "not supported" in done.stderr:
        pytest.skip(f"this machine cannot imitate {level}")
    assert done.returncode == 0, done.stderr
    part, q = residual_network()
    np.testing.assert_array_equal(np.load(target), OpenVinoEngine(part, 1).run(q))
