"""The commands that need no training stack: encode, decode, inspect."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from licquant.codec import codec as codec_module
from licquant.codec.artifact import Artifact, artifact_id, read_artifact_bytes
from licquant.codec.bitstream import Bitstream
from licquant.codec.contents import layer_contents, selector_contents
from licquant.errors import BitstreamError, LicquantError
from licquant.images import read_image, write_atomically, write_image

OUT = Console()


@dataclass(frozen=True)
class Report:
    """What a command found: for machines, and for people."""

    record: dict[str, Any]
    show: Callable[[], None] = field(default=lambda: None)


def encode(image: Path, model: Path, output: Path, engine: str, threads: int | None) -> Report:
    rgb = read_image(image)
    codec = _load(model, engine, threads)
    start = time.perf_counter()
    data = codec.encode(rgb)
    seconds = time.perf_counter() - start
    write_atomically(output, data)
    height, width = rgb.shape[:2]
    record = {
        "output": str(output),
        "bytes": len(data),
        "width": width,
        "height": height,
        "bpp": 8 * len(data) / (width * height),
        "seconds": seconds,
        "artifact": codec.id.hex(),
        "widths": codec.analysis_widths(rgb),
    }
    line = f"{output}: {width}×{height}, {len(data):,} bytes, {record['bpp']:.4f} bits per pixel"
    return Report(record, lambda: OUT.print(line, highlight=False))


def decode(file: Path, model: Path, output: Path, engine: str, threads: int | None) -> Report:
    data = _read(file)
    codec = _load(model, engine, threads)
    start = time.perf_counter()
    rgb = codec.decode(data)
    seconds = time.perf_counter() - start
    write_image(output, rgb)
    record = {
        "output": str(output),
        "width": rgb.shape[1],
        "height": rgb.shape[0],
        "seconds": seconds,
        "widths": _synthesis_widths(codec, data),
    }
    return Report(record, lambda: OUT.print(f"{output}: {rgb.shape[1]}×{rgb.shape[0]}", highlight=False))


def inspect(file: Path, model: Path | None) -> Report:
    """Tells a model from a coded image by its first bytes.

    model: of a coded image, to tell the widths chosen for it
    """
    data = _read(file)
    if data.startswith(b"LICI"):
        widths = {} if model is None else _synthesis_widths(codec_module.load(model), data)
        return _inspect_image(Bitstream.from_bytes(data), len(data), widths)
    if data.startswith(b"LICQ"):
        return _inspect_model(read_artifact_bytes(file))
    raise LicquantError(f"{file}: neither a licquant model (.licq) nor a coded image (.lic)")


def _synthesis_widths(codec: codec_module.Codec, data: bytes) -> dict[str, int]:
    """Stage of g_s → the width that decoding chooses; empty, and not looked for, where none is chosen."""
    return codec.synthesis_widths(codec.decode_symbols(data).y) if codec.artifact.dynamic else {}


def _inspect_image(stream: Bitstream, size: int, widths: dict[str, int]) -> Report:
    record = {
        "kind": "coded image",
        "bytes": size,
        "width": stream.width,
        "height": stream.height,
        "bpp": 8 * size / (stream.width * stream.height),
        "artifact": stream.artifact_id.hex(),
        "strings": [len(string) for string in stream.strings],
        "widths": widths,
    }

    def show() -> None:
        strings = " + ".join(f"{n:,}" for n in record["strings"])  # type: ignore[attr-defined]
        OUT.print(
            f"coded image, {stream.width}×{stream.height}, {size:,} bytes ({strings} in strings), "
            f"{record['bpp']:.4f} bits per pixel\ncoded with artifact {record['artifact']}",
            highlight=False,
        )
        if widths:
            chosen = ", ".join(f"{stage} {bits}" for stage, bits in widths.items())
            OUT.print(f"decoded with widths in bits: {chosen}", highlight=False)

    return Report(record, show)


def _inspect_model(data: bytes) -> Report:
    artifact = Artifact.from_bytes(data)
    layers, selectors = layer_contents(data, artifact), selector_contents(data, artifact)
    fp32 = artifact.provenance.get("fp32_bytes")
    record: dict[str, Any] = {
        "kind": "model",
        "artifact": artifact_id(data).hex(),
        "family": artifact.family,
        "bytes": len(data),
        "fp32_bytes": fp32,
        "licence": artifact.licence,
        "plan_hash": artifact.plan.hash,
        "provenance": dict(artifact.provenance),
        "layers": [vars(layer) for layer in layers],
        "selectors": [vars(selector) for selector in selectors],
    }

    def show() -> None:
        share = f", {100 * len(data) / fp32:.1f} % of FP32" if isinstance(fp32, int) and fp32 else ""
        OUT.print(
            f"model, {artifact.family}, {len(data):,} bytes{share}\nartifact {record['artifact']}, "
            f"plan {artifact.plan.hash[:16]}, licence of the weights: {artifact.licence}",
            highlight=False,
        )
        table = Table()
        table.add_column("layer")
        for heading in ("operation", "weights", "activations", "bytes", "accumulator"):
            table.add_column(heading, justify="right" if heading != "operation" else "left")
        for layer in layers:
            table.add_row(
                layer.name,
                layer.operation,
                "–" if layer.weight_bits is None else f"{layer.weight_bits} bits",
                "–" if layer.activation_bits is None else f"{layer.activation_bits} bits",
                f"{layer.bytes:,}",
                f"{layer.accumulator_bits} bits",
            )
        OUT.print(table)
        for s in selectors:
            OUT.print(
                f"{s.part}: {', '.join(s.stages)} in {', '.join(map(str, s.widths))} bits, chosen for each image\n"
                f"    {s.bytes:,} bytes beside the widest; selector: {s.selector_weights:,} weights, "
                f"{s.selector_bytes:,} bytes",
                highlight=False,
            )

    return Report(record, show)


def _load(model: Path, engine: str, threads: int | None) -> codec_module.Codec:
    if engine not in codec_module.ENGINES:
        raise LicquantError(f"unknown engine {engine!r}: choose one of {', '.join(codec_module.ENGINES)}")
    return codec_module.load(model, engine=engine, threads=threads)


def _read(file: Path) -> bytes:
    try:
        if file.stat().st_size > 1 << 30:
            raise BitstreamError(f"{file}: larger than 1 GiB: not a licquant file")
        return file.read_bytes()
    except OSError as error:
        raise BitstreamError(f"{file}: cannot be read: {error.strerror or error}") from error
