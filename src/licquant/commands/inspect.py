"""``licquant inspect``: what is in a file. Needs no training stack."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from licquant.codec.codec import Codec, load
from licquant.codec.files.artifact import Artifact, artifact_id, read_artifact_bytes
from licquant.codec.files.bitstream import FIELD_KINDS, Bitstream
from licquant.codec.files.contents import LayerContents, SelectorContents, layer_contents, selector_contents
from licquant.commands.base import Report, read_file, synthesis_widths
from licquant.commands.file_lists import distinct_names, images_meant
from licquant.commands.model_search import lookup
from licquant.errors import ArtifactError, LicquantError
from licquant.evaluate import widths
from licquant.evaluate.bops import average_bops, macs_per_pixel
from licquant.images import read_image
from licquant.program import openvino_engine
from licquant.terminal import say, show_table


def inspect(file: Path | None, model: Path | None, images: Sequence[Path] = ()) -> Report:
    """Tells a model from a coded image by its first bytes.

    model:  of a coded image, to tell the widths chosen for it
    images: files and folders, to tell the widths that a model chooses for each
    """
    if file is None:
        raise LicquantError("inspect needs a file, or --machine")
    data = read_file(file)
    if data.startswith(b"LICI"):
        if images:
            raise LicquantError(f"{file}: a coded image; --images is for a model (.licq)")
        return _inspect_image(file, data, {} if model is None else synthesis_widths(load(model), data), model)
    if data.startswith(b"LICQ"):
        return _inspect_model(file, images)
    raise LicquantError(f"{file}: neither a licquant model (.licq) nor a coded image (.lic)")


def machine() -> Report:
    """What this machine's kernels compute, and which are used; ``EngineError`` where none are right."""
    found = openvino_engine.machine()
    sums = {kind: sums.value for kind, sums in found.sums().items()}
    record: dict[str, Any] = {
        "kind": "machine",
        **openvino_engine.description(),
        "int8": sums,
        "used": found.used,
        "self_test_ms": 1000 * found.seconds,
    }

    def show() -> None:
        say(f"{record['cpu']}, {platform.machine()}, OpenVINO {record['openvino']}")
        for name, what in sums.items():
            say(f"INT8 {name}: {what}")
        say(f"used: {record['used']} (self-test: {record['self_test_ms']:.0f} ms)")

    return Report(record, show)


def _inspect_image(file: Path, data: bytes, chosen: Mapping[str, int], model: Path | None) -> Report:
    """model: its own, if it was named"""
    stream, size = Bitstream.from_bytes(data), len(data)
    lengths = [len(string) for string in stream.strings]
    pixels = stream.width * stream.height
    found = model or lookup(stream.artifact_id, file.parent)
    record: dict[str, Any] = {
        "kind": "coded image",
        "bytes": size,
        "width": stream.width,
        "height": stream.height,
        "bpp": 8 * size / pixels,
        "bpp_of_strings": 8 * sum(lengths) / pixels,
        "header_bytes": size - sum(lengths),
        "z_bytes": lengths[0] if len(lengths) > 1 else 0,
        "y_bytes": sum(lengths[1:] if len(lengths) > 1 else lengths),
        "artifact": stream.artifact_id.hex(),
        "fields": {name: len(stream.fields[kind]) for name, kind in FIELD_KINDS.items() if kind in stream.fields},
        "model": None if found is None else str(found),
        "strings": lengths,
        "widths": dict(chosen),
    }

    def show() -> None:
        say(
            "coded image, {width}×{height}, {bytes:,} bytes: header {header_bytes:,}, z {z_bytes:,}, y {y_bytes:,}\n"
            "{bpp:.4f} bits per pixel, {bpp_of_strings:.4f} without the header".format(**record)
        )
        say(f"model {record['artifact']}: {record['model'] or 'not among those here'}")
        if record["fields"]:
            beside = ", ".join(f"{name} {n:,}" for name, n in record["fields"].items())
            say(f"beside the strings, in bytes: {beside}")
        if chosen:
            listed = ", ".join(f"{stage} {bits}" for stage, bits in chosen.items())
            say(f"decoded with widths in bits: {listed}")

    return Report(record, show)


