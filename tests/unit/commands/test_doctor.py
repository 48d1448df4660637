"""What a report of a problem says of a machine."""

import json
import logging
import os
import platform
from pathlib import Path

import openvino
import pytest

import licquant
from licquant.commands import doctor
from licquant.commands.app import main
from licquant.errors import ArtifactError, EngineError
from licquant.program.self_test import KINDS

TEMPLATE = Path(__file__).parents[3] / ".github" / "ISSUE_TEMPLATE" / "bug-report.yml"


def finished(*words: str) -> None:
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert not stop.value.code


def found(capsys: pytest.CaptureFixture[str]) -> dict:
    finished("doctor", "--json")
    return json.loads(capsys.readouterr().out)


def test_what_is_told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    record = found(capsys)
    assert record["versions"]["openvino"]
    assert record["versions"]["pillow"]
    assert record["machine"]["python"] == platform.python_version()
    assert set(record["checks"]["kernels"]["int8"]) == set(KINDS)
    assert record["checks"]["embedded models"]["count"] == 4
    assert record["checks"]["round trip"]["bytes"] > 0
    assert record["environment"]["OMP_NUM_THREADS"] == "3"
    assert record["well"]


def test_no_folder_and_no_name_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LICQUANT_MODELS", str(tmp_path / "of-somebody"))
    monkeypatch.setattr(doctor, "load", lambda *_, **__: (tmp_path / "of-somebody").read_bytes())
    for words in (["doctor"], ["doctor", "--json"]):
        with pytest.raises(SystemExit) as stop:
            main(words)
        text = capsys.readouterr().out
        assert stop.value.code == 1
        assert "FileNotFoundError" in text
        assert "of-somebody" not in text
        assert "(set)" in text
        for private in (str(Path.home()), str(Path(licquant.__file__).parent), platform.node(), os.getcwd()):
            assert len(private) < 4 or private not in text


def test_a_damaged_model_is_told_without_its_folder(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    package = Path(licquant.__file__).parent

    def damaged(path: Path, **_: object) -> None:
        raise ArtifactError(f"{path}: damaged or truncated")

    monkeypatch.setattr(doctor, "load", damaged)
    with pytest.raises(SystemExit):
        main(["doctor"])
    text = capsys.readouterr().out
    assert "error licquant/assets/" in text.replace(os.sep, "/")
    assert str(package) not in text


def test_a_check_that_fails_hides_no_other(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise EngineError("kernels compute wrong sums")

    monkeypatch.setattr(doctor.openvino_engine, "machine", broken)
    with pytest.raises(SystemExit) as stop:
        main(["doctor"])
    text = capsys.readouterr().out
    assert stop.value.code == 1
    assert "FAILED  kernels: error kernels compute wrong sums" in text
    assert "well  embedded models" in text


def test_versions_of_the_engines(capsys: pytest.CaptureFixture[str]) -> None:
    finished("--version")
    text = capsys.readouterr().out
    assert text.startswith(f"licquant {licquant.__version__} (openvino ")
    assert openvino.__version__.partition("-")[0] in text
    assert text.count("\n") == 1


def test_reports_are_asked_for_it() -> None:
    yaml = pytest.importorskip("yaml")
    fields = {field["id"]: field for field in yaml.safe_load(TEMPLATE.read_text())["body"]}
    assert "`licquant doctor`" in fields["doctor"]["attributes"]["description"]
    assert fields["doctor"]["validations"]["required"]


def test_the_librarys_log_is_said_by_commands_alone(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In Python nothing is printed, unless somebody asks for the log."""
    log = logging.getLogger("licquant.cache")
    log.warning("of Python")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(doctor, "run", lambda: log.warning("of a command: %s", tmp_path) or doctor.Report({}))
    finished("doctor")
    assert capsys.readouterr().err == f"licquant: of a command: {tmp_path}\n"
    log.warning("of Python again")
    assert capsys.readouterr().err == ""
