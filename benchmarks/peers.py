"""Speed beside what else there is: file bytes to file bytes, in turn with licquant, and BD-rate of classic codecs.

    CompressAI FP32                   as it is, with channels last, and with torch.compile
    NNCF INT8 + OpenVINO              g_a and g_s by NNCF's default preset, calibrated on --calib, else on generated
                                      pictures; the rest is CompressAI's: what a good engineer builds in a day
    JPEG XL, AVIF                     Pillow's plugins at their own defaults, at the quality whose PSNR is nearest

A ratio is the median over images and repeats of (peer / licquant), each pair run right after each other, order turned
from pair to pair. What is not installed is left out, and said. BD-rate: of the mean curves over all images, against
licquant's embedded models, PCHIP.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import typer
from PIL import Image

import licquant
from benchmarks.speed import embedded, load_reference, reference_checkpoint
from licquant.evaluate import provenance
from licquant.evaluate.codec_results import Codec
from licquant.evaluate.metrics import psnr
from licquant.images import RGB, list_images, read_image
from licquant.quant.synthetic import dead_leaves
from licquant.reports.report import write_json

SCHEMA = "licquant-peers/1"
QUALITIES = {"JPEG XL": (30, 50, 65, 75, 85), "AVIF": (30, 45, 55, 65, 80)}


@dataclass(frozen=True)
class PillowCodec:
    """A codec of Pillow's at one quality."""

    kind: str
    quality: int

    def encode(self, rgb: RGB) -> bytes:
        file = io.BytesIO()
        Image.fromarray(rgb).save(file, format=self.kind, quality=self.quality)
        return file.getvalue()

    def decode(self, data: bytes) -> RGB:
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


# --- the peers ----------------------------------------------------------------------------------------------


def learned(checkpoint: Path, threads: int, calibration: Sequence[RGB]) -> Iterator[tuple[str, Callable[[], Codec]]]:
    """Name → how to load it."""
    yield "CompressAI FP32", lambda: load_reference(checkpoint, channels_last=False)
    yield "CompressAI FP32, channels last", lambda: load_reference(checkpoint, channels_last=True)
    yield "CompressAI FP32, torch.compile", lambda: _compiled(checkpoint)
    yield "NNCF INT8 + OpenVINO", lambda: _by_nncf(checkpoint, threads, calibration)


def _compiled(checkpoint: Path) -> Codec:
    import torch

    codec: Any = load_reference(checkpoint, channels_last=True)
    for part in ("g_a", "g_s", "h_a", "h_s"):
        setattr(codec.model, part, torch.compile(getattr(codec.model, part)))
    result: Codec = codec
    return result