def _inspect_model(file: Path, images: Sequence[Path]) -> Report:
    data = read_artifact_bytes(file)
    try:
        artifact = Artifact.from_bytes(data)
    except ArtifactError as error:
        raise ArtifactError(f"{file}: {error}") from error
    layers, selectors = layer_contents(data, artifact), selector_contents(data, artifact)
    stages = widths.stage_of_layer(artifact)
    several = {stage: list(of) for selector in selectors for stage, of in selector.stages.items()}
    candidates = {layer: several[stage] for layer, stage in stages.items() if stage in several}
    chosen = _chosen(Codec(artifact, artifact_id(data)), file, images) if images else {}
    choosing = [layer for layer in layers if layer.name in stages]
    found, of_choosing = (
        widths.average_bits_over(of, stages, list(chosen.values())) if chosen else None for of in (layers, choosing)
    )
    macs = macs_per_pixel(artifact.program)
    bops = average_bops(macs, layers, stages, list(chosen.values()))
    record: dict[str, Any] = {
        "kind": "model",
        "artifact": artifact_id(data).hex(),
        "family": artifact.family,
        "bytes": len(data),
        "fp32_bytes": artifact.provenance.get("fp32_bytes"),
        "licence": artifact.licence,
        "plan_hash": artifact.plan.hash,
        "provenance": dict(artifact.provenance),
        "bops_per_pixel": bops,
        "layers": [
            {**vars(layer), "candidates": candidates.get(layer.name, []), "macs_per_pixel": macs[layer.name]}
            for layer in layers
        ],
        "selectors": [vars(selector) for selector in selectors],
        "images": {name: dict(of_image) for name, of_image in chosen.items()},
        "choices": widths.summary(list(chosen.values())) if chosen else None,
        "average_bits": asdict(found) if found else None,
        "average_bits_of_chosen": asdict(of_choosing) if of_choosing else None,
    }

    def show() -> None:
        _show_head(record)
        show_table(_layer_table(layers, candidates, macs))
        at = " on average over these images" if chosen else " at the widest widths" if stages else ""
        say(f"{bops:,.0f} bit operations per pixel{at}: MACs · weight bits · activation bits")
        for selector in selectors:
            _show_selector(selector)
        if found and of_choosing:
            show_table(_width_table(chosen))
            say(
                f"{widths.sentence(list(chosen.values()))}\naverage bits over these images: {found.weight:.2f} by "
                f"weights, {found.weight_layer:.2f} by layers, activations {found.activation:.2f}; of the layers whose "
                f"width is chosen, {of_choosing.weight_layer:.2f} by layers"
            )

    return Report(record, show)


def _chosen(codec: Codec, file: Path, images: Sequence[Path]) -> dict[str, widths.Widths]:
    """Name of the file, or its path where two have the same name → the widths chosen for it."""
    if not codec.artifact.dynamic:
        raise LicquantError(f"{file}: its widths do not depend on the image, so --images has nothing to tell")
    paths = images_meant(images)
    named = zip(distinct_names(paths), paths, strict=True)
    return {name: widths.chosen_widths(codec, read_image(path)) for name, path in named}


def _show_head(record: Mapping[str, Any]) -> None:
    size, fp32 = record["bytes"], record["fp32_bytes"]
    share = f", {100 * size / fp32:.1f} % of FP32" if isinstance(fp32, int) and fp32 else ""
    say(
        f"model, {record['family']}, {size:,} bytes{share}\nartifact {record['artifact']}, "
        f"plan {record['plan_hash'][:16]}, licence of the weights: {record['licence']}"
    )


def _layer_table(
    layers: Sequence[LayerContents], candidates: Mapping[str, Sequence[int]], macs: Mapping[str, float]
) -> Table:
    table = Table()
    table.add_column("layer")
    for heading in ("operation", "weight bits", "activation bits", "bytes", "accumulator bits", "MACs/pixel"):
        table.add_column(heading, justify="right" if heading != "operation" else "left")
    for layer in layers:
        table.add_row(
            layer.name,
            layer.operation,
            *(
                "–" if bits is None else "/".join(map(str, candidates.get(layer.name, [bits])))
                for bits in (layer.weight_bits, layer.activation_bits)
            ),
            f"{layer.bytes:,}",
            str(layer.accumulator_bits),
            f"{macs[layer.name]:,.1f}",
        )
    return table


def _show_selector(selector: SelectorContents) -> None:
    of_stages = ", ".join(f"{stage} {'/'.join(map(str, widths))}" for stage, widths in selector.stages.items())
    say(
        f"{selector.part}: bits chosen for each image: {of_stages}\n    {selector.bytes:,} bytes beside the widest; "
        f"selector: {selector.selector_weights:,} weights, {selector.selector_bytes:,} bytes"
    )


def _width_table(chosen: Mapping[str, widths.Widths]) -> Table:
    """Images × stages; ``*`` where an image differs from what most have."""
    most = widths.majority(list(chosen.values()))
    table = Table()
    table.add_column("bits")
    for stage in most:
        table.add_column(stage, justify="right")
    for name, of_image in chosen.items():
        table.add_row(name, *(f"{'*' if bits != most[stage] else ''}{bits}" for stage, bits in of_image.items()))
    return table
