"""A disk that is full or read-only, and a full one behind standard output: one line of error, and nothing lost."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from licquant.codec.codec import Codec
from licquant.images import write_image

ROOT = Path(__file__).parents[2]
OLD = ["m.licq", "results.json", "x.lic", "x.png"]  # what commands would replace
NAMESPACE = ("unshare", "--map-root-user", "--mount")


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> None:
    if not shutil.which("unshare"):
        pytest.skip("there is no unshare here, by which a disk is mounted for one process")
    words = [*NAMESPACE, "mount", "-t", "tmpfs", "none", tmp_path_factory.mktemp("tried")]
    tried = subprocess.run(words, capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"no disk can be mounted here: {tried.stderr.strip()}")


@pytest.fixture
def place(tmp_path: Path, artifact_path: Path, codec: Codec) -> Path:
    """disk/ is what becomes a disk; the pictures take 196 kB as PPM."""
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    for name in ("a.png", "b.png"):
        (tmp_path / "images").mkdir(exist_ok=True)
        write_image(tmp_path / "images" / name, noise)
    (tmp_path / "x.lic").write_bytes(codec.encode(noise))
    shutil.copy(artifact_path, tmp_path / "m.licq")
    (tmp_path / "disk").mkdir()
    for name in OLD:
        (tmp_path / "disk" / name).write_bytes(b"old")
    return tmp_path


def on_disk(place: Path, options: str, commands: dict[str, tuple[object, ...]]) -> dict[str, str]:
    """What each says on standard error, where all end with status 1 and leave the disk as it was."""
    words = json.dumps([[name, *map(str, rest)] for name, rest in commands.items()])
    program = [sys.executable, "-m", "tests.robustness.full_disk", place / "disk", options, words]
    done = subprocess.run([*NAMESPACE, *program], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    for status, said, files in (found := json.loads(done.stdout)):
        assert (status, files) == (1, dict.fromkeys(OLD, "old")), said
        assert "Traceback" not in said
    return dict(zip(commands, (said for _, said, _ in found), strict=True))


KINDS = {"size=1m,remounted": "Read-only file system", "size=40k": "No space left on device"}


@pytest.mark.slow
@pytest.mark.usefixtures("disks")
@pytest.mark.parametrize("options", KINDS)
def test_coding_on_a_disk_that_takes_nothing(place: Path, options: str) -> None:
    disk, model = place / "disk", ("-m", place / "m.licq")
    said = on_disk(
        place,
        options,
        {"encode": (place / "images" / "a.png", "-o", disk / "x.lic", *model),
         "decode": (place / "x.lic", "-o", disk / "x.png", *model)},
    )  # fmt: skip
    for line in said.values():
        assert line.count("\n") == 1
        assert KINDS[options] in line
    if options == "size=40k":
        return
    several = on_disk(place, options, {"encode": (place / "images", "-o", disk / "many", *model)})["encode"]
    assert several.count(KINDS[options]) == 2
    assert "0 of 2 files written" in several


@pytest.mark.usefixtures("disks")
def test_a_disk_that_is_full_at_the_end(place: Path) -> None:
    """Nothing was wrong when it was asked for at the start."""
    words = {"decode": (place / "x.lic", "-o", place / "disk" / "x.ppm", "-m", place / "m.licq")}
    (line,) = on_disk(place, "size=120k", words)["decode"].splitlines()
    assert line.endswith("x.ppm: cannot be written: No space left on device")


@pytest.mark.slow  # imports PyTorch
@pytest.mark.usefixtures("disks")
@pytest.mark.parametrize("options", KINDS)
def test_models_and_results_on_a_disk_that_takes_nothing(place: Path, options: str) -> None:
    from tests.models_for_tests import save_small_checkpoint

    save_small_checkpoint(place)
    disk, images = place / "disk", place / "images"
    said = on_disk(
        place,
        options,
        {"quantize": ("--checkpoint", place / "c.pt", "--calib", images, "--steps", 0, "-o", disk / "m.licq"),
         "profile": ("--checkpoint", place / "c.pt", "-o", disk / "results.json"),
         "evaluate": ("--images", images, "--models", place / "m.licq", "-o", disk / "results.json")},
    )  # fmt: skip
    for line in said.values():
        assert line.count("\n") == 1
        assert KINDS[options] in line


# --- streams ------------------------------------------------------------------------------------------------


def licquant(*words: object, unbuffered: bool = False, **streams: object) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1" if unbuffered else ""}
    return subprocess.run([sys.executable, "-m", "licquant", *map(str, words)], env=environment, text=True, **streams)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
class TestAFullDiskBehindAStream:
    @pytest.mark.parametrize("unbuffered", [False, True])
    def test_results_that_cannot_be_said_are_one_line_of_error(self, place: Path, unbuffered: bool) -> None:
        encode = ("encode", place / "images" / "a.png", "-m", place / "m.licq", "-o")
        with open("/dev/full", "w") as full:
            for words in ((*encode, "-"), (*encode, place / "y.lic")):
                done = licquant(*words, unbuffered=unbuffered, stdout=full, stderr=subprocess.PIPE)
                (line,) = done.stderr.splitlines()
                assert done.returncode == 1
                assert line.startswith("licquant: standard output: ")
        assert (place / "y.lic").read_bytes() == (place / "x.lic").read_bytes()

    def test_no_work_is_lost_for_a_remark(self, place: Path) -> None:
        words = ("encode", place / "images", "-m", place / "m.licq", "-o", place / "many")
        with open("/dev/full", "w") as full:
            done = licquant(*words, stdout=subprocess.PIPE, stderr=full)
        assert done.returncode == 0
        assert len(done.stdout.splitlines()) == 2
        for name in ("a.lic", "b.lic"):
            assert (place / "many" / name).read_bytes() == (place / "x.lic").read_bytes()
