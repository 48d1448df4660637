"""Real processes: finetuning killed without warning and resumed, and two of them finetuning together."""

import json
from pathlib import Path

import pytest
import torch

from tests.models_for_tests import save_small_checkpoint
from tests.processes import finish, kill_twice
from tests.unit.train.small import write_images

pytestmark = pytest.mark.slow

STEPS = 30
STATIC, DYNAMIC = ("--budget", "bits=5"), ("--widths", "4,6", "--gamma", "1")


def arguments(place: Path, output: str, *more: str) -> list[object]:
    files = {"--checkpoint": "c.pt", "--data": "images", "--calib": "images", "-o": output, "--cache": "cache"}
    paths = [word for option, name in files.items() for word in (option, place / name)]
    small = ["--crop", 64, "--batch-size", 2, "--large-crop", 128, "--large-batch-size", 2]
    return ["finetune", *paths, *small, "--steps", STEPS, "--accelerator", "cpu", "--threads", 1, *more]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint and images."""
    place = tmp_path_factory.mktemp("processes")
    save_small_checkpoint(place)
    write_images(place / "images", count=3)
    return place


@pytest.fixture(scope="module")
def whole(place: Path) -> Path:
    """The folder, with the result of an uninterrupted run in one process as whole.licq."""
    finish("licquant", arguments(place, "whole.licq", *STATIC))
    return place


@pytest.mark.long
def test_killed_twice_and_resumed_the_artifact_is_the_same(whole: Path) -> None:
    _check_killed(whole, "whole", STATIC)


@pytest.mark.long
def test_killed_twice_and_resumed_a_dynamic_artifact_is_the_same(place: Path) -> None:
    finish("licquant", arguments(place, "whole-dynamic.licq", *DYNAMIC))
    _check_killed(place, "whole-dynamic", DYNAMIC)


def _check_killed(place: Path, whole: str, widths: tuple[str, ...]) -> None:
    killed = f"killed-{whole}"
    words = arguments(place, f"{killed}.licq", *widths, "--checkpoint-minutes", "0", "--resume")
    reached = kill_twice("licquant", words, place / f"{killed}.state")
    assert 0 < reached[0] < reached[1] < STEPS
    finish("licquant", words)
    for suffix in (".licq", ".csv"):
        assert (place / f"{killed}{suffix}").read_bytes() == (place / f"{whole}{suffix}").read_bytes()


def test_two_processes_are_one_with_the_joint_batch(whole: Path) -> None:
    finish("licquant", arguments(whole, "together.licq", *STATIC, "--devices", "2"))
    assert "2 processes" in json.loads((whole / "together.json").read_text())["hardware"]

    def log(name: str) -> torch.Tensor:
        rows = (whole / f"{name}.csv").read_text().splitlines()[1:]
        return torch.tensor([[float(cell) for cell in row.split(",")] for row in rows])

    # Sums in another order: here and there a value beside a boundary rounds the other way.
    torch.testing.assert_close(log("together")[:, :7], log("whole")[:, :7], rtol=0.02, atol=1e-6)
