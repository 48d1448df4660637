"""Real processes: finetuning killed without warning and resumed, and two of them finetuning together."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.models_for_tests import small_hyperprior
from tests.unit.train.small import write_images

pytestmark = pytest.mark.slow

SOURCE = Path(__file__).parents[3] / "src"
STEPS = 30


def command(place: Path, output: str, *arguments: str) -> list[str]:
    files = {"--checkpoint": "c.pt", "--data": "images", "--calib": "images", "-o": output, "--cache": "cache"}
    paths = [word for option, name in files.items() for word in (option, str(place / name))]
    small = ["--crop", "64", "--batch-size", "2", "--large-crop", "128", "--large-batch-size", "2"]
    own = ["--steps", str(STEPS), "--budget", "bits=5", "--accelerator", "cpu", "--threads", "1", *arguments]
    return [sys.executable, "-m", "licquant", "finetune", *paths, *small, *own]


def start(arguments: list[str]) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(arguments: list[str]) -> None:
    process = start(arguments)
    _, said = process.communicate(timeout=1200)
    assert process.returncode == 0, said.decode()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the result of an uninterrupted run in one process, as whole.licq."""
    place = tmp_path_factory.mktemp("processes")
    torch.save(small_hyperprior().state_dict(), place / "c.pt")
    (place / "c.json").write_text('{"lmbda": 0.01}')
    write_images(place / "images", count=3)
    finish(command(place, "whole.licq"))
    return place


def test_killed_twice_and_resumed_the_artifact_is_the_same(place: Path) -> None:
    arguments = command(place, "killed.licq", "--checkpoint-minutes", "0", "--resume")
    state, generator = place / "killed.state", random.Random(0)
    reached = []
    for _ in range(2):
        process, before = start(arguments), state.stat().st_mtime_ns if state.exists() else 0
        while not state.exists() or state.stat().st_mtime_ns == before:
            assert process.poll() is None
            time.sleep(0.001)
        time.sleep(generator.uniform(0, 0.3))
        process.kill()  # SIGKILL: nothing can be tidied up
        process.wait()
        reached.append(torch.load(state, weights_only=True)["trainer"]["step"])
    assert 0 < reached[0] < reached[1] < STEPS
    finish(arguments)
    for suffix in (".licq", ".csv"):
        assert (place / f"killed{suffix}").read_bytes() == (place / f"whole{suffix}").read_bytes()


def test_two_processes_are_one_with_the_joint_batch(place: Path) -> None:
    finish(command(place, "together.licq", "--devices", "2"))
    assert "2 processes" in json.loads((place / "together.json").read_text())["hardware"]

    def log(name: str) -> torch.Tensor:
        rows = (place / f"{name}.csv").read_text().splitlines()[1:]
        return torch.tensor([[float(cell) for cell in row.split(",")] for row in rows])

    # Sums in another order: here and there a value beside a boundary rounds the other way.
    torch.testing.assert_close(log("together")[:, :7], log("whole")[:, :7], rtol=0.02, atol=1e-6)
