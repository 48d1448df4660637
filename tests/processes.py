"""Command lines in processes of their own, one of which may be killed without warning."""

import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

SOURCE = Path(__file__).parents[1] / "src"


def start(module: str, arguments: Sequence[object]) -> "subprocess.Popen[bytes]":
    """``python -m module arguments``, on one thread."""
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(module: str, arguments: Sequence[object]) -> None:
    """Run to the end, which must be a good one."""
    process = start(module, arguments)
    _, said = process.communicate(timeout=1200)
    assert process.returncode == 0, said.decode()


def kill_twice(module: str, arguments: Sequence[object], state: Path) -> list[int]:
    """Kill a training run at two random moments after it has saved ``state``; returns the steps saved by then."""
    generator = random.Random(0)
    reached = []
    for _ in range(2):
        process, before = start(module, arguments), state.stat().st_mtime_ns if state.exists() else 0
        while not state.exists() or state.stat().st_mtime_ns == before:
            assert process.poll() is None
            time.sleep(0.001)
        time.sleep(generator.uniform(0, 0.3))
        process.kill()  # SIGKILL: nothing can be tidied up
        process.wait()
        reached.append(torch.load(state, weights_only=True)["trainer"]["step"])
    return reached
