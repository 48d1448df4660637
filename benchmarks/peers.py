"""Other codecs beside licquant, file to file: CompressAI in faster forms, NNCF on OpenVINO, AVIF and JPEG XL.

    python -m benchmarks.peers -o DIR            all of them need pip install 'licquant[peers]'

    CompressAI FP32     as it is, in channels-last, and with g_a and g_s through torch.compile
    NNCF                g_a and g_s in INT8 by NNCF's defaults on OpenVINO, all else CompressAI's: a day's work
    AVIF, JPEG XL       libavif and libjxl as Pillow calls them, at the qualities of ``QUALITIES``

Every peer runs in turn with licquant, as in ``speed.py``. Of AVIF and JPEG XL the quality whose PSNR is next to
licquant's is timed, and the BD-rate of licquant against them is of mean bits and mean PSNR at four λ. What is not
installed or does not work here is said, and is no error. Cool-chic is not run: its authors state 74 ms for decoding a
Kodak image on one core.
"""

import io
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks.speed import embedded, load_reference, measure, reference_checkpoint, summarize
from licquant.codec.codec import load
from licquant.evaluate import provenance
from licquant.evaluate.codec_results import Codec
from licquant.evaluate.metrics import bd_rate, bpp, psnr
from licquant.evaluate.reference import ReferenceCodec
from licquant.images import RGB, list_images, read_image, write_image
from licquant.quant.synthetic import dead_leaves
from licquant.reports.report import write_json

Make = Callable[[Path, int], Codec]  # FP32 checkpoint, threads

SCHEMA = "licquant-peers/1"
LAMBDAS = ("0.0067", "0.0130", "0.0250", "0.0483")
TIMED = "0.0130"
QUALITIES = {"AVIF": (30, 45, 55, 65, 75, 85), "JXL": (20, 40, 55, 65, 75, 85)}
_CALIBRATION = 8  # synthetic images: NNCF asks for some hundreds, and a transform of few layers needs no more


@dataclass(frozen=True)
class Curve:
    """Mean bits per pixel and mean PSNR in dB over the images, one of each for every λ or quality."""

    bits: list[float]
    quality: list[float]

    @classmethod
    def of(cls, codecs: Sequence[Codec], images: Sequence[RGB]) -> "Curve":
        """What the codecs make of the images."""
        points = [[_point(codec, rgb) for rgb in images] for codec in codecs]
        bits, quality = np.mean(points, axis=1).T.tolist()
        return cls(bits, quality)


def _point(codec: Codec, rgb: RGB) -> tuple[float, float]:
    data = codec.encode(rgb)
    return bpp(len(data), rgb.shape[1], rgb.shape[0]), psnr(rgb, codec.decode(data))


# --- peers --------------------------------------------------------------------------------------------------


class PillowCodec:
    """A format that Pillow writes with loss."""

    def __init__(self, name: str, quality: int) -> None:
        self.format, self.quality = name, quality

    def encode(self, rgb: RGB) -> bytes:
        """uint8 H×W×3 → a whole file."""
        file = io.BytesIO()
        Image.fromarray(rgb).save(file, self.format, quality=self.quality)
        return file.getvalue()

    def decode(self, data: bytes) -> RGB:
        """The inverse."""
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert("RGB"))


def compiled(checkpoint: Path, threads: int) -> Codec:
    """CompressAI's model with g_a and g_s through torch.compile."""
    codec = load_reference(checkpoint, channels_last=False)
    assert isinstance(codec, ReferenceCodec)
    codec.model.g_a, codec.model.g_s = torch.compile(codec.model.g_a), torch.compile(codec.model.g_s)
    return codec


class _OnOpenVino(torch.nn.Module):
    """A transform in INT8 by NNCF's post-training quantization, on OpenVINO."""

    def __init__(self, part: Any, inputs: list[torch.Tensor], threads: int) -> None:
        import nncf
        import openvino

        super().__init__()
        model = openvino.convert_model(part, example_input=inputs[0])
        model.reshape([1, inputs[0].shape[1], -1, -1])
        quantized = nncf.quantize(model, nncf.Dataset([x.numpy() for x in inputs]))
        settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": str(threads)}
        self._request = openvino.Core().compile_model(quantized, "CPU", settings).create_infer_request()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(self._request.infer([x.numpy()])[0])


def with_nncf(checkpoint: Path, threads: int) -> Codec:
    """CompressAI's model with g_a and g_s as NNCF quantizes them."""
    codec = load_reference(checkpoint, channels_last=False)
    assert isinstance(codec, ReferenceCodec)
    model = codec.model
    with torch.no_grad():
        images = [torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 255 for rgb in dead_leaves(_CALIBRATION)]
        latents = [model.g_a(x).round() for x in images]
        model.g_a, model.g_s = (
            _OnOpenVino(model.g_a, images, threads),
            _OnOpenVino(model.g_s, latents, threads),
        )
    return codec


PEERS: dict[str, Make] = {
    "CompressAI FP32": lambda checkpoint, threads: load_reference(checkpoint, channels_last=False),
    "CompressAI FP32, channels-last": lambda checkpoint, threads: load_reference(checkpoint, channels_last=True),
    "CompressAI FP32, torch.compile": compiled,
    "NNCF INT8 + OpenVINO": with_nncf,
}