def _by_nncf(checkpoint: Path, threads: int, calibration: Sequence[RGB]) -> Codec:
    import nncf
    import openvino as ov
    import torch

    codec: Any = load_reference(checkpoint, channels_last=False)
    model, core = codec.model, ov.Core()
    crops = [torch.from_numpy(crop).permute(2, 0, 1)[None].float() / 255 for crop in calibration]
    with torch.inference_mode():
        latents = [model.g_a(crop).round() for crop in crops]
    for part, samples in (("g_a", crops), ("g_s", latents)):
        floats = ov.convert_model(
            getattr(model, part), example_input=samples[0], input=[1, samples[0].shape[1], -1, -1]
        )
        quantized = nncf.quantize(floats, nncf.Dataset([sample.numpy() for sample in samples]))
        run = core.compile_model(quantized, "CPU", {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"})
        setattr(model, part, _module_of(run))
    result: Codec = codec
    return result


def _module_of(run: Any) -> Any:
    import torch

    class Compiled(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return torch.from_numpy(run(x.numpy())[0].copy())

    return Compiled()


def classic(images: Sequence[RGB], wanted: float) -> Iterator[tuple[str, PillowCodec, list[tuple[float, float]]]]:
    """Name, the codec whose mean PSNR is nearest to the wanted one, and (bpp, PSNR) of several qualities."""
    for name, kind in (("JPEG XL", "JXL"), ("AVIF", "AVIF")):
        try:
            curve = {q: point(PillowCodec(kind, q), images) for q in QUALITIES[name]}
        except (KeyError, OSError) as error:
            print(f"{name}: left out, Pillow cannot write it here ({error})")
            continue
        nearest = min(curve, key=lambda q: abs(curve[q][1] - wanted))
        yield name, PillowCodec(kind, nearest), list(curve.values())


# --- measuring ----------------------------------------------------------------------------------------------


def point(codec: Codec, images: Sequence[RGB]) -> tuple[float, float]:
    """(bits per pixel, PSNR in dB), both means over the images."""
    found = []
    for rgb in images:
        data = codec.encode(rgb)
        found.append((8 * len(data) / rgb[..., 0].size, psnr(rgb, codec.decode(data))))
    return float(np.mean([bpp for bpp, _ in found])), float(np.mean([db for _, db in found]))


def pairs(own: Codec, peer: Codec, images: Sequence[RGB], repeats: int) -> dict[str, dict[str, float]]:
    """Operation → milliseconds of either and the median ratio."""
    seconds: dict[str, list[tuple[float, float]]] = {"encode": [], "decode": []}
    for rgb in images:
        for repeat in range(-1, repeats):  # -1: the warm-up, not kept
            taken: dict[tuple[int, str], float] = {}
            for side in (0, 1) if repeat % 2 else (1, 0):
                codec = (own, peer)[side]
                start = time.perf_counter()
                data = codec.encode(rgb)
                middle = time.perf_counter()
                codec.decode(data)
                taken[side, "encode"], taken[side, "decode"] = middle - start, time.perf_counter() - middle
            if repeat >= 0:
                for operation, kept in seconds.items():
                    kept.append((taken[0, operation], taken[1, operation]))
    return {
        operation: {
            "licquant_ms": 1000 * median(a for a, _ in kept),
            "peer_ms": 1000 * median(b for _, b in kept),
            "ratio": median(b / a for a, b in kept),
        }
        for operation, kept in seconds.items()
    }


def bd_rate(anchor: Sequence[tuple[float, float]], curve: Sequence[tuple[float, float]]) -> float:
    """Percent more bits than the anchor at the same PSNR."""
    import bjontegaard

    (bits, db), (own_bits, own_db) = (zip(*sorted(points), strict=True) for points in (anchor, curve))
    return float(bjontegaard.bd_rate(bits, db, own_bits, own_db, method="pchip", require_matching_points=False))


# --- command ------------------------------------------------------------------------------------------------


def main(
    output: Annotated[Path, typer.Option("--output", "-o", help="folder for peers.json")],
    images: Annotated[Path | None, typer.Option(help="folder; default: the embedded images")] = None,
    calib: Annotated[
        Path | None, typer.Option(help="pictures that NNCF calibrates on; default: generated ones")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="threads of every side")] = 2,
    repeats: Annotated[int, typer.Option(min=1, help="pairs for each image")] = 5,
    limit: Annotated[int | None, typer.Option(min=1, help="only so many images")] = None,
) -> None:
    """Measure licquant beside its peers and write OUTPUT/peers.json."""
    import torch

    torch.set_num_threads(threads)
    paths = list_images(images or embedded("*.png").parent)[:limit]
    pictures, checkpoint = [read_image(path) for path in paths], reference_checkpoint()
    crops = [read_image(path)[:256, :256] for path in list_images(calib)] if calib else dead_leaves(16, 256)
    models = sorted(Path(licquant.__file__).parent.glob("assets/*.licq"))
    anchor = [point(licquant.load(model, threads=threads), pictures) for model in models]
    own = licquant.load(embedded("*-lambda0.0130.licq"), threads=threads)
    bpp, db = point(own, pictures)
    rows: dict[str, Any] = {"licquant": {"bpp": bpp, "psnr": db}}

    def measured(name: str, codec: Codec, **more: float) -> None:
        rate, quality = point(codec, pictures)
        rows[name] = {"bpp": rate, "psnr": quality, **pairs(own, codec, pictures, repeats), **more}
        told = (f"{o} {rows[name][o]['peer_ms']:.0f} ms, {rows[name][o]['ratio']:.2f} ×" for o in ("encode", "decode"))
        print(f"{name}: {rate:.3f} bpp, {quality:.2f} dB, {', '.join(told)}", *more.items())

    for name, make in learned(checkpoint, threads, crops):
        try:
            codec = make()
            codec.encode(pictures[0])
        except ImportError as error:
            print(f"{name}: left out, needs {error.name}")
        except Exception as error:  # torch.compile has many ways to find no compiler
            print(f"{name}: left out, {type(error).__name__}: {str(error)[:200]}")
        else:
            measured(name, codec)
    try:
        import pillow_jxl  # noqa: F401 (makes Pillow know the format)
    except ImportError:
        print("JPEG XL needs pillow-jxl-plugin")
    for name, classic_codec, curve in classic(pictures, db):
        measured(name, classic_codec, bd_rate=bd_rate(anchor, curve), quality=classic_codec.quality)
    output.mkdir(parents=True, exist_ok=True)
    facts = provenance.collect(threads=threads, images=[path.name for path in paths], repeats=repeats)
    write_json(output / "peers.json", {"schema": SCHEMA, "provenance": facts, "results": rows})


if __name__ == "__main__":
    typer.run(main)
