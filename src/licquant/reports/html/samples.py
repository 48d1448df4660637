"""What a report shows of the measuring itself: crops of a few images as each codec gives them, parts of coded files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from licquant.codec.files.bitstream import Bitstream
from licquant.evaluate.codec_results import OnCoded
from licquant.images import RGB, evenly
from licquant.reports.html.viewer import ORIGINAL, picture_file

IMAGES, CODECS, LAMBDAS = 3, 4, 2
CROP = (512, 384)  # width, height
_LIMITS = (
    f"Shown are at most {IMAGES} images, evenly spaced among those measured, the middle {CROP[0]}×{CROP[1]} pixels of "
    f"each, by the first {CODECS} codecs at their lowest and highest λ, so that this folder stays small. "
    "Figures are of the whole images."
)

Key = tuple[str, float]  # label and λ


@dataclass(eq=False)
class Samples:
    """Watches codecs while they are measured.

    paths, names: of all the images;  curves: label → its λ, of the quantized codecs, in order
    """

    paths: Sequence[Path]
    names: Sequence[str]
    curves: Mapping[str, Sequence[float]]
    _crops: dict[tuple[Key, int], RGB] = field(default_factory=dict)
    _originals: dict[int, RGB] = field(default_factory=dict)
    _sizes: dict[int, tuple[int, int]] = field(default_factory=dict)  # (width, height)
    _parts: dict[Key, list[dict[str, int]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._wanted = list(evenly(range(len(self.paths)), IMAGES))
        shown = list(self.curves.items())[:CODECS]
        self._keys = [(label, lmbda) for label, of in shown for lmbda in sorted({min(of), max(of)})[:LAMBDAS]]

    def watch(self, label: str, lmbda: float) -> OnCoded:
        """For ``evaluate_codec``, of a quantized codec: called for each of the paths, in order."""
        parts: list[dict[str, int]] = []
        self._parts[label, lmbda] = parts
        see = self._eye((label, lmbda)) if (label, lmbda) in self._keys else None

        def on_coded(original: RGB, data: bytes, decoded: RGB) -> None:
            parts.append(parts_of(data))
            if see is not None:
                see(original, data, decoded)

        return on_coded

    def watch_reference(self, label: str, lmbda: float) -> OnCoded | None:
        """The same of an FP32 model; None where no quantized codec of its λ is shown."""
        if all(f"{lmbda:g}" != f"{of:g}" for _, of in self._keys):
            return None
        place = sum(other not in self.curves for other, _ in self._keys)
        self._keys.insert(place, (label, lmbda))
        return self._eye((label, lmbda))

    def _eye(self, key: Key) -> OnCoded:
        indices = iter(range(len(self.paths)))

        def on_coded(original: RGB, _: bytes, decoded: RGB) -> None:
            index = next(indices)
            if index in self._wanted:
                rows, columns = _middle(original.shape[:2])
                self._sizes[index] = (original.shape[1], original.shape[0])
                self._originals[index] = original[rows, columns].copy()
                self._crops[key, index] = decoded[rows, columns].copy()

        return on_coded

    def coded(self, label: str, lmbda: float) -> dict[str, float]:
        """Average bytes of each part of the files that a codec wrote."""
        found = self._parts.get((label, lmbda), [])
        return {name: fmean(parts[name] for parts in found) for name in found[0]} if found else {}

    @property
    def record(self) -> dict[str, Any]:
        """For the report, JSON-ready: the images and their versions, the original first."""
        images = []
        for index in self._wanted:
            rows, columns = _middle(self._sizes[index][::-1])
            crop = {"left": columns.start, "top": rows.start}
            crop |= {"width": columns.stop - columns.start, "height": rows.stop - rows.start}
            images.append({"name": self.names[index], "index": index, "crop": crop})
        versions: list[dict[str, Any]] = [{"label": ORIGINAL, "lmbda": None}]
        versions += [{"label": label, "lmbda": lmbda} for label, lmbda in self._keys]
        return {"images": images, "versions": versions, "limits": _LIMITS}

    @property
    def pictures(self) -> dict[str, RGB]:
        """File in the report → pixels."""
        found = {}
        for number, index in enumerate(self._wanted):
            found[picture_file(number, 0)] = self._originals[index]
            for version, key in enumerate(self._keys, 1):
                found[picture_file(number, version)] = self._crops[key, index]
        return {name: np.ascontiguousarray(pixels) for name, pixels in found.items()}


def parts_of(data: bytes) -> dict[str, int]:
    """Bytes of each part of a coded image, which together are all of them: header and checksum, strings, fields."""
    stream = Bitstream.from_bytes(data)
    lengths = [len(string) for string in stream.strings]
    fields = sum(map(len, stream.fields.values()))
    z = lengths[0] if len(lengths) > 1 else 0
    return {
        "header and checksum": len(data) - sum(lengths) - fields,
        "z": z,
        "y": sum(lengths) - z,
        "fields": fields,
    }


def _middle(size: tuple[int, ...]) -> tuple[slice, slice]:
    """(rows, columns) of the crop of an image of (height, width)."""
    sides = (min(limit, side) for limit, side in zip(CROP[::-1], size, strict=True))
    starts = ((side, (whole - side) // 2) for side, whole in zip(sides, size, strict=True))
    rows, columns = (slice(start, start + side) for side, start in starts)
    return rows, columns
