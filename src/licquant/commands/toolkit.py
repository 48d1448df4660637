"""The commands that need the training stack: quantize and evaluate."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from licquant import pipeline
from licquant.allocate.file_budget import FileSize
from licquant.allocate.sensitivity import ACTIVATIONS, WEIGHTS, Sensitivity
from licquant.codec.codec import load
from licquant.codec.files.artifact import Artifact, read_artifact_bytes
from licquant.codec.files.contents import layer_contents
from licquant.commands.base import Report
from licquant.commands.file_lists import distinct_names, images_meant
from licquant.config import Budget, Plan, parse_json
from licquant.digests import contents_sha256, file_sha256
from licquant.errors import LicquantError, ModelError, PlanError
from licquant.evaluate import provenance, widths
from licquant.evaluate.artifacts import Candidate, Group, grouped
from licquant.evaluate.codec_results import Curve, ImageResult, RatePoint, evaluate_codec
from licquant.evaluate.latency import LatencyTable
from licquant.evaluate.rd import MSE, check_loss
from licquant.evaluate.reference import evaluate_reference
from licquant.images import calibration_files, check_places, read_calibration, utf8, write_atomically
from licquant.images.calibration import Calibration
from licquant.models.shards import checkpoint_sha256
from licquant.quant.insert import QuantizerSettings
from licquant.quant.ranges import RANGE_METHODS
from licquant.reports import allocation_pictures, pictures, report, width_pictures
from licquant.terminal import progress_bars, say
from licquant.train.card import load_checkpoint, loss_of, name_of
from licquant.train.memory import keep_freed_memory
from licquant.train.threads import kept_threads

REFERENCE_LABEL = "CompressAI FP32"


@dataclass(frozen=True, kw_only=True)
class WidthOptions:
    """The options of every command that quantizes: which widths, and how their cost is counted."""

    method: str = "uniform"
    budget: str = "bits=8"
    act_bits: int = 8
    max_bits: int = 8
    plan: Path | None = None
    latency: Path | None = None
    licence: str = "not stated"
    strict: bool = False

    def facts(self) -> dict[str, Any]:
        """What of them decides an artifact's content, beside the method."""
        return {
            "budget": self.budget,
            "act_bits": self.act_bits,
            "max_bits": self.max_bits,
            "plan": None if self.plan is None else file_sha256(self.plan),
            "latency": None if self.latency is None else file_sha256(self.latency),
        }

    def settings(self) -> pipeline.Settings:
        return pipeline.Settings(
            activation_bits=self.act_bits,
            max_bits=self.max_bits,
            plan=None if self.plan is None else read_plan(self.plan),
            latency=None if self.latency is None else LatencyTable.load(self.latency),
            licence=self.licence,
        )


@dataclass(frozen=True, kw_only=True)
class QuantizeOptions(WidthOptions):
    """The options of ``licquant quantize``."""

    model: str | None
    checkpoint: Path
    calib: Path
    output: Path
    model_args: Mapping[str, Any] | None = None
    ranges: str = "mse"
    per_channel: bool = True
    steps: int
    lmbda: float | None = None
    metric: str | None = None
    cache: Path | None = None


def quantize(options: QuantizeOptions) -> Report:
    """Everything that can be wrong with the options is found before the long work begins."""
    if options.ranges not in RANGE_METHODS:
        raise LicquantError(f"unknown ranges {options.ranges!r}: choose one of {', '.join(RANGE_METHODS)}")
    budget = Budget.parse(options.budget)
    paths = calibration_files(options.calib)
    lmbda, metric = loss_of(options.checkpoint, options.lmbda, options.metric)
    options = replace(options, metric=metric)
    check_places(options.output, *findings_of(options.output).values())
    if options.steps and lmbda is None:
        raise ModelError(f"{options.checkpoint}: no model card beside it says λ: add --lmbda, or --steps 0")
    settings = replace(  # built before the model is loaded: it refuses what is out of range
        options.settings(),
        quantizer=QuantizerSettings(RANGE_METHODS[options.ranges], options.per_channel),
        reconstruction_steps=options.steps,
        lmbda=lmbda,
        metric=metric,
        cache=options.cache,
    )
    keep_freed_memory()
    options = replace(options, model=name_of(options.checkpoint, options.model))
    model = load_checkpoint(options.checkpoint, options.model, options.model_args)
    command = " ".join(["licquant", *_without_paths(sys.argv[1:])])
    record = {**made_with(options, lmbda, paths), "command": command}
    with progress() as on_progress:
        calibration = read_calibration(paths, options.strict)
        result = pipeline.quantize(model, calibration.images, options.method, budget, settings, record, on_progress)
    size = result.artifact.save(options.output)
    if result.sensitivity is not None and lmbda is not None:
        write_findings(options.output, result.sensitivity, result.plan, lmbda)
    fp32 = result.quantized.traced.fp32_bytes
    found = {**record, "output": str(options.output), "bytes": size, "fp32_bytes": fp32, "plan_hash": result.plan.hash}
    found |= {**size_facts(result.size), "skipped": say_skipped(calibration, len(paths))}
    line = f"{options.output}: {size:,} bytes, {100 * size / fp32:.1f} % of FP32 ({fp32:,} bytes){told(result.size)}"
    return Report(found, lambda: say(line))


