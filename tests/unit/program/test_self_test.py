"""Which kernels are used is decided by what they compute; wrong ones are found, and never used in silence."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import licquant
from licquant.codec.codec import load
from licquant.errors import EngineError
from licquant.program import openvino_engine
from licquant.program.exact import ExactEngine
from licquant.program.openvino_engine import OpenVinoEngine
from licquant.program.part import Part
from licquant.program.self_test import KINDS, Machine, Run, examine, has_int8, in_floats
from tests.latent_programs import random_program

# Levels of instructions that oneDNN can be held to, in a fresh process.
LEVELS = ("SSE41", "AVX2", "AVX512_CORE", "AVX512_CORE_VNNI")
SQNR_FLOOR = 45.0  # dB; kernels that saturate gave 15 to 41, right ones 52 and more


def exact(part: Part, q: np.ndarray) -> np.ndarray:
    return ExactEngine(part).run(q)


def wrong_for(chosen: Callable[[Part], bool]) -> Run:
    """An engine that is off by one for some parts."""
    return lambda parts, inputs: [exact(part, q) - chosen(part) for part, q in zip(parts, inputs, strict=True)]


def test_exact_kernels_are_used():
    assert examine(wrong_for(lambda part: False)).int8


def test_others_are_not():
    found = examine(wrong_for(has_int8))
    assert not found.int8
    assert not any(found.exact.values())
    part = random_program("scale-hyperprior")["g_s"]
    assert has_int8(part)
    assert not has_int8(found.fit(part))


@pytest.mark.parametrize("kind", KINDS)
def test_one_kind_that_errs_is_enough(kind):
    assert not examine(wrong_for(lambda part: has_int8(part) and part.output == kind)).int8


def test_a_machine_that_is_wrong_in_both_ways_is_refused():
    with pytest.raises(EngineError, match="engine exact"):
        examine(wrong_for(lambda part: True))


def test_floats_change_nothing_but_the_kernels():
    part = random_program("scale-hyperprior")["g_s"]
    q = np.random.default_rng(0).integers(-6, 7, (part.input_grid.channels, 5, 4))
    np.testing.assert_array_equal(exact(part, q), exact(in_floats(part), q))


def test_the_engine_obeys_the_self_test(monkeypatch):
    part = random_program("scale-hyperprior", 16, 24)["g_s"]
    for right in (True, False):
        monkeypatch.setattr(openvino_engine, "machine", lambda right=right: Machine(dict.fromkeys(KINDS, right), 0.0))
        kernels = OpenVinoEngine(part, 1).execution_types().values()
        assert any(kernel.lower().endswith("i8") for kernel in kernels) == right


PROBE = """
import sys
import numpy as np
from licquant.program.openvino_engine import OpenVinoEngine, machine
from tests.unit.program.test_self_test import layers
found = [machine().int8, *(OpenVinoEngine(part, 1).run(q) for part, q in layers())]
np.savez(sys.argv[1], *found)
"""


def layers() -> list[tuple[Part, np.ndarray]]:
    """The embedded model's analysis and synthesis, with noise and what is saturated."""
    artifact = load(sorted((Path(licquant.__file__).parent / "assets").glob("*.licq"))[0]).artifact
    rng, g_s = np.random.default_rng(0), artifact.program["g_s"]
    y = rng.integers(-8, 9, (g_s.input_grid.channels, 3, 2))
    return [(artifact.program["g_a"], 255 * rng.integers(0, 2, (3, 64, 48))), (g_s, y)]


@pytest.mark.parametrize("level", LEVELS)
def test_every_instruction_set_gives_the_exact_results_up_to_rounding(level, tmp_path):
    target = tmp_path / "found.npz"
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": level}
    done = subprocess.run([sys.executable, "-c", PROBE, str(target)], env=environment, capture_output=True, text=True)
    if "not supported" in done.stderr:
        pytest.skip(f"this machine cannot imitate {level}")
    assert done.returncode == 0, done.stderr
    with np.load(target) as found:
        for index, (part, q) in enumerate(layers(), 1):
            right = exact(part, q)
            error = right - found[f"arr_{index}"]
            assert 10 * np.log10(np.mean(right**2.0) / np.mean(error**2.0)) >= SQNR_FLOOR, level
