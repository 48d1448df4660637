"""The image slider: two versions of a picture with a divider between them. Its script needs the data below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from licquant.reports.html.markup import Html, embedded_json, join, tag

Record = Mapping[str, Any]

ORIGINAL = "original"


def picture_file(image: int, version: int) -> str:
    """Its name in the report: numbers, so that nobody's file name is part of it."""
    return f"images/{image}-{version}.png"


def viewer(record: Record) -> Html:
    """Selects, picture and captions of the first image; the script does the rest. Empty without samples."""
    samples = record["samples"]
    images, versions = samples["images"], samples["versions"]
    if not images:
        return Html()
    last = len(versions) - 1
    first = images[0]
    names = [version_name(version) for version in versions]
    size = {"width": first["crop"]["width"], "height": first["crop"]["height"]}
    pictures = join(
        tag("img", src=picture_file(0, last), alt=_alt(first, names[last]), class_="right", **size),
        tag("img", src=picture_file(0, 0), alt=_alt(first, names[0]), class_="left", **size),
        tag("span", class_="divider", aria_hidden="true"),
    )
    controls = join(
        _select("image", "Image", [image["name"] for image in images], 0),
        _select("left", "Left", names, 0),
        _select("right", "Right", names, last),
        _select("zoom", "Zoom", ["fit", "1 ×", "2 ×", "4 ×", "8 ×"], 0),
        tag("label", tag("input", type="checkbox", id="difference"), "Difference, 8 × enlarged", for_="difference"),
    )
    slider = tag("input", type="range", id="place", min=0, max=100, step=1, value=50)
    stage = tag("div", pictures, id="stage", style="--place:50%")
    return join(
        tag("div", controls, class_="controls"),
        tag("div", stage, id="window", tabindex=0, role="region", aria_label="Picture, scrolls when zoomed"),
        tag("label", "Divider between left and right", slider, class_="place", for_="place"),
        tag("p", id="compared", aria_live="polite"),
        tag("p", samples["limits"]),
    )


def version_name(version: Record) -> str:
    """As the selects have it, λ first: they may be too narrow for all of it."""
    return version["label"] if version["lmbda"] is None else f"λ = {version['lmbda']:g}, {version['label']}"


def data(record: Record) -> Html:
    """What the script needs to know: sizes, names, and what was measured of each whole image."""
    samples = record["samples"]
    curves = [record["evaluation"]["reference"], *record["evaluation"].get("references", [])]
    points = {
        (curve["label"], f"{point['lmbda']:g}"): point
        for curve in [*curves, *record["evaluation"]["curves"]]
        if curve
        for point in curve["points"]
    }
    told = [
        {
            "name": image["name"],
            **image["crop"],
            "measured": [_measured(points, version, image["index"]) for version in samples["versions"]],
        }
        for image in samples["images"]
    ]
    return embedded_json("samples", {"images": told, "versions": [version_name(one) for one in samples["versions"]]})


def _measured(points: Mapping[tuple[str, str], Record], version: Record, index: int) -> str:
    if version["lmbda"] is None:
        return ""
    image = points[version["label"], f"{version['lmbda']:g}"]["images"][index]
    quality = "" if image["psnr"] is None else f", {image['psnr']:.2f} dB"
    return f"{image['bpp']:.3f} bpp{quality}"


def _alt(image: Record, version: str) -> str:
    return f"{image['name']}, {version}"


def _select(name: str, label: str, options: Sequence[str], chosen: int) -> Html:
    listed = (tag("option", option, value=number, selected=number == chosen) for number, option in enumerate(options))
    return tag("label", tag("span", label), tag("select", *listed, id=name), for_=name)