# --- measuring ----------------------------------------------------------------------------------------------


def of_peer(
    make: Make, checkpoint: Path, threads: int, ours: Codec, images: Sequence[RGB], repeats: int
) -> dict[str, Any]:
    """A peer made of a checkpoint, timed."""
    return timed(ours, make(checkpoint, threads), images, repeats)


def timed(ours: Codec, theirs: Codec, images: Sequence[RGB], repeats: int) -> dict[str, Any]:
    """Times in pairs, and what the peer makes of the images."""
    with tempfile.TemporaryDirectory() as name:
        sources = [Path(name) / f"source{index}.ppm" for index in range(len(images))]
        for source, rgb in zip(sources, images, strict=True):
            write_image(source, rgb)
        pairs = measure(ours, theirs, sources, repeats, Path(name))
    curve = Curve.of([theirs], images)
    return {**{op: summarize(found) for op, found in pairs.items()}, "bpp": curve.bits[0], "psnr": curve.quality[0]}


def of_format(name: str, own: Curve, ours: Codec, images: Sequence[RGB], repeats: int) -> dict[str, Any]:
    """AVIF or JPEG XL: timed at licquant's PSNR; BD-rate of licquant against it."""
    if name == "JXL":
        import pillow_jxl  # noqa: F401 (gives Pillow the format)
    codecs = [PillowCodec(name, quality) for quality in QUALITIES[name]]
    curve, wanted = Curve.of(codecs, images), own.quality[LAMBDAS.index(TIMED)]
    nearest = int(np.argmin([abs(quality - wanted) for quality in curve.quality]))
    bd = bd_rate(curve.bits, curve.quality, own.bits, own.quality)
    found = timed(ours, codecs[nearest], images, repeats)
    return {**found, "quality": QUALITIES[name][nearest], "bd_rate_of_licquant": bd, "curve": vars(curve)}


def attempt(name: str, work: Callable[[], dict[str, Any]], console: Console) -> dict[str, Any]:
    """What the work gives; where a peer cannot be had here, why."""
    console.print(name, markup=False)
    try:
        return work()
    except Exception as error:  # another library's, of whatever kind
        reason = (str(error).splitlines() or [""])[0][:200]
        console.print(f"  not measured: {type(error).__name__}: {reason}", markup=False)
        return {"not_measured": f"{type(error).__name__}: {reason}"}


def table_of(results: dict[str, dict[str, Any]]) -> Table:
    """One row a peer; ratios are peer / licquant."""
    table = Table(title="file to file, against licquant in turn, medians", title_justify="left")
    for heading in ("peer", "encode ms", "×", "decode ms", "×", "bit/pixel", "PSNR dB", "BD-rate of licquant"):
        table.add_column(heading, justify="left" if heading == "peer" else "right")
    for name, row in results.items():
        if "not_measured" in row:
            table.add_row(name, row["not_measured"])
            continue
        times = [
            text
            for op in ("encode", "decode")
            for text in (f"{row[op]['reference_ms']:.0f}", f"{row[op]['ratio_median']:.2f}")
        ]
        bd = f"{row['bd_rate_of_licquant']:+.1f} %" if "bd_rate_of_licquant" in row else ""
        table.add_row(name, *times, f"{row['bpp']:.3f}", f"{row['psnr']:.2f}", bd)
    table.add_row("Cool-chic, stated by its authors, one core", "", "", "74")
    return table


def main(
    output: Annotated[Path, typer.Option("--output", "-o", help="folder for peers.json")],
    images: Annotated[Path | None, typer.Option(help="folder; default: the embedded images")] = None,
    only: Annotated[str, typer.Option(help="part of the names of the peers to measure")] = "",
    threads: Annotated[int, typer.Option(min=1, help="threads of licquant, PyTorch and OpenVINO")] = 2,
    repeats: Annotated[int, typer.Option(min=1, help="pairs for each image")] = 5,
) -> None:
    """Measure every peer that can be had here, print the table and write OUTPUT/peers.json."""
    console = Console(stderr=True)
    torch.set_num_threads(threads)
    pictures = [read_image(path) for path in list_images(images or embedded("*.png").parent)]
    ours = {value: load(embedded(f"*-lambda{value}.licq"), threads=threads) for value in LAMBDAS}
    own, checkpoint = Curve.of(list(ours.values()), pictures), reference_checkpoint()
    results: dict[str, dict[str, Any]] = {}
    works = {name: partial(of_peer, make, checkpoint, threads) for name, make in PEERS.items()}
    works |= {name: partial(of_format, name, own) for name in QUALITIES}
    for name, work in works.items():
        if only in name:
            results[name] = attempt(name, partial(work, ours[TIMED], pictures, repeats), console)
    output.mkdir(parents=True, exist_ok=True)
    facts = provenance.collect(threads=threads, repeats=repeats, images=len(pictures))
    write_json(
        output / "peers.json", {"schema": SCHEMA, "licquant": vars(own), "results": results, "provenance": facts}
    )
    Console(width=160).print(table_of(results))


if __name__ == "__main__":
    typer.run(main)
