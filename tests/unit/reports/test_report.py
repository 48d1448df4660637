"""Reports: what stands in the JSON, and what in the table."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from licquant.evaluate.codec_results import AverageBits, Curve
from licquant.reports import report
from tests.unit.evaluate.curves import POINTS, curve


def printed(table: object) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined]


def row_of(label: str, table: object) -> list[str]:
    """The cells of the row that begins with ``label``."""
    (line,) = [line for line in map(str.strip, printed(table).splitlines()) if line.startswith(label)]
    return line.removeprefix(label).split()


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
    row = row_of("8 bits", report.comparison_table([curve("8 bits", count=3)], curve("FP32", count=3)))
    assert row[-4:-2] == ["–", "–"]


def test_without_reference_nothing_is_relative() -> None:
    record = report.report_of([curve("8 bits")], {})
    assert record["reference"] is None
    (comparison,) = record["comparisons"]
    assert comparison["bd_rate_pchip_percent"] is None
    assert comparison["average_model_percent"] is None
    assert set(comparison["rd_loss_change_percent"].values()) == {None}
    assert comparison["average_model_bytes"] == 20_000_000
    assert "8 bits" in printed(report.results_table([curve("8 bits")]))


def test_the_table_holds_the_figures() -> None:
    text = printed(report.results_table([curve("8 bits", 0.1, model_bytes=4_000_000)], curve("FP32")))
    assert "FP32" in text
    assert "0.4400" in text
    assert "4,000,000" in text
    assert "20.0 %" in text
    assert "–" in text  # MS-SSIM of a small image


def test_one_row_compares_a_curve() -> None:
    points = curve("fmpq", 0.1, model_bytes=4_000_000).points
    tested = Curve("fmpq", tuple(replace(point, bits=AverageBits(5.25, 6, 7.5)) for point in points), "fmpq")
    row = row_of("fmpq", report.comparison_table([tested], curve("FP32")))
    losses = [f"{report.rd_loss_change(*pair):+.2f}" for pair in zip(points, curve("FP32").points, strict=True)]
    assert row == ["4,000,000", "20.00", "5.25", "6.00", "7.50", *losses, "+10.00", "+10.00", "300", "200"]


def test_losses_against_bytes_are_joined_by_method() -> None:
    curves = [
        Curve(label, curve(label, more, model_bytes=size).points, "fmpq")
        for label, more, size in (("fmpq size=0.2", 0.1, 4_000_000), ("fmpq size=0.3", 0.0, 6_000_000))
    ]
    found = report.losses_by_bytes([*curves, curve("other")], curve("FP32"), 0.013)
    loss = report.rd_loss_change(curves[0].points[1], curve("FP32").points[1])
    assert list(found) == ["fmpq", "other"]
    assert found["fmpq"] == [(4_000_000, pytest.approx(loss / 100)), (6_000_000, 0)]
    assert report.losses_by_bytes(curves, curve("FP32"), 0.5) == {}
