"""``licquant evaluate``: artifacts and FP32 checkpoints measured on images, one curve for each group."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from licquant import pipeline
from licquant.codec.codec import load
from licquant.commands.base import Report
from licquant.commands.file_lists import distinct_names, images_meant
from licquant.commands.toolkit import known_lmbda, progress, write_layer_bars
from licquant.evaluate import provenance, widths
from licquant.evaluate.artifacts import Candidate, Group, grouped
from licquant.evaluate.codec_results import Curve, ImageResult, RatePoint, evaluate_codec
from licquant.evaluate.rd import MSE, check_loss
from licquant.evaluate.reference import evaluate_reference
from licquant.images import check_places
from licquant.models.shards import checkpoint_sha256
from licquant.reports import allocation_pictures, pictures, report, width_pictures
from licquant.terminal import say
from licquant.train.card import load_checkpoint, loss_of, name_of
from licquant.train.threads import kept_threads

REFERENCE_LABEL = "CompressAI FP32"


def evaluate(
    images: Sequence[Path],
    models: Sequence[Path],
    output: Path,
    references: Sequence[Path],
    name: str | None,
    threads: int | None,
    model_args: Mapping[str, Any] | None = None,
    metric: str | None = None,
    device: str = "CPU",
) -> Report:
    """Real files only: see ``evaluate/``. Pictures are written beside the JSON. images: as ``images_meant``"""
    paths = images_meant(images)
    check_places(output, output.with_name(f"{output.stem}-rd.png"))
    groups = grouped([Candidate.read(path) for path in models])
    measured = measure(groups, references, paths, name, threads, model_args, metric, device)
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
    device: str = "CPU",
) -> Measured:
    """Every artifact and every FP32 checkpoint over the images; what is wrong with a checkpoint's λ is found first."""
    losses = {path: loss_of(path, None, metric) for path in references}
    ordered = sorted(
        ((path, known_lmbda(path, lmbda)) for path, (lmbda, _) in losses.items()), key=lambda item: item[1]
    )
    if threads is not None:
        torch.set_num_threads(threads)
    curves = []
    with progress() as on_progress:
        for group in groups:
            points = []
            for member in group.members:
                point = codec_point(
                    group.label, member.path, member.lmbda, paths, threads, on_progress, metric or member.metric, device
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
        **({} if device == "CPU" else {"device": device}),
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
    device: str = "CPU",
) -> RatePoint:
    """One artifact over the images."""
    check_loss(lmbda, metric, f"{path}: λ")
    codec = widths.Recording(load(path, threads=threads, device=device))
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


class _Counter:
    """Reports each image that is done."""

    def __init__(self, what: str, total: int, on_progress: pipeline.OnProgress) -> None:
        self.what, self.total, self.on_progress, self.done = what, total, on_progress, 0

    def __call__(self, result: ImageResult) -> None:
        self.done += 1
        self.on_progress(self.what, self.done, self.total)