def size_facts(size: FileSize | None) -> dict[str, int]:
    """Under a budget of the file: what it may have, what was expected, what it has, in bytes."""
    if size is None:
        return {}
    return {"budget_bytes": size.budget, "predicted_bytes": size.predicted, "written_bytes": size.written}


def told(size: FileSize | None) -> str:
    return "" if size is None else f"; budget {size.budget:,}, predicted {size.predicted:,}"


def findings_of(output: Path) -> dict[str, Path]:
    """What ``write_findings`` writes beside an artifact."""
    beside = output.with_suffix("")
    endings = {"plan": "-plan.json", "zeta": "-zeta.png", "layers": "-layers.png"}
    return {name: beside.with_name(beside.name + ending) for name, ending in endings.items()}


def write_findings(output: Path, table: Sensitivity, plan: Plan, lmbda: float) -> None:
    """Beside an artifact: its plan as JSON, what it was chosen from and what came of it as pictures."""
    places = findings_of(output)
    write_atomically(places["plan"], json.dumps(plan.to_json(), indent=1).encode())
    bits = sorted({width for *_, width in table.changes})
    tables = {
        kind: np.array(
            [
                [table.zeta(layer, kind, b, lmbda) if b in table.widths(layer, kind) else np.nan for b in bits]
                for layer in table.layers
            ]
        )
        for kind in (WEIGHTS, ACTIVATIONS)
    }
    parts = [layer.partition(".")[0] for layer in table.layers]
    allocation_pictures.zeta_heat_map(places["zeta"], table.layers, parts, bits, tables)
    write_layer_bars(output, places["layers"])


def made_with(options: QuantizeOptions, lmbda: float | None, calibration: Sequence[Path]) -> dict[str, Any]:
    """What decides an artifact's content beside the code, its libraries and the machine, for its provenance.

    With all of these the same, equal records are equal artifacts but for the licence. Otherwise not to the byte: sums
    of floats differ by their last digits, and reconstruction amplifies that.
    """
    return {
        "model": options.model,
        **({"model_args": dict(options.model_args)} if options.model_args else {}),
        "checkpoint_sha256": checkpoint_sha256(options.checkpoint),
        "lmbda": lmbda,
        **({"metric": options.metric} if options.metric not in (None, MSE) else {}),
        **calibration_facts(calibration),
        "method": options.method,
        **options.facts(),
        "ranges": options.ranges,
        "per_channel": options.per_channel,
        "steps": options.steps,
    }


def calibration_facts(calibration: Sequence[Path]) -> dict[str, Any]:
    """How many images, and a hash of the contents of those that can be read."""
    readable = [path for path in calibration if path.is_file() and os.access(path, os.R_OK)]
    return {"calibration_images": len(calibration), "calibration_sha256": contents_sha256(readable)}


def say_skipped(calibration: Calibration, count: int) -> list[str]:
    """The calibration files that were skipped, of so many, as lines on standard error; the same for programs."""
    if calibration.skipped:
        sys.stderr.write(f"licquant: {len(calibration.skipped)} of {count} calibration images were skipped:\n")
        sys.stderr.writelines(f"    {line}\n" for line in calibration.skipped)
    return calibration.skipped


