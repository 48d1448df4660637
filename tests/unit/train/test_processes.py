"""Real processes: killed without warning and resumed, and two of them training together."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from licquant.train import architectures
from licquant.train.command import run_training
from licquant.train.loop import Journal
from tests.processes import finish, kill_twice
from tests.unit.train.small import options, recipe

pytestmark = pytest.mark.slow

DEPLOY = Path(__file__).parents[3] / "deploy"
MODULE = "licquant.commands.train"
RECIPE = recipe(steps=40, log_every=7, precision="fp32")


def arguments(place: Path, output: str, *more: object) -> list[object]:
    """What trains ``RECIPE`` as ``place``/``output``/model.pt, from a plan file."""
    plan = place / "plan.json"
    plan.write_text(json.dumps({"runs": [{**RECIPE.to_mapping(), "name": "model"}]}))
    files = ["--plan", plan, "--data", place / "images", "-o", place / output, "--cache", place / "cache"]
    return [*files, "--accelerator", "cpu", "--threads", 1, *more]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the result of an uninterrupted run in one process, as ``out``."""
    place = tmp_path_factory.mktemp("processes")
    run_training(RECIPE, options(place))
    return place


@pytest.mark.long
def test_killed_twice_and_resumed_the_result_is_the_same(place: Path) -> None:
    words = arguments(place, "killed", "--checkpoint-minutes", 0)
    reached = kill_twice(MODULE, words, place / "killed" / "model.state")
    assert 0 < reached[0] < reached[1] < RECIPE.steps
    finish(MODULE, words)
    for suffix in (".pt", ".csv"):
        killed, whole = (place / name / f"model{suffix}" for name in ("killed", "out"))
        assert killed.read_bytes() == whole.read_bytes()


TORCHRUN = ["--standalone", "--nproc-per-node", 2, "-m", MODULE]


def test_two_processes_are_one_with_the_joint_batch(place: Path) -> None:
    finish(MODULE, arguments(place, "together", "--devices", 2))
    assert "2 processes" in json.loads((place / "together" / "model.json").read_text())["hardware"]
    check_alike(place, "together")


def test_two_processes_of_torchrun_stop_and_one_goes_on(place: Path) -> None:
    """The state that two have saved is one's: the end is that of the uninterrupted run."""
    words = arguments(place, "launched")
    finish("torch.distributed.run", [*TORCHRUN, *words, "--max-minutes", 0])
    state = torch.load(place / "launched" / "model.state", weights_only=True)
    assert 0 < state["trainer"]["step"] < RECIPE.steps
    assert "2 processes" in json.loads((place / "launched" / "model.json").read_text())["hardware"]
    finish(MODULE, words)
    check_alike(place, "launched")


@pytest.mark.long
def test_two_workers_of_ray_train_are_one_with_the_joint_batch(place: Path) -> None:
    pytest.importorskip("tensorboardX", reason="Ray Train is not installed: pip install 'ray[train]'")
    script = [sys.executable, DEPLOY / "train.py", 2, *arguments(place, "ray")]
    done = subprocess.run(list(map(str, script)), env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}, timeout=1200)
    assert done.returncode == 0
    assert "2 processes" in json.loads((place / "ray" / "model.json").read_text())["hardware"]
    check_alike(place, "ray")


def check_alike(place: Path, output: str) -> None:
    """Log and weights are those of one process but for the order of sums."""

    def log(output: str) -> torch.Tensor:
        journal = Journal(Path())
        journal.text = (place / output / "model.csv").read_text()
        return torch.tensor([list(row.values()) for row in journal.rows()])

    torch.testing.assert_close(log(output), log("out"), rtol=1e-4, atol=1e-6)
    together, whole = (torch.load(place / name / "model.pt", weights_only=True) for name in (output, "out"))
    fresh = architectures.build(RECIPE.model, {"N": RECIPE.N, "M": RECIPE.M}, RECIPE.seed)
    for name, initial in fresh.named_parameters():
        # Sums in another order, nothing else: other noise or crops would differ as much as they move.
        moved = (whole[name] - initial).abs().max()
        assert (together[name] - whole[name]).abs().max() < 1e-3 * moved, name
