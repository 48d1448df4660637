"""``licquant demo``: the whole path on what comes with the package, with files, a table and pictures to look at."""

from __future__ import annotations

import time
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np

from licquant import pipeline
from licquant.codec.codec import load
from licquant.commands.base import Report
from licquant.commands.evaluate import REFERENCE_LABEL, codec_point, reference_point
from licquant.commands.toolkit import make_folder, progress, write_layer_bars
from licquant.errors import LicquantError
from licquant.evaluate import provenance
from licquant.evaluate.codec_results import Curve, RatePoint
from licquant.evaluate.reference import ReferenceCodec
from licquant.images import RGB, list_images, read_image, write_atomically, write_image
from licquant.models import load_model
from licquant.models.shards import checkpoint_sha256
from licquant.quant.synthetic import dead_leaves
from licquant.reports import pictures, report
from licquant.terminal import say, show_table
from licquant.train.card import lmbda_of

MODEL = "bmshj2018-hyperprior"
# Photographs to calibrate on cannot be shipped; drawn images come close (quant/synthetic.py).
CALIBRATION_IMAGES = 12


@dataclass(frozen=True)
class Assets:
    """The embedded files: test images (Kodak), one FP32 checkpoint, finished artifacts of two λ."""

    images: list[Path]
    checkpoint: Path
    artifacts: list[Path]

    @classmethod
    def find(cls) -> Assets:
        folder = Path(str(resources.files("licquant"))) / "assets"
        checkpoints, artifacts = sorted(folder.glob("*.pt")), sorted(folder.glob("*.licq"))
        if not checkpoints or not artifacts:
            raise LicquantError("the embedded models are missing: install licquant from a complete source tree")
        return cls(list_images(folder / "images"), checkpoints[0], artifacts)


def run(output: Path) -> Report:
    """Quantize, encode, decode, measure; everything is written below ``output``."""
    start = time.perf_counter()
    assets = Assets.find()
    make_folder(output)
    lmbda = lmbda_of(assets.checkpoint, None) or 0.013
    with progress() as on_progress:
        live = _quantize(assets, lmbda, output / "live.licq", on_progress)
        model = load_model(MODEL, assets.checkpoint)
        fp32 = reference_point(model, assets.checkpoint, lmbda, assets.images, on_progress)
        points = [codec_point("quantized just now", live, lmbda, assets.images, None, on_progress)]
        for path in assets.artifacts:
            codec = load(path)
            of = codec.artifact.provenance.get("lmbda")
            assert isinstance(of, float)
            points.append(codec_point(f"embedded, λ={of:g}", path, of, assets.images, None, on_progress))
    _write_images(assets, live, output)
    curves = [Curve(point.label, (point,)) for point in points]
    reference = Curve(REFERENCE_LABEL, (fp32,))
    facts = provenance.collect(images=len(assets.images), checkpoint=checkpoint_sha256(assets.checkpoint))
    report.write_report(output / "results.json", curves, facts, reference)
    pictures.rd_curves(output / "rd.png", curves, reference)
    write_layer_bars(live, output / "layers.png")
    seconds = time.perf_counter() - start
    record = {**report.report_of(curves, facts, reference), "seconds": seconds}
    return Report(record, lambda: _show(curves, reference, fp32, points[0], output, seconds))


def _quantize(assets: Assets, lmbda: float, path: Path, on_progress: pipeline.OnProgress) -> Path:
    """The embedded checkpoint, quantized live to 8-bit weights and activations."""
    model = load_model(MODEL, assets.checkpoint)
    facts = {
        "model": MODEL,
        "lmbda": lmbda,
        "checkpoint_sha256": checkpoint_sha256(assets.checkpoint),
        "command": "licquant demo",
    }
    result = pipeline.quantize(model, dead_leaves(CALIBRATION_IMAGES), provenance=facts, on_progress=on_progress)
    result.artifact.save(path)
    return path


def _write_images(assets: Assets, live: Path, output: Path) -> None:
    """Each image as coded file and as decoded picture, and one comparison to look at."""
    codec = load(live)
    for path in assets.images:
        data = codec.encode(read_image(path))
        write_atomically(output / f"{path.stem}.lic", data)
        write_image(output / f"{path.stem}.png", codec.decode(data))
    first = read_image(assets.images[0])
    float_codec = ReferenceCodec(load_model(MODEL, assets.checkpoint))
    rebuilt = float_codec.decode(float_codec.encode(first))
    pictures.side_by_side(
        output / "comparison.png", _detail(first), _detail(rebuilt), _detail(codec.decode(codec.encode(first)))
    )


def _detail(rgb: RGB) -> RGB:
    """The middle of an image, at a size where the eye can tell differences."""
    height, width = rgb.shape[:2]
    top, left = (max(0, n - 320) // 2 for n in (height, width))
    return np.ascontiguousarray(rgb[top : top + 320, left : left + 320])


def _show(
    curves: list[Curve], reference: Curve, fp32: RatePoint, live: RatePoint, output: Path, seconds: float
) -> None:
    title = "licquant demo: real files, averages over the images"
    show_table(report.results_table(curves, reference, title), least=120)
    say(
        f"encode {fp32.encode_seconds / live.encode_seconds:.1f} times and decode "
        f"{fp32.decode_seconds / live.decode_seconds:.1f} times as fast as CompressAI FP32 "
        "(one run each; `make bench` measures it properly)\n"
        f"{output}: coded and decoded images, results.json, rd.png, layers.png, comparison.png; {seconds:.0f} s"
    )
