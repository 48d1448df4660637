"""A curve of points that were measured apart."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.separate_points import KODAK, bd, pairs
from licquant.errors import DataError

LAMBDAS = (0.0067, 0.013, 0.025, 0.0483)
CARDS = [
    {"lmbda": lmbda, "kodak": {"bpp_real_strings": 0.2 * 2**k, "psnr_mean": 30.0 + k, "rd_loss": 1.0 + k}}
    for k, lmbda in enumerate(LAMBDAS)
]


def evaluation(folder: Path, k: int, **changed: Any) -> Path:
    """A file with one point: a tenth more bits than the FP32 model, the same PSNR."""
    point = {
        "lmbda": LAMBDAS[k],
        "bpp": 0.22 * 2**k,
        "psnr": 30.0 + k,
        "rd_loss": 1.02 * (1 + k),
        "model_bytes": 1000,
        "bits": {"weight_layer": 7.5},
        "images": [{"name": name} for name in sorted(KODAK)],
    }
    record = {"schema": "licquant-evaluation/1", "reference": None, "curves": [{"points": [point]}]} | changed
    path = folder / f"{k}.json"
    path.write_text(json.dumps(record), encoding="utf-8")
    return path


def test_the_points_make_a_curve_in_any_order(tmp_path: Path) -> None:
    found = pairs([evaluation(tmp_path, k) for k in (2, 0, 3, 1)], CARDS)
    assert [pair.lmbda for pair in found] == list(LAMBDAS)
    assert [pair.increase for pair in found] == pytest.approx([2.0] * 4)
    assert bd(found) == pytest.approx(10.0)


def test_an_fp32_model_of_the_same_file_comes_before_the_card(tmp_path: Path) -> None:
    beside = {"points": [{"lmbda": LAMBDAS[0], "bpp": 0.5, "psnr": 31.0, "rd_loss": 0.51}]}
    (pair,) = pairs([evaluation(tmp_path, 0, reference=beside)], CARDS)
    assert pair.fp32.bpp == 0.5
    assert pair.increase == pytest.approx(100.0)


@pytest.mark.parametrize(
    ("changed", "cards", "message"),
    [
        ({"schema": "other"}, CARDS, "not the result of licquant evaluate"),
        ({"curves": []}, CARDS, "0 curves"),
        ({}, CARDS[1:], "no card of --model"),
    ],
)
def test_what_is_no_point_of_the_curve_is_said(
    tmp_path: Path, changed: dict[str, Any], cards: list[dict[str, Any]], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        pairs([evaluation(tmp_path, 0, **changed)], cards)


def test_a_card_holds_for_kodak_alone(tmp_path: Path) -> None:
    path = evaluation(tmp_path, 0)
    path.write_text(path.read_text(encoding="utf-8").replace("kodim24.png", "mine.png"), encoding="utf-8")
    with pytest.raises(DataError, match="24 Kodak images"):
        pairs([path], CARDS)


def test_a_lambda_twice_and_no_json_are_said(tmp_path: Path) -> None:
    path = evaluation(tmp_path, 0)
    with pytest.raises(DataError, match="each λ once"):
        pairs([path, path], CARDS)
    path.write_text("# no JSON", encoding="utf-8")
    with pytest.raises(DataError, match="not JSON"):
        pairs([path], CARDS)
