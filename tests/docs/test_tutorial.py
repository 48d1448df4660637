"""The tutorial's commands, run as written: on generated images and a tiny model with random weights."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from licquant.images import read_image, write_image
from tests.models_for_tests import save_small_checkpoint

PAGE = Path(__file__).parents[2] / "docs" / "tutorial.md"
COMMANDS = [
    line
    for block in re.findall(r"```bash\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    for line in block.strip().splitlines()
]


def picture(seed: int) -> np.ndarray:
    """uint8 [192, 208, 3]: smooth shades with a little noise."""
    random = np.random.default_rng(seed)
    row, column = np.mgrid[:192, :208] / 30
    shades = [np.sin(row * random.uniform(0.5, 2) + column * random.uniform(0.5, 2) + phase) for phase in range(3)]
    return np.clip(128 + 90 * np.stack(shades, -1) + random.normal(0, 4, (192, 208, 3)), 0, 255).astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_small_checkpoint(tmp_path, "model")
    (tmp_path / "model.json").unlink(missing_ok=True)
    for place, count in (("photos", 4), ("tests", 1)):
        (tmp_path / place).mkdir()
        for i in range(count):
            write_image(tmp_path / place / f"{i}.png", picture(100 * len(place) + i))
    write_image(tmp_path / "in.png", picture(7))
    return tmp_path


def test_the_page_has_commands() -> None:
    assert sum(command.startswith("licquant ") for command in COMMANDS) >= 6


@pytest.mark.slow
def test_the_commands_run_as_written(folder: Path) -> None:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    assert shutil.which("licquant", path=environment["PATH"])
    for command in COMMANDS:
        done = subprocess.run(command, shell=True, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    assert read_image(folder / "back.png").shape == read_image(folder / "in.png").shape
    assert (folder / "small.licq").stat().st_size < (folder / "model.licq").stat().st_size
    assert json.loads((folder / "results.json").read_text())
