"""Which kernels are used is decided by what they compute; wrong ones are found, and never used in silence."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import licquant
from licquant.codec.codec import load
from licquant.errors import EngineError
from licquant.program import openvino_engine, openvino_graph, single_rounding
from licquant.program.exact import ExactEngine
from licquant.program.grid import Grid
from licquant.program.kernel_rounding import scale_and_shift
from licquant.program.openvino_engine import OpenVinoEngine, compile_model
from licquant.program.ops import Add, Convolution, Rescaling
from licquant.program.part import Part
from licquant.program.saturation import in_floats, int8_layers, saturates
from licquant.program.self_test import KINDS, ROUNDING, Machine, Run, Sums, _expected
from tests.latent_programs import random_program

# Levels of instructions that oneDNN can be held to, in a fresh process.
LEVELS = ("SSE41", "AVX2", "AVX512_CORE", "AVX512_CORE_VNNI")
LARGEST_DIFFERENCE = 1  # to what this machine computes itself; float rounding that 8-bit grids make visible
SQNR_FLOOR = 45.0  # dB; kernels that saturate gave 15 to 41, right ones 52 and more


def exact(part: Part, q: np.ndarray) -> np.ndarray:
    return ExactEngine(part).run(q)


def wrong_for(chosen: Callable[[Part], bool]) -> Run:
    """An engine that is off by one for some parts."""
    return lambda parts, inputs: [_right(part, q) - chosen(part) for part, q in zip(parts, inputs, strict=True)]


def _right(part: Part, q: np.ndarray) -> np.ndarray:
    return _expected(part, q) if part.output in KINDS else exact(part, q)


def saturating(part: Part) -> bool:
    """What kernels do whose pairs of products saturate."""
    return bool(int8_layers(part)) and saturates(part.operations[0])


def test_exact_kernels_are_used():
    machine, part = Machine(wrong_for(lambda part: False)), random_program("scale-hyperprior")["g_s"]
    assert machine.fit(part) == (part, None, True)
    assert set(machine.sums().values()) == {Sums.EXACT}


def test_others_are_not():
    machine, part = Machine(wrong_for(lambda part: bool(int8_layers(part)))), random_program("scale-hyperprior")["g_s"]
    assert int8_layers(part)
    fitted, like, _ = machine.fit(part)
    assert like is part
    assert not int8_layers(fitted)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_seen_to_err(kind):
    wrong = wrong_for(lambda part: part.output == kind and part.operations[0].weight_bits <= 8)
    assert {name for name, sums in Machine(wrong).sums().items() if sums is not Sums.EXACT} == {kind}


@pytest.mark.parametrize("index", [0, 1])
def test_where_pairs_saturate_those_layers_run_in_int8_that_do_not(index):
    part, q = layers()[index]
    fitted, like, _ = Machine(wrong_for(saturating)).fit(part)
    assert like is part
    assert not any(saturates(op) for op in int8_layers(fitted))
    assert len(int8_layers(fitted)) > len(int8_layers(part)) // 2
    np.testing.assert_array_equal(exact(part, q), exact(fitted, q))


def test_only_the_kinds_that_a_part_has_are_tested():
    part, seen = random_program("scale-hyperprior", 16, 24)["g_s"], set()
    Machine(wrong_for(lambda part: seen.add(part.output) is not None)).fit(part)
    assert ROUNDING in seen
    assert "depthwise convolution" not in seen


def test_a_machine_that_is_wrong_in_both_ways_is_refused():
    with pytest.raises(EngineError, match="engine exact"):
        Machine(wrong_for(lambda part: True)).sums()


def test_floats_change_nothing_but_the_kernels():
    part = random_program("scale-hyperprior")["g_s"]
    q = np.random.default_rng(0).integers(-6, 7, (part.input_grid.channels, 5, 4))
    floats = in_floats(part, {op.name for op in int8_layers(part)})
    assert not int8_layers(floats)
    np.testing.assert_array_equal(exact(part, q), exact(floats, q))


def test_uneven_zero_points_are_a_kind_of_their_own():
    """OpenVINO's kernels for them are wrong even with VNNI: 19 dB where float32 has 45."""
    rng, channels = np.random.default_rng(0), 48
    weight, ones = rng.integers(-127, 128, (64, channels, 3, 3)), Rescaling.of_ratio(np.ones(64))
    grid = Grid(8, np.ones(channels), rng.integers(90, 140, channels))
    bias = np.zeros(64, dtype=np.int64)
    op = Convolution("c", ("input",), Grid.fixed_point(64, 0), weight, 8, bias, 1, 1, 1, ones)
    part, q = Part("p", grid, (op,)), rng.integers(0, 256, (channels, 9, 7))
    np.testing.assert_array_equal(OpenVinoEngine(part, 1).run(q), exact(part, q))


@pytest.mark.parametrize("bits", [8, 10, 16])
@pytest.mark.parametrize("middle", [True, False])
def test_rescaled_apart_is_rescaled_alike(bits, middle):
    """Kernels of layers and operations of their own: the same values, and so the same on every machine."""
    part = random_program("scale-hyperprior", 16, 24)["g_a"]
    first = part.operations[0]
    grid = Grid(bits, np.ones(first.grid.channels), np.full(first.grid.channels, (1 << (bits - 1)) if middle else 0))
    part = Part("p", part.input_grid, (replace(first, grid=grid, rescaling=first.rescaling),))
    q = np.random.default_rng(0).integers(0, 256, (3, 32, 32))
    fused, apart = (
        compile_model(openvino_graph.build(part, like), 1)
        .create_infer_request()
        .infer([q[None].astype(np.uint8).transpose(0, 2, 3, 1)])[0]
        for like in (None, part)
    )
    np.testing.assert_array_equal(fused, apart)


