"""Which kernels are used is decided by what they compute; wrong ones are found, and never used in silence."""

import os
import subprocess
import sys

import numpy as np
import pytest

from licquant.errors import EngineError
from licquant.program import openvino_engine
from licquant.program.exact import ExactEngine
from licquant.program.openvino_engine import OpenVinoEngine
from licquant.program.part import Part
from licquant.program.self_test import KINDS, Machine, examine, has_int8, in_floats
from tests.equivalence.test_openvino_engine import SQNR_FLOOR, sqnr
from tests.latent_programs import random_program

# Levels of instructions that oneDNN can be held to, in a fresh process.
LEVELS = ("SSE41", "AVX2", "AVX512_CORE", "AVX512_CORE_VNNI")


def exact(part: Part, q: np.ndarray) -> np.ndarray:
    return ExactEngine(part).run(q)


def saturating(part: Part, q: np.ndarray) -> np.ndarray:
    """An engine that is a little off wherever INT8 kernels would run."""
    return exact(part, q) - has_int8(part)


def test_exact_kernels_are_used():
    assert examine(exact).int8


def test_others_are_not():
    found = examine(saturating)
    assert not found.int8
    assert not any(found.exact.values())
    part = random_program("scale-hyperprior")["g_s"]
    assert has_int8(part)
    assert not has_int8(found.fit(part))


@pytest.mark.parametrize("kind", KINDS)
def test_one_kind_that_errs_is_enough(kind):
    def run(part: Part, q: np.ndarray) -> np.ndarray:
        return exact(part, q) - (has_int8(part) and part.output == kind)

    assert not examine(run).int8


def test_a_machine_that_is_wrong_in_both_ways_is_refused(monkeypatch):
    with pytest.raises(EngineError, match="engine exact"):
        examine(lambda part, q: exact(part, q) + 1)


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
    """Layers with some large weights, and inputs that reach their ends."""
    parts = [random_program("mean-scale-hyperprior", 16, 48, seed)[name] for seed in (0, 1) for name in ("h_s",)]
    rng = np.random.default_rng(0)
    return [(part, rng.integers(-4000, 4001, (part.input_grid.channels, 6, 5))) for part in parts]


@pytest.mark.parametrize("level", LEVELS)
def test_every_instruction_set_gives_the_exact_results_up_to_rounding(level, tmp_path):
    """``h_s`` is no part of the free zone, but as deep as one: whatever saturates shows in σ and μ."""
    target = tmp_path / "found.npz"
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": level}
    done = subprocess.run([sys.executable, "-c", PROBE, str(target)], env=environment, capture_output=True, text=True)
    if "not supported" in done.stderr:
        pytest.skip(f"this machine cannot imitate {level}")
    assert done.returncode == 0, done.stderr
    with np.load(target) as found:
        for index, (part, q) in enumerate(layers(), 1):
            assert sqnr(exact(part, q), found[f"arr_{index}"]) >= SQNR_FLOOR, level
