"""A process that codes images of ever new sizes: its memory must not grow with them."""

import subprocess
import sys
from pathlib import Path

import pytest

from licquant import pipeline
from licquant.quant.synthetic import dead_leaves
from tests.models_for_tests import small_model

# Prints the resident bytes after 80 sizes and after 320.
PROGRAM = """
import sys
import numpy as np
from benchmarks.soak_worker import usage
from licquant import load
codec = load(sys.argv[1], threads=1)
sizes = [(16 * h, 16 * w) for h in range(1, 17) for w in range(1, 21)]
np.random.default_rng(0).shuffle(sizes)
for count, (height, width) in enumerate(sizes, 1):
    codec.decode(codec.encode(np.zeros((height, width, 3), np.uint8)))
    if count in (80, 320):
        print(usage()["rss_bytes"])
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_sizes(tmp_path: Path) -> None:
    path = tmp_path / "m.licq"
    pipeline.quantize(small_model("bmshj2018-factorized"), dead_leaves(2, 128)).artifact.save(path)
    words = [sys.executable, "-c", PROGRAM, str(path)]
    done = subprocess.run(words, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    early, late = map(int, done.stdout.split())
    assert late < 1.5 * early  # 2.7 times where every kernel is kept
