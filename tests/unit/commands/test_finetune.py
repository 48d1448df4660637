"""``licquant finetune`` and ``licquant reproduce`` as a user runs them; every run is in this process."""

import json
from pathlib import Path

import pytest
from PIL import Image

from licquant.codec.files.artifact import Artifact, read_artifact_bytes
from licquant.commands.app import main
from licquant.digests import file_sha256
from licquant.reports.sensitivity_table import table_beside
from tests.models_for_tests import save_small_checkpoint
from tests.unit.train.small import write_images


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with its card, and a folder of images."""
    place = tmp_path_factory.mktemp("finetune")
    save_small_checkpoint(place)
    write_images(place / "images", count=2)
    return place


@pytest.fixture(autouse=True)
def few_crops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("licquant.dynamic.finetune.SELECTOR_CROPS", 2)


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


@pytest.mark.slow
def test_a_method_that_measures_leaves_its_table(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """For the artifact that the training gave, so that its report shows it."""
    output = tmp_path / "m.licq"
    method = ("--method", "fmpq", "--quantizer", "lsq", "--estimator", "ste", "--budget", "bits=6", "--steps", 1)
    run(capsys, *words(place, output, *method))
    table = table_beside(output, file_sha256(output))
    assert table is not None
    assert any(value is not None for row in table["weights"] for value in row)


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


@pytest.mark.slow
def test_a_dynamic_run_is_continued_and_codes_images(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "m.licq"
    options = ("--widths", "8,6,4", "--gamma", 0.5, "--bit-cost", "bops", "--steps", 2)
    stopped = run(capsys, *words(place, output, *options, "--max-minutes", 0))
    assert stopped["status"] == "time limit"
    assert "gamma = 0.5, not 0.25" in fails(
        capsys, *words(place, output, "--widths", "4,6,8", "--gamma", 0.25, "--steps", 2, "--resume")
    )
    done = run(capsys, *words(place, output, *options, "--resume"))
    assert done["status"] == "complete"
    artifact = Artifact.from_bytes(read_artifact_bytes(output))
    assert all(set(of) <= {4, 6, 8} for of in artifact.dynamic["g_a"].selector.candidates)
    told = artifact.provenance
    assert (told["method"], told["budget"]) == ("dpa-dq-dgm2", "widths=4,6,8")
    assert (told["widths"], told["gamma"], told["bit_cost"], told["steps"]) == ([4, 6, 8], 0.5, "bops", 2)
    assert "bits" in (tmp_path / "m.csv").read_text().splitlines()[0].split(",")
    record = run(capsys, "evaluate", "--images", str(place / "images"), "--models", str(output),
                 "-o", str(tmp_path / "r.json"))  # fmt: skip
    assert "dpa-dq-dgm2 widths=4,6,8" in json.dumps(record)


def test_bad_dynamic_options_are_found_before_anything_is_done(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "m.licq"
    for options, message in (
        (("--widths", "6"), "candidate widths are at least two from 2 to 16, not [6]"),
        (("--widths", "6,17"), "candidate widths"),
        (("--widths", "6;8"), "widths = '6;8': write for instance 6,8,10"),
        (("--widths", "6,8", "--gamma", "-1"), "--gamma -1: must be a finite number"),
        (("--widths", "6,8", "--gamma", "nan"), "--gamma nan: must be a finite number"),
        (("--widths", "6,8", "--bit-cost", "euros"), "bit_cost = 'euros': choose one of layers, bytes, bops, latency"),
        (("--widths", "6,8", "--bit-cost", "latency"), "--bit-cost latency needs --latency"),
        (("--widths", "6,8", "--budget", "bits=8"), "--widths and --budget: give one of them"),
        (("--widths", "6,8", "--act-bits", 8), "--widths and --act-bits"),
        (("--gamma", 1), "--gamma needs --widths"),
        (("--average-bits", 7), "--average-bits needs --widths"),
        (("--widths", "6,8", "--average-bits", 9), "average_bits = 9.0: must lie among the widths"),
        (("--widths", "6,8", "--average-bits", 7, "--gamma", 1), "give one of them"),
    ):
        assert message in fails(capsys, *words(place, output, *options))
    assert list(tmp_path.iterdir()) == []


def test_reproduce_draws_figure_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = run(capsys, "reproduce", "fig2", "-o", str(tmp_path / "new"))
    assert Image.open(tmp_path / "new" / "fig2.png").size[0] > 500
    slopes = record["slopes"]
    assert isinstance(slopes, dict)
    assert slopes["β = 2"] == pytest.approx([0.5514, 1.3130], abs=1e-4)
    assert "unknown result" in fails(capsys, "reproduce", "fig99", "-o", str(tmp_path))
