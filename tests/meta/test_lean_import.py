"""``import licquant`` is quick and brings in nothing of the training stack."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import licquant
from tests.meta.layers import HEAVY

SOURCE = Path(__file__).parents[2] / "src"

PROBE = """
import json, sys, time
start = time.process_time()
import licquant
print(json.dumps([time.process_time() - start, sorted({name.partition(".")[0] for name in sys.modules})]))
"""

# Imported by what uses them: the codec's libraries, which training does without.
CODING = {"openvino", "constriction"}

TRAIN_WITHOUT_CODING = """
import sys
sys.modules |= dict.fromkeys(("openvino", "constriction", "bjontegaard"))  # None: cannot be imported
import licquant, licquant.train.command, licquant.train.plan, licquant.evaluate.reference
assert licquant.load and "licquant.program.exact" in sys.modules
"""


def import_once() -> tuple[float, set[str]]:
    """Processor seconds of the import in a fresh interpreter, and the top-level modules that it loaded."""
    seconds, modules = json.loads(run_python(PROBE))
    return seconds, set(modules)


def run_python(program: str) -> str:
    """The standard output of a program in a fresh interpreter; it must end well."""
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_is_lean_and_quick() -> None:
    runs = [import_once() for _ in range(3)]
    assert (HEAVY | CODING).isdisjoint(runs[0][1])
    assert min(seconds for seconds, _ in runs) < 1.0


@pytest.mark.slow
def test_training_does_without_the_codecs_libraries() -> None:
    pytest.importorskip("compressai")
    run_python(TRAIN_WITHOUT_CODING)


def test_the_codec_is_offered_when_asked_for() -> None:
    run_python("import licquant; assert callable(licquant.load) and licquant.Codec is vars(licquant)['Codec']")
    assert set(licquant.__all__) >= {"Codec", "load"}
    with pytest.raises(AttributeError, match="no attribute 'save'"):
        getattr(licquant, "save")  # noqa: B009


def test_the_command_line_waits_for_neither_an_engine_nor_rich() -> None:
    found = "sorted({'rich', 'openvino', 'torch', 'scipy'} & set(sys.modules))"
    program = f"import sys, licquant.commands.app; print({found})"
    assert run_python(program).strip() == "[]"


def test_openvino_comes_without_its_converter_which_can_still_be_had() -> None:
    run_python(
        """
import sys
from licquant.program.lean_openvino import ov
assert not {name.partition(".")[0] for name in sys.modules} & {"openvino_telemetry"}
assert "openvino.tools.ovc" not in sys.modules
import openvino
assert openvino is ov and callable(openvino.convert_model)
try:
    openvino.convert_model()
except Exception as error:
    assert "ovc" in sys.modules["openvino.tools.ovc"].__name__, error
import openvino.tools.ovc
assert callable(openvino.tools.ovc.convert_model)
"""
    )


def test_openvino_that_is_there_already_stays_as_it_is() -> None:
    run_python(
        "import openvino; c = openvino.convert_model; import licquant.program.lean_openvino as l; assert l.ov is "
        "openvino and openvino.convert_model is c"
    )
