"""Results as JSON for machines and as tables for people.

The JSON: ``schema`` (name and version; fields are only ever added to a version), ``provenance``,
``reference`` (a curve or null), ``curves``, ``comparisons`` (one for each curve). A value that does not exist
(MS-SSIM of a tiny image, the PSNR of a lossless result) is null, because JSON has no NaN and no infinity. Where a
model's widths depend on the image, each image has its ``widths``, the point their ``choices``, and its ``bits`` are
averages over these images.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean, median
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from licquant.errors import DataError
from licquant.evaluate import widths
from licquant.evaluate.codec_results import Curve, RatePoint
from licquant.images import utf8, write_result
from licquant.terminal import show_table

SCHEMA = "licquant-evaluation/1"
# What is in a bpp, as the tables have it.
RATE = "bpp: 8 × all bytes of the coded file / pixels, averaged over the images: header, z, y and checksum"
REFERENCE_RATE = "of the FP32 model: of its strings z and y alone"
AVERAGES = ("bpp", "mse", "psnr", "ms_ssim", "rd_loss", "encode_seconds", "decode_seconds")


# --- JSON ---------------------------------------------------------------------------------------------------


def write_report(
    path: str | Path, curves: Sequence[Curve], provenance: dict[str, Any], reference: Curve | None = None
) -> None:
    """``report_of`` as a JSON file, written whole or not at all (errors as ``images.write_atomically``)."""
    write_json(path, report_of(curves, provenance, reference))


def report_of(curves: Sequence[Curve], provenance: dict[str, Any], reference: Curve | None = None) -> dict[str, Any]:
    """Everything measured, JSON-ready."""
    return {
        "schema": SCHEMA,
        "provenance": provenance,
        "reference": _curve_record(reference) if reference else None,
        "curves": [_curve_record(curve) for curve in curves],
        "comparisons": [compare(curve, reference) for curve in curves],
    }


def write_json(path: str | Path, record: dict[str, Any]) -> None:
    """``record`` as indented JSON, NaN and infinities as null, written whole or not at all."""
    text = json.dumps(finite(record), indent=2, ensure_ascii=False, allow_nan=False)
    write_result(path, utf8(text) + b"\n")


def _curve_record(curve: Curve) -> dict[str, Any]:
    return {"label": curve.label, "method": curve.method, "points": [_point_record(point) for point in curve.points]}


def _point_record(point: RatePoint) -> dict[str, Any]:
    return {
        "label": point.label,
        "lmbda": point.lmbda,
        "model_bytes": point.model_bytes,
        "bits": asdict(point.bits) if point.bits else None,
        "bops_per_pixel": point.bops,
        "choices": widths.summary(point.choices) if point.choices else None,
        **{name: getattr(point, name) for name in AVERAGES},
        "images": [asdict(image) for image in point.images],
    }


def finite(value: Any) -> Any:
    """The same with None for NaN and infinity, which JSON has not, and lists for tuples."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


# --- against the reference ----------------------------------------------------------------------------------


def compare(curve: Curve, reference: Curve | None) -> dict[str, Any]:
    """The curve against the reference: per λ the change of the RD loss and the size of the model, in percent,
    and the BD-rates in percent; beside them averages over λ of bytes and of widths (bits), and the medians over
    all images of the times (ms), which a slow first run does not move.

    What is not defined is None: BD-rates of fewer than four points or of curves apart, percentages without a
    reference.
    """
    points = curve.points
    against = [(point, reference.at(point.lmbda) if reference else None) for point in points]
    shares = [share for point, other in against if (share := model_percent(point, other)) is not None]
    sizes = [point.model_bytes for point in points if point.model_bytes is not None]
    bits = [asdict(point.bits) for point in points if point.bits]
    images = [image for point in points for image in point.images]
    return {
        "label": curve.label,
        "rd_loss_change_percent": {f"{point.lmbda:g}": rd_loss_change(point, other) for point, other in against},
        "model_percent": {f"{point.lmbda:g}": model_percent(point, other) for point, other in against},
        "bd_rate_pchip_percent": _bd_rate(curve, reference, "pchip"),
        "bd_rate_cubic_percent": _bd_rate(curve, reference, "cubic"),
        "average_model_bytes": fmean(sizes) if sizes else None,
        "average_model_percent": fmean(shares) if shares else None,
        "average_bits": {key: fmean(each[key] for each in bits) for key in bits[0]} if bits else None,
        "median_encode_ms": 1000 * median(image.encode_seconds for image in images),
        "median_decode_ms": 1000 * median(image.decode_seconds for image in images),
    }


