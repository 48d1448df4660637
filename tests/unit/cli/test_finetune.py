"""``licquant finetune`` and ``licquant reproduce`` as a user runs them; every run is in this process."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from licquant.cli import main
from licquant.codec.artifact import Artifact, read_artifact_bytes
from tests.models_for_tests import small_hyperprior
from tests.unit.train.small import write_images


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with its card, and a folder of images."""
    place = tmp_path_factory.mktemp("finetune")
    torch.save(small_hyperprior().state_dict(), place / "c.pt")
    (place / "c.json").write_text('{"lmbda": 0.01}')
    write_images(place / "images", count=2)
    return place


def words(place: Path, output: Path, *more: object) -> list[str]:
    files = ["--checkpoint", place / "c.pt", "--data", place / "images", "--calib", place / "images", "-o", output]
    small = ["--crop", 64, "--batch-size", 1, "--large-crop", 64, "--large-batch-size", 1, "--accelerator", "cpu"]
    return [str(word) for word in ("finetune", *files, *small, "--threads", 1, "--cache", place / "cache", *more)]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    main_returns(*arguments, "--json")
    record: dict[str, object] = json.loads(capsys.readouterr().out)
    return record


def main_returns(*arguments: str) -> None:
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    assert stop.value.code == 0


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    assert stop.value.code == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("licquant: ")
    return lines[0]


def test_a_run_stopped_by_the_clock_is_continued(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "m.licq"
    options = ("--quantizer", "lsq", "--estimator", "ste", "--budget", "bits=6", "--steps", 2)
    stopped = run(capsys, *words(place, output, *options, "--max-minutes", 0))
    assert stopped["status"] == "time limit"
    assert (tmp_path / "m.state").exists()
    assert Artifact.from_bytes(read_artifact_bytes(output)).provenance["steps"] == 1
    assert "continue it with --resume" in fails(capsys, *words(place, output, *options))
    assert "quantizer = 'lsq', not 'dpa'" in fails(capsys, *words(place, output, "--steps", 2, "--resume"))
    done = run(capsys, *words(place, output, *options, "--resume"))
    assert done["status"] == "complete"
    card = json.loads((tmp_path / "m.json").read_text())
    assert card == done["card"]
    assert (card["steps"], card["complete"], card["lmbda"]) == (2, True, 0.01)
    assert card["bytes"] == output.stat().st_size
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.csv", "m.json", "m.licq", "m.png"]
    told = Artifact.from_bytes(read_artifact_bytes(output)).provenance
    assert (told["method"], told["budget"], told["steps"]) == ("lsq-ste", "bits=6", 2)
    assert str(place) not in json.dumps(dict(told)) + json.dumps(card)
    assert run(capsys, *words(place, output, *options, "--resume"))["status"] == "complete"


def test_bad_options_are_found_before_anything_is_done(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "m.licq"
    assert "quantizer = 'x'" in fails(capsys, *words(place, output, "--quantizer", "x"))
    assert "beta" in fails(capsys, *words(place, output, "--beta", 0))
    assert "budget" in fails(capsys, *words(place, output, "--budget", "bits=0"))
    assert "no such folder" in fails(capsys, *words(place, tmp_path / "no" / "m.licq"))
    assert "suffix" in fails(capsys, *words(place, tmp_path / "m.json"))
    (place / "other.pt").write_bytes(b"")
    assert "λ" in fails(capsys, *[word.replace("c.pt", "other.pt") for word in words(place, output)])
    assert list(tmp_path.iterdir()) == []


def test_reproduce_draws_figure_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = run(capsys, "reproduce", "fig2", "-o", str(tmp_path / "new"))
    assert Image.open(tmp_path / "new" / "fig2.png").size[0] > 500
    slopes = record["slopes"]
    assert isinstance(slopes, dict)
    assert slopes["β = 2"] == pytest.approx([0.5514, 1.3130], abs=1e-4)
    assert "unknown result" in fails(capsys, "reproduce", "fig99", "-o", str(tmp_path))
