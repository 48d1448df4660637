"""The commands that need the training stack: quantize and evaluate."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from licquant import pipeline
from licquant.codec.artifact import Artifact, read_artifact_bytes
from licquant.codec.codec import load
from licquant.codec.contents import layer_contents
from licquant.commands import OUT, Report
from licquant.config import Budget
from licquant.errors import DataError, LicquantError, ModelError
from licquant.evaluate import pictures, provenance, report
from licquant.evaluate.codec_results import Curve, ImageResult, RatePoint, evaluate_codec
from licquant.evaluate.reference import evaluate_reference
from licquant.images import list_images, read_image
from licquant.models import load_model
from licquant.quant.insert import QuantizerSettings
from licquant.quant.ranges import RANGE_METHODS

CODEC_LABEL = "licquant"
REFERENCE_LABEL = "CompressAI FP32"


@dataclass(frozen=True)
class QuantizeOptions:
    """The options of ``licquant quantize``, in the order of its help."""

    model: str
    checkpoint: Path
    calib: Path
    output: Path
    method: str
    budget: str
    act_bits: int
    ranges: str
    per_channel: bool
    steps: int
    lmbda: float | None
    licence: str


def quantize(options: QuantizeOptions) -> Report:
    """Everything that can be wrong with the options is found before the long work begins."""
    if options.ranges not in RANGE_METHODS:
        raise LicquantError(f"unknown ranges {options.ranges!r}: choose one of {', '.join(RANGE_METHODS)}")
    budget = Budget.parse(options.budget)
    paths = list_images(options.calib)
    if not options.output.parent.is_dir():
        raise LicquantError(f"{options.output.parent}: there is no such folder")
    lmbda = lmbda_of(options.checkpoint, options.lmbda)
    if options.steps and lmbda is None:
        raise ModelError(f"{options.checkpoint}: no model card beside it says λ: add --lmbda, or --steps 0")
    model = load_model(options.model, options.checkpoint)
    settings = pipeline.Settings(
        activation_bits=options.act_bits,
        quantizer=QuantizerSettings(RANGE_METHODS[options.ranges], options.per_channel),
        reconstruction_steps=options.steps,
        lmbda=lmbda,
    )
    record = {
        "model": options.model,
        "checkpoint_sha256": sha256(options.checkpoint),
        "lmbda": lmbda,
        "calibration_images": len(paths),
        "method": options.method,
        "budget": options.budget,
        "command": " ".join(["licquant", *_without_paths(sys.argv[1:])]),
    }
    with progress() as on_progress:
        images = [read_image(path) for path in paths]
        result = pipeline.quantize(model, images, options.method, budget, settings, record, on_progress)
    size = result.artifact.save(options.output)
    fp32 = result.quantized.traced.fp32_bytes
    found = {**record, "output": str(options.output), "bytes": size, "fp32_bytes": fp32, "plan_hash": result.plan.hash}
    line = f"{options.output}: {size:,} bytes, {100 * size / fp32:.1f} % of FP32 ({fp32:,} bytes)"
    return Report(found, lambda: OUT.print(line, highlight=False))


def evaluate(
    images: Path, models: Sequence[Path], output: Path, references: Sequence[Path], name: str, threads: int | None
) -> Report:
    """Real files only: see ``evaluate/``. Pictures are written beside the JSON."""
    paths = list_images(images)
    if not output.parent.is_dir():
        raise LicquantError(f"{output.parent}: there is no such folder")
    if threads is not None:
        torch.set_num_threads(threads)
    artifacts = sorted((_artifact(path) for path in models), key=lambda item: item[1])
    with progress() as on_progress:
        points = [codec_point(CODEC_LABEL, path, lmbda, paths, threads, on_progress) for path, lmbda in artifacts]
        ordered = sorted(((path, lmbda_of(path, None)) for path in references), key=lambda item: item[1] or 0.0)
        baseline = [reference_point(name, path, _known(path, lmbda), paths, on_progress) for path, lmbda in ordered]
    curve = Curve(CODEC_LABEL, tuple(points))
    reference = Curve(REFERENCE_LABEL, tuple(baseline)) if baseline else None
    facts = provenance.collect(
        threads=threads,
        images=len(paths),
        artifacts=[sha256(path) for path, _ in artifacts],
        plans=[Artifact.from_bytes(read_artifact_bytes(path)).plan.hash for path, _ in artifacts],
        checkpoints=[sha256(path) for path, _ in ordered],
    )
    report.write_report(output, [curve], facts, reference)
    pictures.rd_curves(output.with_name(output.stem + "-rd.png"), [curve], reference)
    for path, lmbda in artifacts:
        write_layer_bars(path, output.with_name(f"{output.stem}-layers-{lmbda:g}.png"))
    table = report.results_table([curve], reference)
    return Report(report.report_of([curve], facts, reference), lambda: Console(width=120).print(table))


def codec_point(
    label: str,
    path: Path,
    lmbda: float,
    paths: Sequence[Path],
    threads: int | None,
    on_progress: pipeline.OnProgress,
) -> RatePoint:
    """One artifact over the images."""
    codec = load(path, threads=threads)
    count = _Counter(f"{path.name}", len(paths), on_progress)
    results = evaluate_codec(codec, paths, lmbda, on_result=count)
    return RatePoint(label, lmbda, tuple(results), path.stat().st_size)


def reference_point(
    name: str, path: Path, lmbda: float, paths: Sequence[Path], on_progress: pipeline.OnProgress
) -> RatePoint:
    """One FP32 checkpoint over the images, through CompressAI's own coder."""
    model = load_model(name, path)
    count = _Counter(f"{path.name} (FP32)", len(paths), on_progress)
    results = evaluate_reference(model, paths, lmbda, on_result=count)
    return RatePoint(REFERENCE_LABEL, lmbda, tuple(results), 4 * sum(p.numel() for p in model.parameters()))


