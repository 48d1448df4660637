"""Sensitivity and loss against bytes: what is drawn; how it looks is for eyes."""

from pathlib import Path

import numpy as np
import pytest

from licquant.errors import DataError
from licquant.images import read_image
from licquant.reports.allocation_pictures import front, pareto, percent, zeta_heat_map

LAYERS, PARTS, BITS = ["g_a.0", "g_a.1", "g_s.0"], ["g_a", "g_a", "g_s"], [2, 4, 8]
ZETA = np.array([[12.0, 0.1, 1e-4], [0.5, 0.02, -1e-5], [np.nan, np.nan, np.nan]])
POINTS = {"uniform": [(2e6, 0.5), (4e6, 0.01)], "optimal": [(3e6, -0.001), (2e6, 0.1)]}


def test_heat_map(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        zeta_heat_map(tmp_path / name, LAYERS, PARTS, BITS, {"weights": ZETA, "activations": ZETA / 10})
    assert min(read_image(tmp_path / "a.png").shape[:2]) > 200
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    zeta_heat_map(tmp_path / "c.png", LAYERS[2:], PARTS[2:], BITS, {"weights": ZETA[2:]})  # nothing but NaN
    one = np.where(np.arange(len(BITS)) == 1, ZETA, np.nan)  # a width of which something is known
    zeta_heat_map(tmp_path / "d.png", LAYERS, PARTS, BITS, {"weights": ZETA, "activations": one})
    assert read_image(tmp_path / "d.png").shape[1] < read_image(tmp_path / "a.png").shape[1]
    zeta_heat_map(tmp_path / "e.png", LAYERS, PARTS, BITS, {"weights": ZETA, "activations": np.full_like(ZETA, np.nan)})
    zeta_heat_map(tmp_path / "f.png", LAYERS, PARTS, BITS, {"weights": ZETA})
    assert (tmp_path / "e.png").read_bytes() == (tmp_path / "f.png").read_bytes()  # no panel of nothing


def test_a_heat_map_needs_tables_that_fit(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no layers"):
        zeta_heat_map(tmp_path / "a.png", [], [], BITS, {"weights": ZETA[:0]})
    with pytest.raises(DataError, match="weights has shape"):
        zeta_heat_map(tmp_path / "a.png", LAYERS, PARTS, BITS, {"weights": ZETA[:2]})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("fraction", "text"),
    [
        (0.0123, "1.2"),
        (0.00123, ".12"),
        (0.00004, ".004"),
        (0.000004, "0"),
        (-0.00123, "-.12"),
        (0.1234, "12"),
        (3.14, "314"),
        (314.0, "3e4"),
        (0.00996, "1.0"),
        (float("inf"), "∞"),
    ],
)
def test_percent(fraction: float, text: str) -> None:
    assert percent(fraction) == text


def test_front() -> None:
    assert front([(3, 1.0), (1, 5.0), (2, 6.0), (3, 0.5), (4, 0.5)]) == [(1, 5.0), (3, 0.5)]


@pytest.mark.parametrize("curves", [POINTS, {"uniform": [(2e6, 0.0)]}, {"a": [(2e6, 0.01)], "b": [(2e6, 0.02)]}])
def test_pareto(tmp_path: Path, curves: dict[str, list[tuple[float, float]]]) -> None:
    pareto(tmp_path / "a.png", curves, 20_000_000)
    assert min(read_image(tmp_path / "a.png").shape[:2]) > 500


def test_pareto_needs_points(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no points"):
        pareto(tmp_path / "a.png", {"uniform": []}, 20_000_000)
