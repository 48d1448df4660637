"""With which model an image is encoded: the one that was named, or that of several λ which meets a target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from licquant.codec.codec import ENGINES, Codec, load
from licquant.codec.files.bitstream import Bitstream
from licquant.commands.model_search import embedded, find, in_order_of_lmbda, models_in, of_quality
from licquant.errors import LicquantError
from licquant.images import RGB, Picture
from licquant.ready import usual_folder


@dataclass(frozen=True)
class Encoded:
    """A coded image, and by what.

    widths: as ``Codec.encode_with_widths``;  facts: of a target, for machines;  told: the same for people
    """

    data: bytes
    codec: Codec
    widths: dict[str, int]
    facts: dict[str, Any] = field(default_factory=dict)
    told: str = ""


Encode = Callable[[Picture], Encoded]


class Codecs:
    """The codecs of model files, each loaded once however many files and threads want it.

    threads, callers: as ``codec.load`` has them
    """

    def __init__(self, engine: str, threads: int | None, device: str = "CPU", callers: int = 1) -> None:
        if engine not in ENGINES:
            raise LicquantError(f"unknown engine {engine!r}: choose one of {', '.join(ENGINES)}")
        self._how: dict[str, Any] = {"engine": engine, "threads": threads, "device": device, "callers": callers}
        self._loaded: dict[Path, Codec] = {}
        self._found: dict[tuple[bytes, Path], Path] = {}
        self._lock = Lock()

    def of(self, model: Path) -> Codec:
        """The codec in that file; errors as ``codec.load``."""
        with self._lock:
            if model not in self._loaded:
                self._loaded[model] = load(model, **self._how, cache=usual_folder())
            return self._loaded[model]

    def for_coded(self, data: bytes, model: Path | None, file: str, beside: Path) -> Codec:
        """The codec for a coded image: of the model that was named, of the one that fits in a folder that was named,
        else of the one that ``model_search.find`` finds. Errors as ``find`` and ``codec.load``."""
        if model is not None and not model.is_dir():
            return self.of(model)
        identity, place = Bitstream.from_bytes(data).artifact_id, model or beside
        with self._lock:
            path = self._found.get((identity, place)) or find(identity, file, place)
            self._found[identity, place] = path
        return self.of(path)


def encoder(
    codecs: Codecs, model: Path | None, quality: int | None, target_bpp: float | None, target_psnr: float | None
) -> Encode:
    """How to encode, by the options.

    model: a file, or a folder with models of several λ; the embedded ones for None

    ``LicquantError`` for options that exclude one another, a quality that is not there, models that are missing.
    """
    options = {"--quality": quality, "--target-bpp": target_bpp, "--target-psnr": target_psnr}
    given = [name for name, value in options.items() if value is not None]
    if len(given) > 1:
        raise LicquantError(f"{given[0]} and {given[1]}: give one of them")
    if model is not None and not model.is_dir():
        if given:
            raise LicquantError(
                f"{given[0]} chooses among models: {model} is one; name a folder of them, or leave out -m"
            )
        return _with(codecs.of(model))
    models = embedded() if model is None else in_order_of_lmbda(models_in(model))
    if model is not None and not models:
        raise LicquantError(f"{model}: holds no models (.licq)")
    if target_bpp is not None:
        return _within_rate(codecs, models, target_bpp)
    if target_psnr is not None:
        return _above_psnr(codecs, models, target_psnr)
    return _with(codecs.of(of_quality(models, quality)))


def _with(codec: Codec) -> Encode:
    return lambda picture: Encoded(*_coded(codec, picture))


def _coded(codec: Codec, picture: Picture) -> tuple[bytes, Codec, dict[str, int]]:
    data, widths = codec.encode_with_widths(picture.rgb, picture.extras)
    return data, codec, widths


def _within_rate(codecs: Codecs, models: Sequence[Path], bpp: float) -> Encode:
    """The model of the highest λ whose file has at most so many bits per pixel; the lowest if none has."""

    def encode(picture: Picture) -> Encoded:
        tried: dict[int, Encoded] = {}

        def exceeds(index: int) -> bool:
            tried[index] = Encoded(*_coded(codecs.of(models[index]), picture))
            return 8 * len(tried[index].data) / picture.rgb[..., 0].size > bpp

        first = bisected(len(models), exceeds)
        return _told(tried, max(first - 1, 0), first > 0, f"{bpp:g} bits per pixel", "the fewest")

    return encode


def _above_psnr(codecs: Codecs, models: Sequence[Path], psnr: float) -> Encode:
    """The model of the lowest λ whose picture has at least that PSNR in dB; the highest if none has."""

    def encode(picture: Picture) -> Encoded:
        tried: dict[int, Encoded] = {}

        def reaches(index: int) -> bool:
            tried[index] = Encoded(*_coded(codecs.of(models[index]), picture))
            return _psnr(picture.rgb, tried[index].codec.decode(tried[index].data)) >= psnr

        first = bisected(len(models), reaches)
        return _told(tried, min(first, len(models) - 1), first < len(models), f"{psnr:g} dB", "the most")

    return encode


def bisected(count: int, holds: Callable[[int], bool]) -> int:
    """The first of 0..count - 1 for which ``holds``, which stays true from there on; count if there is none.

    The last one that does not hold and the first that does have both been asked, each one once.
    """
    low, high = -1, count
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _told(tried: dict[int, Encoded], index: int, met: bool, target: str, extreme: str) -> Encoded:
    found = tried[index]
    told = (
        f", model {index + 1}" if met else f", model {index + 1}; {target} is out of reach, this is {extreme} there is"
    )
    facts = {"model": index + 1, "target_met": met, "tried": len(tried)}
    return Encoded(found.data, found.codec, found.widths, facts, told)


def _psnr(rgb: RGB, decoded: RGB) -> float:
    """dB of uint8 pictures, as ``evaluate.metrics`` has it; infinite for equal ones."""
    error = float(np.mean(np.square(rgb.astype(np.int32) - decoded), dtype=np.float64))
    return float("inf") if error == 0 else 10 * float(np.log10(255**2 / error))