def rd_loss_change(point: RatePoint, reference: RatePoint | None) -> float | None:
    """(J - J_reference)/J_reference in percent, ζ of the FMPQ paper; None without a reference at this λ."""
    return None if reference is None else 100 * (point.rd_loss - reference.rd_loss) / reference.rd_loss


def losses_by_bytes(curves: Sequence[Curve], reference: Curve, lmbda: float) -> dict[str, list[tuple[float, float]]]:
    """Method → (bytes of the artifact, relative change of the RD loss) of each of its curves, at one λ."""
    found: dict[str, list[tuple[float, float]]] = {}
    for curve in curves:
        point, other = curve.at(lmbda), reference.at(lmbda)
        if point and other and point.model_bytes is not None:
            change = (point.rd_loss - other.rd_loss) / other.rd_loss
            found.setdefault(curve.method or curve.label, []).append((point.model_bytes, change))
    return found


def model_percent(point: RatePoint, reference: RatePoint | None) -> float | None:
    """Size of the artifact in percent of the FP32 parameters' bytes; None where either is unknown."""
    if reference is None or not reference.model_bytes or point.model_bytes is None:
        return None
    return 100 * point.model_bytes / reference.model_bytes


def _bd_rate(curve: Curve, reference: Curve | None, method: Any) -> float | None:
    try:
        return curve.bd_rate(reference, method) if reference else None
    except DataError:
        return None


# --- tables -------------------------------------------------------------------------------------------------


def results_table(curves: Sequence[Curve], reference: Curve | None = None, title: str | None = None) -> Table:
    """One row for each codec and λ, the reference first."""
    table = Table(title=title, title_justify="left")
    table.add_column("codec", no_wrap=True)
    for heading in ("λ", "bpp", "PSNR dB", "MS-SSIM", "RD loss", "vs. FP32", "model bytes", "of FP32"):
        table.add_column(heading, justify="right", no_wrap=True)
    for curve in [reference, *curves] if reference else curves:
        for point in curve.points:
            against = reference.at(point.lmbda) if reference and curve is not reference else None
            table.add_row(*_row(point, against))
        table.add_section()
    return table


def comparison_table(curves: Sequence[Curve], reference: Curve | None = None) -> Table:
    """One row for each curve: what ``compare`` says of it; an en dash for what is not defined."""
    lmbdas = sorted({f"{point.lmbda:g}" for curve in curves for point in curve.points}, key=float)
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("codec\n", no_wrap=True)
    headings = ["model\nbytes", "of FP32\n%", "bits per\nweight", "bits per\nlayer", "act.\nbits"]
    headings += [f"RD loss %\nλ={lmbda}" for lmbda in lmbdas]
    headings += ["BD-rate %\nPCHIP", "BD-rate %\ncubic", "encode\nms", "decode\nms"]
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for curve in curves:
        found = compare(curve, reference)
        bits = found["average_bits"] or {}
        table.add_row(
            found["label"],
            _number(found["average_model_bytes"], ",.0f"),
            _number(found["average_model_percent"], ".2f"),
            *(_number(bits.get(key), ".2f") for key in ("weight", "weight_layer", "activation")),
            *(_number(found["rd_loss_change_percent"].get(lmbda), "+.2f") for lmbda in lmbdas),
            *(_number(found[f"bd_rate_{method}_percent"], "+.2f") for method in ("pchip", "cubic")),
            *(_number(found[f"median_{task}_ms"], ".0f") for task in ("encode", "decode")),
        )
    return table


def print_table(table: Table) -> None:
    """On standard output, as wide as it has to be: a table that is cut has lost figures."""
    show_table(table, least=120)


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
