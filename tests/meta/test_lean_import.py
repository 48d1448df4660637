"""``import licquant`` is quick and brings in nothing of the training stack."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.meta.layers import HEAVY

SOURCE = Path(__file__).parents[2] / "src"

PROBE = """
import json, sys, time
start = time.perf_counter()
import licquant
print(json.dumps([time.perf_counter() - start, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


def import_once() -> tuple[float, set[str]]:
    """Seconds of the import in a fresh interpreter, and the top-level modules that it loaded."""
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    done = subprocess.run([sys.executable, "-c", PROBE], env=environment, capture_output=True, check=True, text=True)
    seconds, modules = json.loads(done.stdout)
    return seconds, set(modules)


def test_import_is_lean_and_quick() -> None:
    runs = [import_once() for _ in range(3)]
    assert HEAVY.isdisjoint(runs[0][1])
    assert min(seconds for seconds, _ in runs) < 1.0
