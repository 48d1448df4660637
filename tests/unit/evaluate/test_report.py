"""Reports: what stands in the JSON, and what in the table."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from licquant.evaluate import report
from tests.unit.evaluate.curves import POINTS, curve


def printed(table: object) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_report_is_json_with_nulls_for_what_does_not_exist(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    report.write_report(path, [curve("8 bits", 0.1)], {"commit": None}, curve("FP32"))
    record = json.loads(path.read_text(encoding="utf-8"))
    assert record["schema"] == "licquant-evaluation/1"
    assert record["provenance"] == {"commit": None}
    point = record["curves"][0]["points"][0]
    assert point["bpp"] == pytest.approx(0.44)
    assert point["ms_ssim"] is None
    assert point["images"][0]["name"] == "a.png"
    assert len(record["reference"]["points"]) == 4


def test_comparisons_against_the_reference() -> None:
    comparison = report.compare(curve("8 bits", 0.1, model_bytes=4_000_000), curve("FP32"))
    assert comparison["bd_rate_pchip_percent"] == pytest.approx(10)
    assert comparison["bd_rate_cubic_percent"] == pytest.approx(10)
    assert comparison["model_percent"]["0.013"] == pytest.approx(20)
    rate, quality = POINTS[0.013]
    loss = rate + 0.013 * 255**2 * 10 ** (-quality / 10)
    assert comparison["rd_loss_change_percent"]["0.013"] == pytest.approx(100 * 0.1 * rate / loss)


def test_three_points_have_no_bd_rate() -> None:
    comparison = report.compare(curve("8 bits", 0.1, count=3), curve("FP32", count=3))
    assert comparison["bd_rate_pchip_percent"] is None
    assert "BD-rate" not in printed(report.results_table([curve("8 bits", count=3)], curve("FP32", count=3)))


def test_without_reference_there_are_no_comparisons() -> None:
    assert report.report_of([curve("8 bits")], {})["comparisons"] == []
    assert report.report_of([curve("8 bits")], {})["reference"] is None
    assert "8 bits" in printed(report.results_table([curve("8 bits")]))


def test_the_table_holds_the_figures() -> None:
    text = printed(report.results_table([curve("8 bits", 0.1, model_bytes=4_000_000)], curve("FP32")))
    assert "FP32" in text
    assert "0.4400" in text
    assert "4,000,000" in text
    assert "20.0 %" in text
    assert "–" in text  # MS-SSIM of a small image
    assert "BD-rate of 8 bits: +10.00 % (PCHIP), +10.00 % (cubic)" in text