def write_layer_bars(path: Path, picture: Path) -> None:
    """The widths and sizes of an artifact's layers as a picture."""
    data = read_artifact_bytes(path)
    layers = [
        pictures.LayerSize(c.name, c.part, c.weight_bits, c.activation_bits, c.bytes, 4 * c.weights)
        for c in layer_contents(data, Artifact.from_bytes(data))
        if c.weights and c.weight_bits is not None and c.activation_bits is not None
    ]
    pictures.layer_bars(picture, layers, title=path.name)


def lmbda_of(checkpoint: Path, given: float | None) -> float | None:
    """λ as given, else from the model card beside the checkpoint, else None."""
    if given is not None:
        return given
    try:
        value = json.loads(checkpoint.with_suffix(".json").read_text())["lmbda"]
        return float(value)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@contextmanager
def progress() -> Iterator[pipeline.OnProgress]:
    """A progress bar on standard error for whatever long work goes on."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as bars:
        tasks: dict[str, Any] = {}

        def on_progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield on_progress


class _Counter:
    """Reports each image that is done."""

    def __init__(self, what: str, total: int, on_progress: pipeline.OnProgress) -> None:
        self.what, self.total, self.on_progress, self.done = what, total, on_progress, 0

    def __call__(self, result: ImageResult) -> None:
        self.done += 1
        self.on_progress(self.what, self.done, self.total)


def _artifact(path: Path) -> tuple[Path, float]:
    """(path, λ) of an artifact; its λ is in its provenance."""
    lmbda = Artifact.from_bytes(read_artifact_bytes(path)).provenance.get("lmbda")
    if not isinstance(lmbda, float | int):
        raise DataError(f"{path}: does not say its λ: quantize with --lmbda, or put a model card beside the checkpoint")
    return path, float(lmbda)


def _known(path: Path, lmbda: float | None) -> float:
    if lmbda is None:
        raise ModelError(f"{path}: no model card beside it says λ ({path.with_suffix('.json').name}, key lmbda)")
    return lmbda


def _without_paths(words: Sequence[str]) -> list[str]:
    """File names without their folders: an artifact travels, and need not tell where it was made."""
    return [Path(word).name if "/" in word else word for word in words]
