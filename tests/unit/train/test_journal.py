"""The log: its columns, what a picture needs, and a folder that cannot be written."""

import sys
from pathlib import Path

import pytest
from PIL import Image

from licquant.errors import TrainingError
from licquant.train.loop import Journal

MEANS = [2.5, 0.5, 1e-3, 1200.0, 3.0]  # loss, bpp, distortion, auxiliary, gradient


def test_a_row_has_every_column(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "log.csv")
    journal.add(50, 1e-4, 128, MEANS)
    journal.write()
    expected = [50, 1e-4, 128, 2.5, 0.5, 1e-3, pytest.approx(30), 1200, 3]
    assert (tmp_path / "log.csv").read_text().splitlines()[
        0
    ] == "step,learning_rate,crop,loss,bpp,distortion,quality_db,auxiliary,gradient"
    assert journal.last_row() == dict(zip(journal.columns, expected, strict=True))
    assert journal.rows() == [journal.last_row()]


def test_other_figures_have_columns_of_their_own(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "log.csv", figures=("loss", "bits", "bpp", "distortion", "gradient"))
    journal.add(50, 1e-4, 128, [2.5, 6.2, 0.5, 1e-2, 3.0])
    assert journal.text.splitlines()[0] == "step,learning_rate,crop,loss,bits,bpp,distortion,quality_db,gradient"
    assert journal.last_row()["bits"] == 6.2
    assert journal.last_row()["quality_db"] == pytest.approx(20)


def test_a_perfect_reconstruction_can_be_logged(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "log.csv")
    journal.add(1, 1e-4, 128, [0.5, 0.5, 0.0, 0.0, 0.0])
    assert journal.last_row()["quality_db"] == pytest.approx(120)


@pytest.mark.parametrize("rows", [0, 3])
def test_the_picture_is_drawn_for_any_number_of_rows(tmp_path: Path, rows: int) -> None:
    journal = Journal(tmp_path / "log.csv")
    for step in range(rows):
        journal.add(step, 1e-4, 128, MEANS)
    assert journal.draw(tmp_path / "log.png", "a model")
    assert Image.open(tmp_path / "log.png").size == (1000, 320)


def test_without_matplotlib_there_is_no_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert not Journal(tmp_path / "log.csv").draw(tmp_path / "log.png", "a model")
    assert not (tmp_path / "log.png").exists()


def test_a_folder_that_is_gone_is_said(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="cannot be written"):
        Journal(tmp_path / "nowhere" / "log.csv").write()