@pytest.mark.parametrize("fused", [True, False])
def test_sums_of_elementwise_kernels_are_rounded_once(fused):
    """By a fused product and sum, and by operations of their own that any processor has."""
    part, q, expected = single_rounding.examples()
    model = compile_model(openvino_graph.build(part, fused=fused), 1)
    found = np.rint(model.create_infer_request().infer([q[None].astype(np.float32)])[0][0])
    if not fused or openvino_engine.machine().fused:
        np.testing.assert_array_equal(found, expected)
    else:
        assert (found != expected).any()


SINGLE = """
import numpy as np
from licquant.program import openvino_graph, single_rounding
from licquant.program.openvino_engine import compile_model, machine
part, q, expected = single_rounding.examples()
model = compile_model(openvino_graph.build(part, fused=machine().fused), 1)
found = np.rint(model.create_infer_request().infer([q[None].astype(np.float32)])[0][0])
print(machine().fused, (found != expected).sum())
"""


def test_kernels_without_a_fused_product_and_sum_are_helped():
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "SSE41"}
    done = subprocess.run([sys.executable, "-c", SINGLE], env=environment, capture_output=True, text=True)
    if "not supported" in done.stderr:
        pytest.skip("this machine cannot imitate SSE41")
    assert done.stdout.split() == ["False", "0"], done.stderr


def test_there_are_values_that_tell_one_rounding_from_two():
    part, q, expected = single_rounding.examples()
    op = part.operations[0]
    ratio = np.ldexp(op.multiplier.astype(float), 16 - op.shift)
    scale, shift = (v[:, None, None].astype(np.float32) for v in scale_and_shift(op.grid, ratio))
    x = (q - part.input_grid.zero_point[:, None, None]).astype(np.float32)
    twice = np.clip(np.rint((x * scale).astype(np.float32) + shift), 0, 255)
    assert 3 <= (twice != expected).sum() <= 100


@pytest.mark.parametrize("twice", [False, True])
def test_a_machine_that_rounds_twice_is_seen(twice):
    def run(parts, inputs):
        expected = single_rounding.examples()[2]
        return [expected + (twice and index == 0) for index, _ in enumerate(parts)]

    assert Machine(run).fused is not twice


def test_what_is_added_to_a_layer_was_rounded_before():
    """Fused to a convolution, OpenVINO's sum read what was not rounded: 17 % of a residual block's values."""
    rng, channels = np.random.default_rng(0), 16
    grid, zeros = Grid(8, np.ones(channels), np.full(channels, 128)), np.zeros(channels, dtype=np.int64)

    def convolution(name: str, size: int) -> Convolution:
        weight = rng.integers(-63, 64, (channels, channels, size, size))  # pairs fit 16 bits: right without VNNI, too
        ratio = Rescaling.of_ratio(rng.uniform(0.5, 1, channels) / (64 * 8 * size))
        return Convolution(name, ("input",), grid, weight, 8, zeros, 1, size // 2, 1, ratio)

    one, other = (rng.integers(20000, 65536, channels) for _ in range(2))
    total = Add("sum", ("a", "b"), grid, (one, other), Rescaling.of_ratio(np.full(channels, 2.0**-17)))
    part = Part("p", grid, (convolution("a", 3), convolution("b", 1), total))
    q = rng.integers(0, 256, (channels, 16, 16))
    for like in (None, part):
        model = compile_model(openvino_graph.build(part, like), 1)
        found = model.create_infer_request().infer([q[None].astype(np.float32)])[0][0]
        assert (np.rint(found) != exact(part, q)).mean() < 1e-3


def test_the_engine_obeys_the_self_test(monkeypatch):
    part = random_program("scale-hyperprior", 16, 24)["g_s"]
    for right in (True, False):
        machine = Machine(wrong_for(lambda part, right=right: bool(int8_layers(part)) and not right))
        monkeypatch.setattr(openvino_engine, "machine", lambda _="CPU", machine=machine: machine)
        kernels = OpenVinoEngine(part, 1).execution_types().values()
        assert any(kernel.lower().endswith("i8") for kernel in kernels) == right


PROBE = """
import sys
import numpy as np
from licquant.program.openvino_engine import OpenVinoEngine
from tests.unit.program.test_self_test import layers
np.savez(sys.argv[1], *(OpenVinoEngine(part, 1).run(q) for part, q in layers()))
"""


def layers() -> list[tuple[Part, np.ndarray]]:
    """The embedded model's analysis and synthesis, with noise and what is saturated."""
    artifact = load(sorted((Path(licquant.__file__).parent / "assets").glob("*.licq"))[0]).artifact
    rng, g_s = np.random.default_rng(0), artifact.program["g_s"]
    y = rng.integers(-8, 9, (g_s.input_grid.channels, 3, 2))
    return [(artifact.program["g_a"], 255 * rng.integers(0, 2, (3, 64, 48))), (g_s, y)]


@pytest.mark.parametrize("level", LEVELS)
def test_every_instruction_set_gives_the_same_results(level, tmp_path):
    target = tmp_path / "found.npz"
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": level}
    done = subprocess.run([sys.executable, "-c", PROBE, str(target)], env=environment, capture_output=True, text=True)
    if "not supported" in done.stderr:
        pytest.skip(f"this machine cannot imitate {level}")
    assert done.returncode == 0, done.stderr
    with np.load(target) as found:
        for index, (part, q) in enumerate(layers()):
            right, mine = exact(part, q), found[f"arr_{index}"]
            error = right - mine
            assert 10 * np.log10(np.mean(right**2.0) / np.mean(error**2.0)) >= SQNR_FLOOR
            assert abs(OpenVinoEngine(part, 1).run(q) - mine.astype(int)).max() <= LARGEST_DIFFERENCE
