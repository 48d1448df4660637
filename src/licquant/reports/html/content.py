"""The page of a report, a pure function of its record (``record.py``): the same record gives the same page."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from string import Template
from typing import Any

from licquant import __version__
from licquant.reports.html import plans, viewer
from licquant.reports.html.charts import Axis, Mark, Series, chart
from licquant.reports.html.markup import Html, figure, join, tag, text
from licquant.reports.html.tables import facts, folded, table
from licquant.reports.report import RATE, REFERENCE_RATE

Record = Mapping[str, Any]

TITLE = "licquant: rate, quality and size"
_IMAGES_SHOWN = 200  # rows of one table


def page(record: Record) -> str:
    """The whole of ``index.html``. record: as ``record.report_record`` made it, or as its JSON reads."""
    sections = [(title, body) for title, body in _sections(record) if body]
    numbered = [(f"s{number}", title, body) for number, (title, body) in enumerate(sections, 1)]
    script = _part("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    values = {
        "generator": text(f"licquant {__version__}"),
        "title": text(TITLE),
        "style": _part("report.css"),
        "script": script,
        "script_hash": digest,
        "summary": _summary(record),
        "contents": join(*(tag("li", tag("a", title, href=f"#{name}")) for name, title, _ in numbered)),
        "sections": join(*(_section(name, title, body) for name, title, body in numbered)),
        "data": viewer.data(record),
    }
    return Template(_part("template.html")).substitute(values)


def _part(name: str) -> str:
    return resources.files("licquant.reports.html").joinpath("page", name).read_text(encoding="utf-8")


def _sections(record: Record) -> Iterator[tuple[str, Html]]:
    evaluation = record["evaluation"]
    yield "Against FP32", _comparisons(evaluation)
    yield "Rate and quality", _rate_and_quality(evaluation)
    yield "Loss against bytes", _losses(evaluation)
    yield "Images", viewer.viewer(record)
    yield "Plan: widths of every layer", plans.widths(record["models"])
    yield "Sensitivity", plans.sensitivity(record["models"])
    yield "What takes the bytes", plans.sizes(record["models"])
    yield "Widths chosen for each image", plans.chosen(evaluation)
    yield "Every image", _images(evaluation)
    yield "Left out", _missed(evaluation["provenance"].get("missed") or [])
    yield "Machine and versions", _environment(evaluation["provenance"])
    yield "Commands", _commands(record)


def _section(name: str, title: str, body: Html) -> Html:
    return tag("section", tag("h2", title, id=name), body, aria_labelledby=name)


def _summary(record: Record) -> Html:
    provenance = record["evaluation"]["provenance"]
    curves = len(record["evaluation"]["curves"])
    told = f"{curves} quantized {'curve' if curves == 1 else 'curves'}, {provenance.get('images')} images, real files"
    return tag("p", f"{told}; {provenance.get('time')}, licquant {provenance.get('versions', {}).get('licquant')}")


# --- curves -------------------------------------------------------------------------------------------------


def references(evaluation: Record) -> list[Record]:
    """The curves of the FP32 models; none if nothing was compared."""
    several = evaluation.get("references") or [evaluation["reference"]]
    return [one for one in several if one]


def _comparisons(evaluation: Record) -> Html:
    found = evaluation["comparisons"]
    lmbdas = sorted({lmbda for one in found for lmbda in one["rd_loss_change_percent"]}, key=float)
    headings = ["codec", "BD‑rate, PCHIP", "BD‑rate, cubic", *(f"RD loss, λ={lmbda}" for lmbda in lmbdas)]
    headings += ["model bytes", "of FP32", "bits per weight", "bits per layer", "activation bits", "encode", "decode"]
    rows = [
        [
            one["label"],
            *(figure(one[f"bd_rate_{method}_percent"], "+.2f", " %") for method in ("pchip", "cubic")),
            *(figure(one["rd_loss_change_percent"].get(lmbda), "+.2f", " %") for lmbda in lmbdas),
            figure(one["average_model_bytes"], ",.0f"),
            figure(one["average_model_percent"], ".2f", " %"),
            *(figure((one["average_bits"] or {}).get(key), ".2f") for key in ("weight", "weight_layer", "activation")),
            *(figure(one[f"median_{task}_ms"], ".0f", " ms") for task in ("encode", "decode")),
        ]
        for one in found
    ]
    note = "Averages over λ; times are medians over all images. A BD-rate needs a reference and four points of each."
    return join(table("Each codec against the FP32 model", headings, rows), tag("p", note)) if rows else Html()


def _rate_and_quality(evaluation: Record) -> Html:
    of_fp32 = references(evaluation)
    curves = [*((one, True) for one in of_fp32), *((one, False) for one in evaluation["curves"])]
    charts = []
    for key, axis, name in (
        ("psnr", "PSNR (RGB) / dB", "Rate and PSNR, averages over the images"),
        ("ms_ssim", "MS-SSIM", "Rate and MS-SSIM, averages over the images"),
    ):
        series = [Series(curve["label"], _rate_marks(curve, key), is_fp32) for curve, is_fp32 in curves]
        if key == "psnr" or any(one.marks for one in series):
            charts.append(chart(series, Axis("rate / bits per pixel"), Axis(axis), name))
    rows = [_point_row(curve["label"], point) for curve, _ in curves for point in curve["points"]]
    headings = ["codec", "λ", "bpp", "PSNR", "MS-SSIM", "RD loss", "model bytes"]
    note = f"{RATE}; {REFERENCE_RATE}." if of_fp32 else f"{RATE}."
    return join(*charts, table("Every point", headings, rows), tag("p", note))


def _rate_marks(curve: Record, key: str) -> list[Mark]:
    return [
        Mark(point["bpp"], point[key], _told(curve["label"], point))
        for point in curve["points"]
        if point["bpp"] is not None and point[key] is not None
    ]


def _told(label: str, point: Record) -> str:
    parts = [f"{label}, λ = {point['lmbda']:g}"]
    for key, form, unit in (("bpp", ".4f", " bpp"), ("psnr", ".3f", " dB"), ("ms_ssim", ".5f", " MS-SSIM")):
        parts += [f"{point[key]:{form}}{unit}"] if point[key] is not None else []
    parts += [f"model {point['model_bytes']:,} bytes"] if point["model_bytes"] else []
    return "; ".join(parts)


def _point_row(label: str, point: Record) -> list[object]:
    forms = (("bpp", ".4f"), ("psnr", ".3f"), ("ms_ssim", ".5f"), ("rd_loss", ".4f"), ("model_bytes", ",d"))
    return [label, figure(point["lmbda"], "g"), *(figure(point[key], form) for key, form in forms)]


def _losses(evaluation: Record) -> Html:
    """A chart for each λ at which several artifacts can be compared with FP32."""
    changes = {one["label"]: one["rd_loss_change_percent"] for one in evaluation["comparisons"]}
    found: dict[float, dict[str, list[Mark]]] = {}
    for curve in evaluation["curves"]:
        for point in curve["points"]:
            loss, size = changes[curve["label"]].get(f"{point['lmbda']:g}"), point["model_bytes"]
            if loss is not None and size is not None:
                told = f"{curve['label']}: {size:,} bytes; RD loss {loss:+.2f} %"
                of_method = found.setdefault(point["lmbda"], {}).setdefault(curve["method"] or curve["label"], [])
                of_method.append(Mark(size / 1e6, loss, told))
    charts = []
    for lmbda, methods in sorted(found.items()):
        losses = [mark.y for marks in methods.values() for mark in marks]
        if len(losses) > 1:
            far_apart = max(losses) > max(10, 10 * min(losses))
            axes = Axis("artifact / MB"), Axis("increase of the RD loss / %", logarithmic=far_apart)
            name = f"RD loss against the size of the artifact, λ = {lmbda:g}"
            charts.append(chart([Series(method, marks) for method, marks in methods.items()], *axes, name))
    return join(*charts)


# --- images, machine, commands ------------------------------------------------------------------------------


def _images(evaluation: Record) -> Html:
    """A table for each codec and λ."""
    found = []
    for curve in [*references(evaluation), *evaluation["curves"]]:
        for point in curve["points"]:
            images = point["images"]
            name = f"{curve['label']}, λ = {point['lmbda']:g}"
            rows = [_image_row(image) for image in images[:_IMAGES_SHOWN]]
            headings = ["image", "size", "bytes", "bpp", "PSNR", "MS-SSIM", "RD loss", "encode", "decode"]
            more = f"{_IMAGES_SHOWN} of {len(images)} are shown; all stand in report.json."
            left = tag("p", more) if len(images) > _IMAGES_SHOWN else Html()
            found.append(folded(name, table(f"Every image: {name}", headings, rows), left))
    return join(*found)


def _image_row(image: Record) -> list[object]:
    return [
        image["name"],
        f"{image['width']}×{image['height']}",
        figure(image["bytes"], ",d"),
        *(figure(image[key], form) for key, form in (("bpp", ".4f"), ("psnr", ".3f"), ("ms_ssim", ".5f"))),
        figure(image["rd_loss"], ".4f"),
        *(figure(1000 * image[f"{task}_seconds"], ".0f", " ms") for task in ("encode", "decode")),
    ]


def _missed(missed: Sequence[Record]) -> Html:
    """What ``licquant compare`` could not make."""
    rows = [[miss["method"], miss["budget"], figure(miss["lmbda"], "g"), miss["reason"]] for miss in missed]
    return table("Budgets that were not met", ["method", "budget", "λ", "why"], rows) if rows else Html()


def _environment(provenance: Record) -> Html:
    machine, versions = provenance.get("machine") or {}, provenance.get("versions") or {}
    ram = machine.get("memory_bytes")
    found: dict[str, object] = {
        "time": provenance.get("time"),
        "processor": machine.get("cpu"),
        "cores": machine.get("cores"),
        "memory of the machine": figure(ram / 2**30 if ram else None, ".1f", " GiB"),
        "system": machine.get("os"),
        "Python": machine.get("python"),
        **{name: version or "not installed" for name, version in versions.items()},
        "threads": provenance.get("threads") or "the libraries' choice",
        "commit": provenance.get("commit") or "not known",
    }
    hashes = {key: provenance.get(key) or [] for key in ("artifacts", "plans", "checkpoints")}
    lines = join(*(tag("p", f"{key}: {', '.join(map(str, of))}", class_="hash") for key, of in hashes.items() if of))
    return join(facts(found), folded("SHA-256 of artifacts, plans and checkpoints", lines))


def _commands(record: Record) -> Html:
    """Of this report, and of the artifacts, each as it tells."""
    made = [
        (f"{model['file']} ({model['label']}, λ = {model['lmbda']:g})", model["command"] or "not told by the artifact")
        for model in record["models"]
    ]
    told = join(*(join(tag("h3", name), tag("pre", tag("code", command), tabindex=0)) for name, command in made))
    note = "File names stand without their folders: results are published, folders are nobody's business."
    this = tag("pre", tag("code", record["command"]), tabindex=0)
    return join(tag("p", note), tag("h3", "This report"), this, told)
