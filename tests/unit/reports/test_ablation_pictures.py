"""The picture of an ablation: what is drawn; how it looks is for eyes."""

from pathlib import Path

import pytest

from licquant.errors import DataError
from licquant.images import read_image
from licquant.reports.dynaquant_pictures import losses

ROWS = {"FPQ": {0.013: [3.1], 0.025: [4.0]}, "DPA": {0.013: [-0.2, 0.1, 0.3], 0.025: [0.4, 0.5, 0.6]}}


def test_losses(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        losses(tmp_path / name, ROWS, "table")
    assert min(read_image(tmp_path / "a.png").shape[:2]) > 200
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize("rows", [{}, {"FPQ": {}}])
def test_there_must_be_losses(tmp_path: Path, rows: dict[str, dict[float, list[float]]]) -> None:
    with pytest.raises(DataError, match="no losses"):
        losses(tmp_path / "a.png", rows, "table")
    assert list(tmp_path.iterdir()) == []
