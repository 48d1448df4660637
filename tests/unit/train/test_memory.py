"""Freed memory is kept: what is allocated again costs no new pages."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[3] / "src"

# Page faults of filling 64 MB once more after they were freed; 16384 pages if they come from the system.
PROBE = """
import resource, sys
import numpy as np
from licquant.train.process import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(2):
    before = faults()
    np.empty(64 << 20, np.uint8).fill(1)
print(faults() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
@pytest.mark.parametrize(("what", "fewest", "most"), [("keep", 0, 200), ("default", 200, 10**6)])
def test_pages_are_faulted_in_once(what: str, fewest: int, most: int) -> None:
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "NUMPY_MADVISE_HUGEPAGE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", PROBE, what], env=environment, capture_output=True, check=True, text=True
    )
    assert fewest <= int(done.stdout) <= most
