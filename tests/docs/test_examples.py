"""The scripts in ``examples/``, run as written: on a tiny model with random weights and generated pictures."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from licquant.images import write_image
from licquant.quant.synthetic import dead_leaves
from tests.models_for_tests import save_small_checkpoint

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples"
# Script → its words, and what it prints. Those of other parts have tests of their own.
RUNS = {
    "quantize_compressai.py": (["model.pt", "photos"], r"\d+ bytes for an image of \(192, 192, 3\)"),
    "mixed_precision.py": (["model.pt", "photos", "33000"], r"g_a\.0 +weights \d+ bits.*\d+ bytes, of 33000 allowed"),
    "own_model.py": (["photos"], r"\d+ bytes, coded as scale-hyperprior"),
    "pillow_files.py": (["photos/0.png"], r"LIC \(192, 192\) RGB\nother\.lic: quality 9: there are 4 models"),
    "evaluate_with_compressai.py": (["model.licq", "photos"], r"psnr-rgb \d+\.\d+, ms-ssim-rgb .*, bpp \d"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("examples")
    save_small_checkpoint(folder, "model")
    (folder / "photos").mkdir()
    for index, image in enumerate(dead_leaves(3, 192)):
        write_image(folder / "photos" / f"{index}.png", image)
    return folder


def run(name: str, folder: Path) -> str:
    words, _ = RUNS[name]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, FOLDER / name, *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_an_example_runs_as_written(name: str, folder: Path) -> None:
    if name == "evaluate_with_compressai.py" and not (folder / "model.licq").exists():
        run("quantize_compressai.py", folder)
    text = run(name, folder)
    assert re.search(RUNS[name][1], text, re.DOTALL), text


def test_every_example_is_told() -> None:
    told = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert RUNS.keys() <= {path.name for path in FOLDER.glob("*.py")}
    assert [path.name for path in FOLDER.glob("*.py") if f"`{path.name}" not in told] == []
