"""Commands killed without warning, at every kind of moment: nothing half-written, and the same result afterwards.

A run is killed at random times, and at random ones of the moments at which it changes its output folder (``dying``);
then it is run again, to the end. The result must be that of a run that nobody disturbed.
"""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from licquant import pipeline
from licquant.codec.files.artifact import Artifact
from licquant.codec.files.bitstream import Bitstream
from licquant.images import read_image, write_image
from licquant.quant.synthetic import dead_leaves
from tests.models_for_tests import save_small_checkpoint, small_hyperprior
from tests.unit.train.small import write_images

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
BY_CHANGE, BY_CLOCK = 3, 1  # kills of each command
QUICK = {"encode", "decode"}  # of the commands: the others take minutes
# What differs between any two runs, whether killed or not.
VOLATILE = {"seconds", "time", "encode_seconds", "decode_seconds", "median_encode_ms", "median_decode_ms", "hardware"}


@dataclass(frozen=True)
class Command:
    """words: of the command line, for a folder with what it reads and one for its output."""

    words: Callable[[Path, Path], Sequence[object]]


def _small(place: Path) -> list[object]:
    return ["--cache", place / "cache", "--threads", 1, "--accelerator", "cpu"]


def _train(place: Path, out: Path) -> Sequence[object]:
    """A run alone: what a plan does it does in a process of its own, which ``test_supervise`` kills."""
    model = ["--model", "bmshj2018-hyperprior", "--lmbda", 0.01, "--N", 8, "--M", 12, "--precision", "fp32"]
    size = ["--crop", 64, "--batch-size", 4, "--large-crop", 128, "--large-batch-size", 2, "--steps", 10]
    keeping = ["--resume", "--checkpoint-minutes", 0, "--max-file-mib", 0.8]
    return ["train", *model, "--data", place / "images", "-o", out / "model.pt", *size, *keeping, *_small(place)]


def _finetune(place: Path, out: Path) -> Sequence[object]:
    files = ["--checkpoint", place / "c.pt", "--data", place / "images", "--calib", place / "images"]
    size = ["--crop", 64, "--batch-size", 1, "--large-crop", 64, "--large-batch-size", 1, "--steps", 6]
    return ["finetune", *files, "-o", out / "m.licq", *size, "--checkpoint-minutes", 0, "--resume", *_small(place)]


def _quantize(place: Path, out: Path) -> Sequence[object]:
    files = ["--checkpoint", place / "c.pt", "--calib", place / "images", "-o", out / "m.licq", "--cache", out / "kept"]
    return ["quantize", *files, "--method", "optimal", "--budget", "size=0.6", "--max-bits", 3, "--steps", 3]


def _compare(place: Path, out: Path) -> Sequence[object]:
    files = ["--checkpoint", place / "c.pt", "--calib", place / "images", "--images", place / "tests", "-o", out]
    return ["compare", *files, "--budget", "bits=6", "--methods", "uniform,raq", "--steps", 0, "--threads", 1]


def _reproduce(place: Path, out: Path) -> Sequence[object]:
    folders = ["--calib", place / "images", "--data", place / "images", "--images", place / "tests"]
    some = ["--checkpoint", place / "c.pt", "--steps", 1, "--seeds", 1, "--threads", 1, "--cache", place / "cache"]
    return ["reproduce", "fig6", *folders, *some, "-o", out]


