"""Results as JSON for machines and as a table for people.

The JSON: ``schema`` (name and version; fields are only ever added to a version), ``provenance``,
``reference`` (a curve or null), ``curves``, ``comparisons``. A value that does not exist (MS-SSIM of a tiny
image, the PSNR of a lossless result) is null, because JSON has no NaN and no infinity.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from licquant.errors import DataError
from licquant.evaluate.codec_results import Curve, RatePoint
from licquant.images import write_atomically

SCHEMA = "licquant-evaluation/1"
AVERAGES = ("bpp", "mse", "psnr", "ms_ssim", "rd_loss", "encode_seconds", "decode_seconds")


# --- JSON ---------------------------------------------------------------------------------------------------


def write_report(
    path: str | Path, curves: Sequence[Curve], provenance: dict[str, Any], reference: Curve | None = None
) -> None:
    """``report_of`` as a JSON file, written whole or not at all (errors as ``images.write_atomically``)."""
    write_json(path, report_of(curves, provenance, reference))


def report_of(curves: Sequence[Curve], provenance: dict[str, Any], reference: Curve | None = None) -> dict[str, Any]:
    """Everything measured, JSON-ready; comparisons only where there is a reference."""
    return {
        "schema": SCHEMA,
        "provenance": provenance,
        "reference": _curve_record(reference) if reference else None,
        "curves": [_curve_record(curve) for curve in curves],
        "comparisons": [compare(curve, reference) for curve in curves] if reference else [],
    }


def write_json(path: str | Path, record: dict[str, Any]) -> None:
    """``record`` as indented JSON, NaN and infinities as null, written whole or not at all."""
    text = json.dumps(_finite(record), indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(path, text.encode() + b"\n")


def _curve_record(curve: Curve) -> dict[str, Any]:
    return {"label": curve.label, "points": [_point_record(point) for point in curve.points]}


def _point_record(point: RatePoint) -> dict[str, Any]:
    return {
        "label": point.label,
        "lmbda": point.lmbda,
        "model_bytes": point.model_bytes,
        **{name: getattr(point, name) for name in AVERAGES},
        "images": [asdict(image) for image in point.images],
    }


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


# --- against the reference ----------------------------------------------------------------------------------


def compare(curve: Curve, reference: Curve) -> dict[str, Any]:
    """The curve against the reference: per λ the change of the RD loss in percent, and the BD-rates in
    percent.

    BD-rates are None where they are not defined (fewer than four points, curves apart).
    """
    return {
        "label": curve.label,
        "rd_loss_change_percent": {
            f"{point.lmbda:g}": rd_loss_change(point, reference.at(point.lmbda)) for point in curve.points
        },
        "model_percent": {
            f"{point.lmbda:g}": model_percent(point, reference.at(point.lmbda)) for point in curve.points
        },
        "bd_rate_pchip_percent": _bd_rate(curve, reference, "pchip"),
        "bd_rate_cubic_percent": _bd_rate(curve, reference, "cubic"),
    }


def rd_loss_change(point: RatePoint, reference: RatePoint | None) -> float | None:
    """(J - J_reference)/J_reference in percent, ζ of the FMPQ paper; None without a reference at this λ."""
    return None if reference is None else 100 * (point.rd_loss - reference.rd_loss) / reference.rd_loss


def model_percent(point: RatePoint, reference: RatePoint | None) -> float | None:
    """Size of the artifact in percent of the FP32 parameters' bytes; None where either is unknown."""
    if reference is None or not reference.model_bytes or point.model_bytes is None:
        return None
    return 100 * point.model_bytes / reference.model_bytes


def _bd_rate(curve: Curve, reference: Curve, method: Any) -> float | None:
    try:
        return curve.bd_rate(reference, method)
    except DataError:
        return None


# --- table --------------------------------------------------------------------------------------------------


def results_table(curves: Sequence[Curve], reference: Curve | None = None, title: str | None = None) -> Table:
    """One row for each codec and λ, the reference first; below, BD-rates where they are defined."""
    table = Table(title=title, title_justify="left")
    table.add_column("codec", no_wrap=True)
    for heading in ("λ", "bpp", "PSNR dB", "MS-SSIM", "RD loss", "vs. FP32", "model bytes", "of FP32"):
        table.add_column(heading, justify="right", no_wrap=True)
    for curve in [reference, *curves] if reference else curves:
        for point in curve.points:
            against = reference.at(point.lmbda) if reference and curve is not reference else None
            table.add_row(*_row(point, against))
        table.add_section()
    captions = [_bd_rate_line(compare(curve, reference)) for curve in curves] if reference else []
    table.caption = "\n".join(line for line in captions if line) or None
    table.caption_justify = "left"
    return table


def _row(point: RatePoint, reference: RatePoint | None) -> tuple[str, ...]:
    return (
        point.label,
        f"{point.lmbda:g}",
        _number(point.bpp, ".4f"),
        _number(point.psnr, ".3f"),
        _number(point.ms_ssim, ".5f"),
        _number(point.rd_loss, ".4f"),
        _number(rd_loss_change(point, reference), "+.2f", " %"),
        _number(point.model_bytes, ",d"),
        _number(model_percent(point, reference), ".1f", " %"),
    )


def _number(value: float | None, form: str, unit: str = "") -> str:
    """The value formatted; an en dash where there is none."""
    return "–" if value is None or math.isnan(value) else f"{value:{form}}{unit}"


def _bd_rate_line(comparison: dict[str, Any]) -> str | None:
    if comparison["bd_rate_pchip_percent"] is None:
        return None
    pchip, cubic = (_number(comparison[f"bd_rate_{method}_percent"], "+.2f", " %") for method in ("pchip", "cubic"))
    return f"BD-rate of {comparison['label']}: {pchip} (PCHIP), {cubic} (cubic)"
