"""One file encoded or decoded, for the commands; needs no training stack."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from licquant.codec.codec import Codec
from licquant.errors import BitstreamError
from licquant.images import check_places, check_suffix, read_image, write_atomically, write_image
from licquant.model_choice import Encode
from licquant.terminal import say

Crop = tuple[int, int, int, int]  # x, y, width, height in pixels


@dataclass(frozen=True)
class Report:
    """What a command found: for machines, and for people; status: of the process."""

    record: dict[str, Any]
    show: Callable[[], None] = field(default=lambda: None)
    status: int = 0


def encode(image: Path, encoded: Encode, output: Path) -> Report:
    """encoded: with which model (``model_choice.py``)"""
    check_places(output)
    rgb = read_image(image)
    start = time.perf_counter()
    found = encoded(rgb)
    seconds = time.perf_counter() - start
    write_atomically(output, found.data)
    height, width = rgb.shape[:2]
    record = {
        "output": str(output),
        "bytes": len(found.data),
        "width": width,
        "height": height,
        "bpp": 8 * len(found.data) / (width * height),
        "seconds": seconds,
        "artifact": found.codec.id.hex(),
        "widths": found.widths,
        **found.facts,
    }
    line = f"{output}: {width}×{height}, {len(found.data):,} bytes, {record['bpp']:.4f} bits per pixel{found.told}"
    return Report(record, lambda: say(line))


def decode(file: Path, codec_of: Callable[[bytes], Codec], output: Path, crop: Crop | None = None) -> Report:
    """codec_of: the codec for a coded image;  crop: the part that is wanted, all if None"""
    check_places(output)
    check_suffix(output)
    data = read_file(file)
    codec = codec_of(data)
    start = time.perf_counter()
    rgb, widths = codec.decode_with_widths(data) if crop is None else (codec.decode_region(data, *crop), {})
    seconds = time.perf_counter() - start
    write_image(output, rgb)
    record = {
        "output": str(output),
        "width": rgb.shape[1],
        "height": rgb.shape[0],
        "seconds": seconds,
        "artifact": codec.id.hex(),
        "widths": widths,
    }
    line = f"{output}: {rgb.shape[1]}×{rgb.shape[0]}"  # a report outlives its picture
    return Report(record, lambda: say(line))


def synthesis_widths(codec: Codec, data: bytes) -> dict[str, int]:
    """Stage of g_s → the width that decoding chooses; empty, and not looked for, where none is chosen."""
    return codec.synthesis_widths(codec.decode_symbols(data).y) if codec.artifact.dynamic else {}


def read_file(file: Path) -> bytes:
    try:
        if file.stat().st_size > 1 << 30:
            raise BitstreamError(f"{file}: larger than 1 GiB: not a licquant file")
        return file.read_bytes()
    except OSError as error:
        raise BitstreamError(f"{file}: cannot be read: {error.strerror or error}") from error