COMMANDS = {
    "encode": Command(lambda place, out: ["encode", place / "big.png", "-m", place / "m.licq", "-o", out / "x.lic"]),
    "decode": Command(lambda place, out: ["decode", place / "big.lic", "-m", place / "m.licq", "-o", out / "x.png"]),
    "evaluate": Command(
        lambda place, out: ["evaluate", "--images", place / "tests", "--models", place / "m.licq", "-o", out / "r.json"]
    ),
    "quantize": Command(_quantize),
    "train": Command(_train),
    "finetune": Command(_finetune),
    "compare": Command(_compare),
    "reproduce": Command(_reproduce),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands read."""
    place = tmp_path_factory.mktemp("kills")
    save_small_checkpoint(place)
    write_images(place / "images", count=2)
    write_images(place / "tests", count=1, side=96)
    artifact = pipeline.quantize(small_hyperprior(), dead_leaves(2, 128), provenance={"lmbda": 0.01}).artifact
    artifact.save(place / "m.licq")
    write_image(place / "big.png", np.ascontiguousarray(dead_leaves(1, 700)[0][:500]))
    run(place, 0, COMMANDS["encode"].words(place, place))
    (place / "x.lic").rename(place / "big.lic")
    return place


def start(folder: Path, moment: int, words: Sequence[object]) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "tests.robustness.dying", folder, moment, folder.parent / "moments", *words]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        list(map(str, command)), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=folder
    )


def run(folder: Path, moment: int, words: Sequence[object]) -> bool:
    """Whether it came to a good end; any other end than that and death is an error."""
    process = start(folder, moment, words)
    _, said = process.communicate(timeout=600)
    assert process.returncode <= 0, said.decode()
    return process.returncode == 0


def killed_by_clock(folder: Path, words: Sequence[object], seconds: float) -> None:
    process = start(folder, 0, words)
    time.sleep(seconds)
    process.kill()
    process.communicate()


def check_whole(folder: Path) -> None:
    """Every file under its own name can be read to its end; temporary ones are hidden and nobody's."""
    for path in folder.rglob("*"):
        if path.is_dir() or (path.name.startswith(".licquant-") and path.suffix == ".tmp"):
            continue
        match path.suffix:
            case ".licq":
                Artifact.from_bytes(path.read_bytes())
            case ".lic":
                Bitstream.from_bytes(path.read_bytes())
            case ".json":
                json.loads(path.read_text())
            case ".png":
                read_image(path)
            case ".pt" | ".state":
                torch.load(path, weights_only=True)
            case ".csv":
                lines = path.read_text().split("\n")
                assert lines[-1] == ""
                assert len({line.count(",") for line in lines[:-1]}) == 1
            case ".jsonl":
                pass  # a journal, appended to line by line: its last line may be cut short, and is then measured again
            case _:
                raise AssertionError(f"{path.name}: a file that nobody knows")


def contents(folder: Path) -> dict[str, Any]:
    """Name → what must be the same in every run."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_dir() or path.name.startswith("."):
            continue
        name = str(path.relative_to(folder))
        if path.suffix == ".json":
            found[name] = steady(json.loads(path.read_text()))
        elif path.suffix == ".jsonl":
            found[name] = {line for line in path.read_text().splitlines() if _is_json(line)}
        else:
            found[name] = path.read_bytes()
    return found


def steady(record: Any) -> Any:
    if isinstance(record, dict):
        return {key: steady(value) for key, value in record.items() if key not in VOLATILE}
    return [steady(value) for value in record] if isinstance(record, list) else record


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.long) for name in COMMANDS]
)
def test_killed_and_run_again_the_result_is_the_same(name: str, place: Path, tmp_path: Path) -> None:
    command, rng = COMMANDS[name], random.Random(f"kills {name}")
    whole, killed = tmp_path / "whole" / "out", tmp_path / "killed" / "out"
    for folder in (whole, killed):
        folder.mkdir(parents=True)
    began = time.monotonic()
    assert run(whole, 0, command.words(place, whole))
    seconds = time.monotonic() - began
    moments = int((whole.parent / "moments").read_text())
    assert moments >= 1
    words = command.words(place, killed)
    died = 0
    for _ in range(BY_CHANGE):
        died += not run(killed, rng.randint(1, moments), words)
        check_whole(killed)
    for _ in range(BY_CLOCK):
        killed_by_clock(killed, words, rng.uniform(0, seconds))
        check_whole(killed)
    assert died, "every run reached its end"
    assert run(killed, 0, words)
    check_whole(killed)
    found, wanted = contents(killed), contents(whole)
    assert sorted(found) == sorted(wanted)
    for of in wanted:
        assert found[of] == wanted[of], of
