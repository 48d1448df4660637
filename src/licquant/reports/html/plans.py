"""What the models of a report are made of: widths and bytes of their layers, sensitivity, parts of coded files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from licquant.reports.html.markup import DASH, Html, figure, join, tag
from licquant.reports.html.tables import byte_bar, folded, heat_map, shares, table
from licquant.reports.sensitivity_table import KINDS

Record = Mapping[str, Any]


def widths(models: Sequence[Record]) -> Html:
    """A table for each curve: a row each layer, for each λ the widths and the bytes in the file."""
    tables: list[Html] = []
    for label, members in _by_label(models).items():
        headings: list[object] = ["layer", "operation"]
        for model in members:
            at = f"λ={model['lmbda']:g}"
            headings += [f"weights, {at}", f"activations, {at}", f"bytes, {at}"]
        operations = {layer["name"]: layer["operation"] for model in members for layer in model["layers"]}
        of_layers = [{layer["name"]: layer for layer in model["layers"]} for model in members]
        largest = max((layer["bytes"] for model in members for layer in model["layers"]), default=0) or 1
        rows = [
            [name, operation, *(cell for layers in of_layers for cell in _layer_cells(layers.get(name), largest))]
            for name, operation in operations.items()
        ]
        caption = f"{label}: bits and bytes of every layer"
        dynamic = any(model["widths_depend_on_the_image"] for model in members)
        note = tag("p", "Widths depend on the image; these are the widest.") if dynamic else Html()
        tables.append(folded(label, table(caption, headings, rows), note, shown=not tables))
    return join(*tables)


def _layer_cells(layer: Record | None, largest: int) -> list[object]:
    if layer is None:
        return [DASH] * 3
    of_widths = [DASH if layer[key] is None else str(layer[key]) for key in ("weight_bits", "activation_bits")]
    return [*of_widths, byte_bar(layer["bytes"] / largest, layer["bytes"])]


def _by_label(models: Sequence[Record]) -> dict[str, list[Record]]:
    found: dict[str, list[Record]] = {}
    for model in models:
        found.setdefault(model["label"], []).append(model)
    return found


def sensitivity(models: Sequence[Record]) -> Html:
    """The tables that are known, each once; a sentence where there is none."""
    found: dict[str, tuple[Record, list[str]]] = {}
    for model in models:
        if model["sensitivity"]:
            name = f"{model['label']}, λ = {model['lmbda']:g}"
            found.setdefault(json.dumps(model["sensitivity"], sort_keys=True), (model, []))[1].append(name)
    if not found:
        return tag(
            "p",
            "Not known: where the method that chose an artifact's widths measured it, a table stands beside it, "
            "its name ends in -zeta.json.",
        )
    maps: list[Html] = []
    for model, names in found.values():
        known = model["sensitivity"]
        panels = [
            heat_map(f"{kind}, λ = {known['lmbda']:g}: ζ in percent", known["layers"], known["bits"], known[kind])
            for kind in KINDS
            if any(value is not None for row in known[kind] for value in row)  # else there was nothing to choose
        ]
        maps.append(folded("; ".join(names), *panels, shown=not maps))
    return join(tag("p", "ζ: how much the RD loss grows where one layer alone is quantized, in percent."), *maps)


def sizes(models: Sequence[Record]) -> Html:
    """For each model what its file consists of, and what the files that it coded do on average."""
    found: list[Html] = []
    for model in models:
        parts: dict[str, int] = {}
        for layer in model["layers"]:
            parts[layer["part"]] = parts.get(layer["part"], 0) + layer["bytes"]
        parts["header and tables"] = model["bytes"] - sum(parts.values())
        bars = [shares(f"Artifact, {model['bytes']:,} bytes", parts)]
        if model["coded"]:
            bars.append(shares("Coded image, average over the images", model["coded"]))
        found.append(folded(f"{model['label']}, λ = {model['lmbda']:g}", *bars, shown=not found))
    return join(*found)


def chosen(evaluation: Record) -> Html:
    """Where widths depend on the image: those of each image."""
    found: list[Html] = []
    for curve in evaluation["curves"]:
        for point in (one for one in curve["points"] if one["choices"]):
            stages = list(point["choices"]["majority"])
            rows = [[image["name"], *(image["widths"].get(stage) for stage in stages)] for image in point["images"]]
            rows.append(["average", *(figure(point["choices"]["stage_bits"][stage], ".2f") for stage in stages)])
            name = f"{curve['label']}, λ = {point['lmbda']:g}"
            found.append(folded(name, table(f"Bits of each stage: {name}", ["image", *stages], rows), shown=not found))
    return join(*found)
