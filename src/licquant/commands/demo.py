"""``licquant demo``: the whole path on what comes with the package, with files, a table and pictures to look at."""

from __future__ import annotations

import time
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from licquant import pipeline
from licquant.codec.codec import load
from licquant.commands.base import Report
from licquant.commands.evaluate import REFERENCE_LABEL, Running, codec_point, reference_point
from licquant.commands.toolkit import make_folder, progress, write_layer_bars
from licquant.config import OnProgress
from licquant.errors import LicquantError
from licquant.evaluate import provenance
from licquant.evaluate.codec_results import Curve
from licquant.evaluate.rd import MSE
from licquant.evaluate.reference import ReferenceCodec
from licquant.images import RGB, list_images, read_image, write_atomically, write_image
from licquant.models import load_model
from licquant.models.shards import checkpoint_sha256
from licquant.models.small import SUFFIX
from licquant.quant.synthetic import dead_leaves
from licquant.reports import pictures, report
from licquant.terminal import note, say, show_table
from licquant.train.card import lmbda_of

MODEL = "bmshj2018-hyperprior"
# Photographs to calibrate on cannot be shipped; drawn images come close (quant/synthetic.py).
CALIBRATION_IMAGES = 12


@dataclass(frozen=True)
class Assets:
    """What there is to show: test images (Kodak), finished artifacts of several λ, and an FP32 checkpoint.

    The checkpoint is in the source tree alone, in ``checkpoints/``: whoever installs the codec does not need it.
    """

    images: list[Path]
    artifacts: list[Path]
    checkpoint: Path | None

    @classmethod
    def find(cls) -> Assets:
        """What lies beside the code; ``LicquantError`` without models, while the checkpoint may be missing."""
        folder = Path(str(resources.files("licquant"))) / "assets"
        artifacts = sorted(folder.glob("*.licq"))
        if not artifacts:
            raise LicquantError("the embedded models are missing: install licquant from a complete source tree")
        checkpoint = folder.parents[2] / "checkpoints" / f"{MODEL}-lambda0.0130{SUFFIX}"
        return cls(list_images(folder / "images"), artifacts, checkpoint if checkpoint.is_file() else None)


def run(output: Path) -> Report:
    """Quantize, encode, decode, measure; everything is written below ``output``."""
    start = time.perf_counter()
    assets = Assets.find()
    make_folder(output)
    points, reference = [], None
    if assets.checkpoint is None:
        note("no FP32 checkpoint here (it is in licquant's source tree): the embedded models only")
    with progress() as on_progress:
        if assets.checkpoint is not None:
            model, lmbda = load_model(MODEL, assets.checkpoint), lmbda_of(assets.checkpoint, None)
            assert lmbda is not None
            live = _quantize(model, assets.checkpoint, lmbda, output / "live.licq", on_progress)
            fp32 = reference_point(model, assets.checkpoint, lmbda, assets.images, on_progress)
            reference = Curve(REFERENCE_LABEL, (fp32,))
            points.append(codec_point("quantized just now", live, (lmbda, MSE), assets.images, Running(), on_progress))
        for path in assets.artifacts:
            of = load(path).artifact.provenance.get("lmbda")
            assert isinstance(of, float)
            points.append(codec_point(f"embedded, λ={of:g}", path, (of, MSE), assets.images, Running(), on_progress))
    shown = output / "live.licq" if reference else assets.artifacts[0]
    _write_images(assets, shown, output)
    curves = [Curve(point.label, (point,)) for point in points]
    facts = provenance.collect(
        images=len(assets.images), checkpoint=assets.checkpoint and checkpoint_sha256(assets.checkpoint)
    )
    report.write_report(output / "results.json", curves, facts, reference)
    pictures.rd_curves(output / "rd.png", curves, reference)
    write_layer_bars(shown, output / "layers.png")
    seconds = time.perf_counter() - start
    record = {**report.report_of(curves, facts, reference), "seconds": seconds}
    return Report(record, lambda: _show(curves, reference, output, seconds))


def _quantize(model: Any, checkpoint: Path, lmbda: float, path: Path, on_progress: OnProgress) -> Path:
    """The checkpoint, quantized live to 8-bit weights and activations."""
    facts = {
        "model": MODEL,
        "lmbda": lmbda,
        "checkpoint_sha256": checkpoint_sha256(checkpoint),
        "command": "licquant demo",
    }
    result = pipeline.quantize(model, dead_leaves(CALIBRATION_IMAGES), provenance=facts, on_progress=on_progress)
    result.artifact.save(path)
    return path


def _write_images(assets: Assets, model: Path, output: Path) -> None:
    """Each image as coded file and as decoded picture, and one comparison to look at where there is an FP32 model."""
    codec = load(model)
    for path in assets.images:
        data = codec.encode(read_image(path))
        write_atomically(output / f"{path.stem}.lic", data)
        write_image(output / f"{path.stem}.png", codec.decode(data))
    if assets.checkpoint is None:
        return
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


def _show(curves: list[Curve], reference: Curve | None, output: Path, seconds: float) -> None:
    title = "licquant demo: real files, averages over the images"
    show_table(report.results_table(curves, reference, title), least=120)
    if reference is not None:
        fp32, live = reference.points[0], curves[0].points[0]
        say(
            f"encode {fp32.encode_seconds / live.encode_seconds:.1f} times and decode "
            f"{fp32.decode_seconds / live.decode_seconds:.1f} times as fast as CompressAI FP32 "
            "(one run each; `make bench` measures it properly)"
        )
    drawn = "rd.png, layers.png" + (", comparison.png" if reference else "")
    say(f"{output}: coded and decoded images, results.json, {drawn}; {seconds:.0f} s")
