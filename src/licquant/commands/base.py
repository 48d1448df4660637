"""One file encoded or decoded, for the commands; needs no training stack."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import typer

from licquant.codec.codec import Codec
from licquant.codec.files.bitstream import Bitstream
from licquant.codec.files.extra_fields import unknown_fields
from licquant.commands.model_choice import Encode
from licquant.errors import BitstreamError
from licquant.images import (
    Extras,
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
from licquant.terminal import on_one_line, remark, say

Crop = tuple[int, int, int, int]  # x, y, width, height in pixels


@dataclass(frozen=True)
class Report:
    """What a command found: for machines, and for people; status: of the process."""

    record: dict[str, Any]
    show: Callable[[], None] = field(default=lambda: None)
    status: int = 0


@dataclass(frozen=True)
class Wanted:
    """What is wanted of a coded picture: a part, all of it if None;  srgb, background: as ``images.displayed``."""

    crop: Crop | None = None
    srgb: bool = False
    background: tuple[int, int, int] | None = None


def finish(result: Report, as_json: bool) -> None:
    """Say what a command found, as JSON or as words, and end the process with its status if that is not 0."""
    if as_json:
        print(json.dumps(_plain(result.record), ensure_ascii=False))
    else:
        result.show()
    if result.status:
        raise typer.Exit(result.status)


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity."""
    if isinstance(value, float) and not abs(value) < float("inf"):
        return None
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def encode(image: Path, encoded: Encode, output: Path, reading: Reading) -> Report:
    """encoded: with which model (``model_choice.py``)"""
    check_places(output)
    picture = read_picture(image, reading)
    start = time.perf_counter()
    found = encoded(picture)
    seconds = time.perf_counter() - start
    write_atomically(output, found.data)
    height, width = picture.rgb.shape[:2]
    record = {
        "output": str(output),
        "bytes": len(found.data),
        "width": width,
        "height": height,
        "bpp": 8 * len(found.data) / (width * height),
        "seconds": seconds,
        "artifact": found.codec.id.hex(),
        "widths": found.widths,
        "carried": list(picture.extras.names()),
        "notes": _told(image, picture.notes),
        **found.facts,
    }
    line = f"{width}×{height}, {len(found.data):,} bytes, {record['bpp']:.4f} bits per pixel{found.told}"
    return Report(record, lambda: say(f"{on_one_line(output)}: {line}"))


def decode(file: Path, codec_of: Callable[[bytes], Codec], output: Path, wanted: Wanted) -> Report:
    """codec_of: the codec for a coded image"""
    check_places(output)
    kind = check_suffix(output)
    data = read_file(file)
    codec = codec_of(data)
    extras = codec.extras(data)
    if wanted.background is None:
        left_out(kind, extras)  # may refuse, before the long work
    start = time.perf_counter()
    if wanted.crop is None:
        rgb, widths = codec.decode_with_widths(data)
    else:
        rgb, widths, extras = codec.decode_region(data, *wanted.crop), {}, _cropped(extras, wanted.crop)
    seconds = time.perf_counter() - start
    picture = displayed(Picture(rgb, extras), wanted.srgb, wanted.background)
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
        "artifact": codec.id.hex(),
        "widths": widths,
        "carried": list(picture.extras.names()),
        "notes": _told(file, notes),
    }
    line = f"{on_one_line(output)}: {rgb.shape[1]}×{rgb.shape[0]}"  # a report outlives its picture
    return Report(record, lambda: say(line))


def _cropped(extras: Extras, crop: Crop) -> Extras:
    x, y, width, height = crop
    return extras if extras.alpha is None else replace(extras, alpha=extras.alpha[y : y + height, x : x + width])


def _told(file: Path, notes: Sequence[str]) -> list[str]:
    """A line for each, where it is in nobody's way; the same for programs."""
    for line in notes:
        remark(f"{file}: {line}")
    return list(notes)


def synthesis_widths(codec: Codec, data: bytes) -> dict[str, int]:
    """Stage of g_s → the width that decoding chooses; empty, and not looked for, where none is chosen."""
    return codec.synthesis_widths(codec.decode_symbols(data).y) if codec.artifact.dynamic else {}


def read_file(file: Path) -> bytes:
    """A coded file's bytes; ``BitstreamError`` for one that cannot be read or is larger than 1 GiB."""
    try:
        if file.stat().st_size > 1 << 30:
            raise BitstreamError(f"{file}: larger than 1 GiB: not a licquant file")
        return file.read_bytes()
    except OSError as error:
        raise BitstreamError(f"{file}: cannot be read: {error.strerror or error}") from error