def read_plan(path: Path) -> Plan:
    """The plan in a JSON file; ``PlanError`` if there is none."""
    try:
        return Plan.from_json(parse_json(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise PlanError(f"{path}: not a plan: {error}") from error


def evaluate(
    images: Sequence[Path],
    models: Sequence[Path],
    output: Path,
    references: Sequence[Path],
    name: str | None,
    threads: int | None,
    model_args: Mapping[str, Any] | None = None,
    metric: str | None = None,
) -> Report:
    """Real files only: see ``evaluate/``. Pictures are written beside the JSON. images: as ``images_meant``"""
    paths = images_meant(images)
    check_places(output, output.with_name(f"{output.stem}-rd.png"))
    groups = grouped([Candidate.read(path) for path in models])
    measured = measure(groups, references, paths, name, threads, model_args, metric)
    measured.write(output)
    for group, curve in zip(groups, measured.curves, strict=True):
        for member, point in zip(group.members, curve.points, strict=True):
            of_member = f"{_in_file_names(group.label)}-{member.lmbda:g}.png"
            write_layer_bars(member.path, output.with_name(f"{output.stem}-layers-{of_member}"))
            if point.choices:
                named = {image.name: image.widths for image in point.images}
                width_pictures.chosen(output.with_name(f"{output.stem}-widths-{of_member}"), named)
    return Report(measured.record, measured.show)


def _in_file_names(label: str) -> str:
    """A label as part of a file's name: it has words that whoever made the artifact chose."""
    return re.sub(r"[^A-Za-z0-9._=,%+-]+", "-", label)[:100]


@dataclass(frozen=True)
class Measured:
    """Artifacts measured on images, one curve for each group, and what they were measured with.

    references: model → curve of its FP32 checkpoints;  models: of each curve
    """

    curves: list[Curve]
    references: dict[str, Curve]
    models: list[str]
    facts: dict[str, Any]

    @property
    def reference(self) -> Curve | None:
        """Of the first model."""
        return next(iter(self.references.values()), None)

    @property
    def compared(self) -> list[tuple[list[Curve], Curve | None]]:
        """The curves with what each is compared with: of several references the one of the same model."""
        if len(self.references) < 2:
            return [(self.curves, self.reference)]
        of_model: dict[str | None, list[Curve]] = {name: [] for name in self.references}
        for curve, model in zip(self.curves, self.models, strict=True):
            of_model.setdefault(model if model in self.references else None, []).append(curve)
        return [(curves, self.references.get(str(name))) for name, curves in of_model.items()]

    @property
    def record(self) -> dict[str, Any]:
        records = [report.report_of(curves, self.facts, reference) for curves, reference in self.compared]
        if len(records) == 1:
            return records[0]
        joined = {key: [item for record in records for item in record[key]] for key in ("curves", "comparisons")}
        return {**records[0], **joined, "references": [record["reference"] for record in records]}

    def write(self, output: Path) -> None:
        """The JSON; beside it the RD curves and, for each λ with several sizes, loss against bytes."""
        report.write_json(output, self.record)
        others = list(self.references.values())[1:]
        pictures.rd_curves(output.with_name(f"{output.stem}-rd.png"), [*self.curves, *others], self.reference)
        for curves, reference in self.compared:
            for fp32 in reference.points if reference else ():
                assert reference
                found = report.losses_by_bytes(curves, reference, fp32.lmbda)
                if fp32.model_bytes and sum(map(len, found.values())) > 1:
                    of_model = reference.label.removeprefix(REFERENCE_LABEL).replace(" ", "-")
                    picture = output.with_name(f"{output.stem}-pareto{of_model}-{fp32.lmbda:g}.png")
                    title = f"λ = {fp32.lmbda:g}, averages over {len(fp32.images)} images"
                    allocation_pictures.pareto(picture, found, fp32.model_bytes, title)

    def show(self) -> None:
        for curves, reference in self.compared:
            report.print_table(report.results_table(curves, reference))
            if curves:
                report.print_table(report.comparison_table(curves, reference))
        say(report.RATE if not self.references else f"{report.RATE}; {report.REFERENCE_RATE}")
        for curve in self.curves:
            for point in curve.points:
                if point.choices:
                    line = f"{curve.label}, λ={point.lmbda:g}: {widths.sentence(point.choices)}"
                    say(line)


@kept_threads()
def measure(
    groups: Sequence[Group],
    references: Sequence[Path],
    paths: Sequence[Path],
    name: str | None,
    threads: int | None,
    model_args: Mapping[str, Any] | None = None,
    metric: str | None = None,
) -> Measured:
    """Every artifact and every FP32 checkpoint over the images; what is wrong with a checkpoint's λ is found first."""
    losses = {path: loss_of(path, None, metric) for path in references}
    ordered = sorted(((path, _known(path, lmbda)) for path, (lmbda, _) in losses.items()), key=lambda item: item[1])
    if threads is not None:
        torch.set_num_threads(threads)
    curves = []
    with progress() as on_progress:
        for group in groups:
            points = []
            for member in group.members:
                point = codec_point(
                    group.label, member.path, member.lmbda, paths, threads, on_progress, metric or member.metric
                )
                chosen = [image.widths for image in point.images]
                points.append(replace(point, bits=member.bits(chosen), bops=member.bops(chosen)))
            curves.append(Curve(group.label, tuple(points), group.method))
        baselines: dict[str, list[RatePoint]] = {}
        for path, lmbda in ordered:
            family = name_of(path, name)
            model = load_checkpoint(path, family, model_args)
            baselines.setdefault(family, []).append(
                reference_point(model, path, lmbda, paths, on_progress, losses[path][1])
            )
    members = [member for group in groups for member in group.members]
    facts = provenance.collect(
        threads=threads,
        images=len(paths),
        artifacts=[member.sha256 for member in members],
        plans=[member.plan_hash for member in members],
        checkpoints=[checkpoint_sha256(path) for path, _ in ordered],
    )
    models = [str(group.members[0].provenance.get("model")) for group in groups]
    return Measured(curves, _references(baselines), models, facts)


def codec_point(
    label: str,
    path: Path,
    lmbda: float,
    paths: Sequence[Path],
    threads: int | None,
    on_progress: pipeline.OnProgress,
    metric: str = MSE,
) -> RatePoint:
    """One artifact over the images."""
    check_loss(lmbda, metric, f"{path}: λ")
    codec = widths.Recording(load(path, threads=threads))
    count = _Counter(f"{path.name}", len(paths), on_progress)
    results = evaluate_codec(codec, paths, lmbda, metric=metric, on_result=count)
    of_images = zip(results, distinct_names(paths), codec.widths, strict=True)
    told = tuple(replace(result, name=name, widths=of) for result, name, of in of_images)
    return RatePoint(label, lmbda, told, path.stat().st_size)


def _references(baselines: Mapping[str, Sequence[RatePoint]]) -> dict[str, Curve]:
    """The curve of every model; with several, each says its name."""
    curves = {}
    for name, points in baselines.items():
        label = REFERENCE_LABEL if len(baselines) == 1 else f"{REFERENCE_LABEL} {name}"
        curves[name] = Curve(label, tuple(replace(point, label=label) for point in points))
    return curves


def reference_point(
    model: Any,
    path: Path,
    lmbda: float,
    paths: Sequence[Path],
    on_progress: pipeline.OnProgress,
    metric: str = MSE,
) -> RatePoint:
    """One FP32 checkpoint over the images, through CompressAI's own coder."""
    count = _Counter(f"{path.name} (FP32)", len(paths), on_progress)
    results = evaluate_reference(model, paths, lmbda, metric=metric, on_result=count)
    told = tuple(replace(result, name=name) for result, name in zip(results, distinct_names(paths), strict=True))
    return RatePoint(REFERENCE_LABEL, lmbda, told, 4 * sum(p.numel() for p in model.parameters()))


def write_layer_bars(path: Path, picture: Path) -> None:
    """The widths and sizes of an artifact's layers as a picture."""
    data = read_artifact_bytes(path)
    artifact = Artifact.from_bytes(data)
    layers = [
        pictures.LayerSize(c.name, c.part, c.weight_bits, c.activation_bits, c.bytes, 4 * c.weights)
        for c in layer_contents(data, artifact)
        if c.weights and c.weight_bits is not None and c.activation_bits is not None
    ]
    pictures.layer_bars(picture, layers, title=path.name + (", the widest of its widths" if artifact.dynamic else ""))


def lmbdas_of(checkpoints: Sequence[Path]) -> list[float]:
    """λ by the model card beside each; ``ModelError`` where there is none, or two are the same."""
    found = [_known(path, loss_of(path)[0]) for path in checkpoints]
    if len(set(found)) < len(found):
        raise ModelError("two of the checkpoints have the same λ: take them one after the other")
    return found


def make_folder(path: Path) -> None:
    """``LicquantError`` if it cannot be made."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise LicquantError(f"{path}: cannot be made: {getattr(error, 'strerror', None) or error}") from error


@contextmanager
def progress() -> Iterator[pipeline.OnProgress]:
    """A progress bar on standard error for whatever long work goes on."""
    with progress_bars() as bars:
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


def _known(path: Path, lmbda: float | None) -> float:
    if lmbda is None:
        raise ModelError(f"{path}: no model card beside it says λ ({path.with_suffix('.json').name}, key lmbda)")
    return lmbda


def _without_paths(words: Sequence[str]) -> list[str]:
    """File names without their folders: an artifact travels, and need not tell where it was made.

    What is not UTF-8 in them is told by escapes.
    """
    return [utf8(Path(word).name if "/" in word else word).decode() for word in words]
