"""The folder of a report: written whole or not at all, and never in place of anything but a report."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from licquant.errors import LicquantError
from licquant.reports.html import folder as folder_module
from licquant.reports.html.folder import check_report_place, write_report
from tests.unit.evaluate.curves import curve
from tests.unit.reports.test_html_report import minimal

RECORD = {"schema": "licquant-report/1", **minimal([curve("8 bits")], curve("FP32"))}
PICTURES = {"images/0-0.png": np.zeros((4, 5, 3), np.uint8)}


def written(place: Path) -> list[str]:
    return sorted(path.relative_to(place).as_posix() for path in place.rglob("*"))


def test_a_report_takes_the_place_of_a_report(tmp_path: Path) -> None:
    place = tmp_path / "report"
    check_report_place(place)
    assert not place.exists()
    write_report(place, RECORD, PICTURES | {"images/1-0.png": PICTURES["images/0-0.png"]})
    check_report_place(place)
    write_report(place, RECORD, PICTURES)
    assert written(place) == ["images", "images/0-0.png", "index.html", "report.json"]
    assert json.loads((place / "report.json").read_text(encoding="utf-8")) == RECORD
    assert written(tmp_path)[0] == "report"
    assert len(list(tmp_path.iterdir())) == 1


def test_an_empty_folder_and_a_link_to_one(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    write_report(tmp_path / "link", RECORD, {})
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there" / "index.html").is_file()


@pytest.mark.parametrize("what", ["notes.txt", "images/holiday.png", "index.html/x", ".hidden", "index.html"])
def test_what_is_no_report_stays(tmp_path: Path, what: str) -> None:
    place = tmp_path / "mine"
    (place / what).parent.mkdir(parents=True)
    (place / what).write_text("mine")
    for refuse in (lambda: check_report_place(place), lambda: write_report(place, RECORD, PICTURES)):
        with pytest.raises(LicquantError, match="not a report, so it stays") as caught:
            refuse()
        assert "\n" not in str(caught.value)
    assert (place / what).read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_report_with_something_else_in_it_stays(tmp_path: Path) -> None:
    write_report(tmp_path / "report", RECORD, {})
    (tmp_path / "report" / "notes.txt").write_text("mine")
    with pytest.raises(LicquantError, match=r"holds notes\.txt"):
        check_report_place(tmp_path / "report")
    (tmp_path / "report" / "notes.txt").unlink()
    for content in ("{}", "[]", "no JSON", "[" * 100_000, '{"schema": "licquant-evaluation/1"}'):
        (tmp_path / "report" / "report.json").write_text(content)
        with pytest.raises(LicquantError, match="not one of licquant's"):
            check_report_place(tmp_path / "report")


def test_places_that_cannot_be_reports(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(LicquantError, match="not a folder"):
        check_report_place(tmp_path / "file")
    with pytest.raises(LicquantError, match="no such folder"):
        check_report_place(tmp_path / "absent" / "report")
    for results in (tmp_path / "report" / "r.json", tmp_path / "report" / "deep" / "r.json", tmp_path / "report"):
        with pytest.raises(LicquantError, match="a folder of its own"):
            check_report_place(tmp_path / "report", results)
    check_report_place(tmp_path / "report", tmp_path / "report.json")
    with pytest.raises(LicquantError):
        check_report_place(tmp_path / ("n" * 300))
    with pytest.raises(LicquantError):
        check_report_place(tmp_path / "a\0b")


@pytest.mark.parametrize("step", ["page", "write_image", "_put_in_place"])
def test_what_fails_leaves_the_old_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    place = tmp_path / "report"
    write_report(place, RECORD, PICTURES)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder_module, step, full)
    with pytest.raises(LicquantError, match="No space left"):
        write_report(place, {**RECORD, "command": "another"}, PICTURES)
    assert json.loads((place / "report.json").read_text(encoding="utf-8"))["command"] == "licquant evaluate"
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_a_rename_that_fails_puts_the_old_report_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "report"
    write_report(place, RECORD, PICTURES)
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if target == place and (self / "index.html").read_text(encoding="utf-8").count("another"):
            raise OSError(13, "Permission denied")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(LicquantError, match="Permission denied"):
        write_report(place, {**RECORD, "command": "another"}, PICTURES)
    assert json.loads((place / "report.json").read_text(encoding="utf-8"))["command"] == "licquant evaluate"
    assert [path.name for path in tmp_path.iterdir()] == ["report"]
    shutil.rmtree(place)
