"""Pictures are written, readable as images, and equal for equal input; how they look is for eyes."""

from pathlib import Path

import numpy as np
import pytest

from licquant.errors import DataError
from licquant.images import read_image
from licquant.reports import pictures
from tests.unit.evaluate.curves import curve

LAYERS = [
    pictures.LayerSize("g_a.0", "g_a", 8, 8, 9_000, 38_400),
    pictures.LayerSize("g_a.1", "g_a", 6, 10, 12_000, 66_000),
    pictures.LayerSize("h_s.0", "h_s", 8, 8, 300_000, 1_638_400),
]


def test_rd_curves(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        pictures.rd_curves(tmp_path / name, [curve("8 bits", 0.1)], curve("FP32"))
    assert min(read_image(tmp_path / "a.png").shape[:2]) > 500
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_single_point_is_drawn(tmp_path: Path) -> None:
    pictures.rd_curves(tmp_path / "a.svg", [curve("8 bits", count=1)])
    assert (tmp_path / "a.svg").stat().st_size > 0


def test_nothing_is_not_drawn(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no curves"):
        pictures.rd_curves(tmp_path / "a.svg", [])


def test_layer_bars(tmp_path: Path) -> None:
    pictures.layer_bars(tmp_path / "a.png", LAYERS)
    assert min(read_image(tmp_path / "a.png").shape[:2]) > 500
    with pytest.raises(DataError, match="no layers"):
        pictures.layer_bars(tmp_path / "b.png", [])


@pytest.mark.parametrize("shape", [(64, 96, 3), (96, 64, 3), (1, 1, 3)])
def test_side_by_side(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    original = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    pictures.side_by_side(tmp_path / "a.png", original, original, original + 1)
    assert read_image(tmp_path / "a.png").size > 0


def test_an_unknown_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"\.png, \.svg or \.pdf"):
        pictures.layer_bars(tmp_path / "a.xyz", LAYERS)
    assert list(tmp_path.iterdir()) == []
