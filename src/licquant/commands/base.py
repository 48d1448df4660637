"""Encode and decode: commands that need no training stack."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from licquant.codec import codec as codec_module
from licquant.codec.files.bitstream import Bitstream
from licquant.codec.files.extra_fields import unknown_fields
from licquant.errors import BitstreamError, LicquantError
from licquant.images import (
    Picture,
    Reading,
    check_places,
    check_suffix,
    displayed,
    left_out,
    read_picture,
    write_atomically,
    write_image,
)

OUT = Console()


@dataclass(frozen=True)
class Report:
    """What a command found: for machines, and for people."""

    record: dict[str, Any]
    show: Callable[[], None] = field(default=lambda: None)


def encode(
    image: Path,
    model: Path,
    output: Path,
    engine: str,
    threads: int | None,
    reading: Reading = Reading(),
) -> Report:
    check_places(output)
    picture = read_picture(image, reading)
    rgb = picture.rgb
    codec = _load(model, engine, threads)
    start = time.perf_counter()
    data, widths = codec.encode_with_widths(rgb, picture.extras)
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
        "widths": widths,
        "carried": list(picture.extras.names()),
        "notes": _say(image, picture.notes),
    }
    line = f"{output}: {width}×{height}, {len(data):,} bytes, {record['bpp']:.4f} bits per pixel"
    return Report(record, lambda: OUT.print(line, highlight=False))


def decode(
    file: Path,
    model: Path,
    output: Path,
    engine: str,
    threads: int | None,
    srgb: bool = False,
    background: tuple[int, int, int] | None = None,
) -> Report:
    """srgb, background: as ``images.displayed`` has them."""
    check_places(output)
    kind = check_suffix(output)
    data = read_file(file)
    codec = _load(model, engine, threads)
    extras = codec.extras(data)
    if background is None:
        left_out(kind, extras)  # may refuse, before the long work
    start = time.perf_counter()
    rgb, widths = codec.decode_with_widths(data)
    seconds = time.perf_counter() - start
    picture = displayed(Picture(rgb, extras), srgb, background)
    lost = left_out(kind, picture.extras)
    write_image(output, picture.rgb, picture.extras)
    notes = [f"{output.suffix} has no place for its {', '.join(lost)}: left out"] if lost else []
    unknown = unknown_fields(Bitstream.from_bytes(data).fields)
    notes += [f"holds what only a newer licquant knows (fields {unknown}): left out"] if unknown else []
    record = {
        "output": str(output),
        "width": rgb.shape[1],
        "height": rgb.shape[0],
        "seconds": seconds,
        "widths": widths,
        "carried": list(picture.extras.names()),
        "notes": _say(file, notes),
    }
    return Report(record, lambda: OUT.print(f"{output}: {rgb.shape[1]}×{rgb.shape[0]}", highlight=False))


def _say(file: Path, notes: Sequence[str]) -> list[str]:
    """A line for each, where it is in nobody's way; the same for programs."""
    for note in notes:
        sys.stderr.write(f"licquant: {file}: {note}\n")
    return list(notes)


def synthesis_widths(codec: codec_module.Codec, data: bytes) -> dict[str, int]:
    """Stage of g_s → the width that decoding chooses; empty, and not looked for, where none is chosen."""
    return codec.synthesis_widths(codec.decode_symbols(data).y) if codec.artifact.dynamic else {}


def _load(model: Path, engine: str, threads: int | None) -> codec_module.Codec:
    if engine not in codec_module.ENGINES:
        raise LicquantError(f"unknown engine {engine!r}: choose one of {', '.join(codec_module.ENGINES)}")
    return codec_module.load(model, engine=engine, threads=threads)


def read_file(file: Path) -> bytes:
    try:
        if file.stat().st_size > 1 << 30:
            raise BitstreamError(f"{file}: larger than 1 GiB: not a licquant file")
        return file.read_bytes()
    except OSError as error:
        raise BitstreamError(f"{file}: cannot be read: {error.strerror or error}") from error
