"""The wheel of the codec half in fresh environments: it builds, imports without PyTorch, and decodes the corpus."""

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.conformance.matrix import PYTHONS, _interpreter

ROOT = Path(__file__).parents[2]
UV = (sys.executable, "-m", "uv")
# What uv says where packages cannot be had: no fault of licquant's.
UNAVAILABLE = ("Failed to fetch", "error sending request", "dns error", "No solution found", "no wheels")

LEAN = """
import importlib.util, licquant, sys
assert "site-packages" in licquant.__file__, licquant.__file__
assert importlib.util.find_spec("torch") is None
assert callable(licquant.load)
"""


def packages(*words: object) -> None:
    """uv; the test is skipped where the packages that it wants are not to be had."""
    done = subprocess.run([*UV, *map(str, words)], capture_output=True, text=True)
    if done.returncode and any(sign in done.stderr for sign in UNAVAILABLE):
        pytest.skip(f"packages are not to be had here: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    packages("build", "--quiet", "--wheel", "--out-dir", folder, ROOT)
    (path,) = folder.glob("licquant-*.whl")
    return path


def test_the_classifiers_are_the_versions_that_are_tested() -> None:
    said = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    start = "Programming Language :: Python :: 3."
    assert tuple(f"3.{line.removeprefix(start)}" for line in said if line.startswith(start)) == PYTHONS


@pytest.mark.slow
def test_the_wheel_tells_its_types_and_has_its_models(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "licquant/py.typed" in names
    assert len([name for name in names if name.endswith(".licq")]) == 4


@pytest.mark.slow
@pytest.mark.parametrize("version", PYTHONS)
def test_a_fresh_environment(version: str, wheel: Path, tmp_path: Path) -> None:
    python = _interpreter(version)
    if python is None:
        pytest.skip(f"Python {version} is not on this machine")
    packages("venv", "--quiet", "--python", python, tmp_path / "env")
    bin_ = tmp_path / "env" / "bin"
    packages("pip", "install", "--quiet", "--only-binary", ":all:", "--python", bin_ / "python", wheel)
    bare = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}

    def run(*words: object, **more: str) -> str:
        command = list(map(str, words))
        done = subprocess.run(command, env={**bare, **more}, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run(bin_ / "python", "-c", LEAN)
    run(bin_ / "python", "-m", "tests.conformance.run", "--threads", "1", PYTHONPATH=str(ROOT))
    picture = next((ROOT / "src" / "licquant" / "assets" / "images").glob("*.png"))
    assert run(bin_ / "licquant", "encode", picture, "-o", "a.lic").startswith("a.lic: ")
    assert run(bin_ / "python", "-m", "licquant", "decode", "a.lic", "-o", "a.png").startswith("a.png: ")
    assert (tmp_path / "env" / "share" / "man" / "man1" / "licquant.1").is_file()
