"""``licquant evaluate``: artifacts and FP32 checkpoints measured on images, one curve for each group."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from licquant import pipeline
from licquant.cluster.session import Cluster
from licquant.cluster.sources import expand
from licquant.codec.codec import load
from licquant.commands.base import Report
from licquant.commands.file_lists import distinct_names, images_meant
from licquant.commands.measuring import Subject, measure_on_cluster
from licquant.commands.toolkit import known_lmbda, progress, shown_command, write_layer_bars
from licquant.errors import LicquantError
from licquant.evaluate import provenance, widths
from licquant.evaluate.artifacts import Candidate, Group, grouped
from licquant.evaluate.codec_results import Curve, ImageResult, OnCoded, RatePoint, evaluate_codec
from licquant.evaluate.rd import MSE, check_loss
from licquant.evaluate.reference import evaluate_reference
from licquant.images import check_places
from licquant.models.shards import checkpoint_sha256
from licquant.reports import allocation_pictures, dynaquant_pictures, pictures, report
from licquant.reports.html.folder import PAGE, check_report_place, write_report
from licquant.reports.html.record import report_record
from licquant.reports.html.samples import Samples
from licquant.terminal import say
from licquant.train.card import load_checkpoint, loss_of, name_of
from licquant.train.process import kept_threads

REFERENCE_LABEL = "CompressAI FP32"
NO_PICTURES = "--html shows pictures, which a cluster does not send: leave out --cluster"


@dataclass(frozen=True)
class References:
    """The FP32 checkpoints that artifacts are compared with; model, arguments: as ``card.load_checkpoint`` has them."""

    checkpoints: Sequence[Path]
    model: str | None
    arguments: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Running:
    """How codecs are run: threads, None for the libraries' choice, and the device of the free zone.

    cluster: None for this process;  rows: folder for what it finds;  found: that, path of a model → one for each image
    """

    threads: int | None = None
    device: str = "CPU"
    cluster: Cluster | None = None
    rows: Path = Path("rows")
    found: Mapping[Path, Sequence[ImageResult]] = field(default_factory=dict)


def evaluate(
    images: Sequence[Path],
    models: Sequence[Path],
    output: Path,
    references: References,
    running: Running,
    metric: str | None = None,
    html: Path | None = None,
) -> Report:
    """Real files only: see ``evaluate/``. Pictures are written beside the JSON. images: as ``images_meant``

    html: a folder for a report (``reports/html``)
    """
    paths = images_meant(images, expand) if running.cluster else images_meant(images)
    check_places(output, output.with_name(f"{output.stem}-rd.png"))
    if html is not None:
        check_report_place(html, output)
        if running.cluster:
            raise LicquantError(NO_PICTURES)
    groups = grouped([Candidate.read(path) for path in models])
    samples = samples_of(groups, paths) if html else None
    measured = measure(groups, references, paths, running, metric, samples)
    measured.write(output)
    if html and samples:
        write_html(html, measured, groups, samples)
    for group, curve in zip(groups, measured.curves, strict=True):
        for member, point in zip(group.members, curve.points, strict=True):
            of_member = f"{_in_file_names(group.label)}-{member.lmbda:g}.png"
            write_layer_bars(member.path, output.with_name(f"{output.stem}-layers-{of_member}"))
            if point.choices:
                named = {image.name: image.widths for image in point.images}
                dynaquant_pictures.chosen(output.with_name(f"{output.stem}-widths-{of_member}"), named)

    def show() -> None:
        measured.show()
        if html:
            say(f"{html / PAGE}: the report")

    return Report(measured.record, show, status=int(measured.failed > 0))


def samples_of(groups: Sequence[Group], paths: Sequence[Path]) -> Samples:
    """What a report will show of the images, to be gathered by ``measure``."""
    curves = {group.label: [member.lmbda for member in group.members] for group in groups}
    return Samples(paths, distinct_names(paths), curves)


def write_html(folder: Path, measured: Measured, groups: Sequence[Group], samples: Samples) -> None:
    """The report of what was measured; errors as ``write_report``."""
    record = report_record(measured.record, groups, samples, shown_command(sys.argv[1:]))
    write_report(folder, record, samples.pictures)


def _in_file_names(label: str) -> str:
    """A label as part of a file's name: it has words that whoever made the artifact chose."""
    return re.sub(r"[^A-Za-z0-9._=,%+-]+", "-", label)[:100]


@dataclass(frozen=True)
class Measured:
    """Artifacts measured on images, one curve for each group, and what they were measured with.

    references: model → curve of its FP32 checkpoints;  models: of each curve
    failed:     images that could not be measured, and are left out everywhere
    """

    curves: list[Curve]
    references: dict[str, Curve]
    models: list[str]
    facts: dict[str, Any]
    failed: int = 0

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
        """What ``--json`` prints: one report, or those against several references joined."""
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
        """Print a table of the curves for every reference, and the widths that images got."""
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
    references: References,
    paths: Sequence[Path],
    running: Running,
    metric: str | None = None,
    samples: Samples | None = None,
) -> Measured:
    """Every artifact and every FP32 checkpoint over the images; what is wrong with a checkpoint's λ is found first.

    samples: to be filled
    """
    losses = {path: loss_of(path, None, metric) for path in references.checkpoints}
    ordered = sorted(
        ((path, known_lmbda(path, lmbda)) for path, (lmbda, _) in losses.items()), key=lambda item: item[1]
    )
    if running.threads is not None:
        torch.set_num_threads(running.threads)
    asked = len(paths)
    if running.cluster:
        of_artifacts = [Subject(m.path, m.lmbda, metric or m.metric) for group in groups for m in group.members]
        arguments = json.dumps(references.arguments)
        of_fp32 = [Subject(p, of, losses[p][1], name_of(p, references.model), arguments) for p, of in ordered]
        paths, found = measure_on_cluster(
            running.cluster, [*of_artifacts, *of_fp32], running.device, paths, running.rows
        )
        running = replace(running, found=found)
    curves = []
    with progress() as on_progress:
        for group in groups:
            points = []
            for member in group.members:
                watch = samples.watch(group.label, member.lmbda) if samples else None
                loss = member.lmbda, metric or member.metric
                point = codec_point(group.label, member.path, loss, paths, running, on_progress, watch)
                chosen = [image.widths for image in point.images]
                points.append(replace(point, bits=member.bits(chosen), bops=member.bops(chosen)))
            curves.append(Curve(group.label, tuple(points), group.method))
        families = {path: name_of(path, references.model) for path, _ in ordered}
        labels = _reference_labels(families.values())
        baselines: dict[str, list[RatePoint]] = {family: [] for family in labels}
        for path, lmbda in ordered:
            model = load_checkpoint(path, families[path], references.arguments)
            label = labels[families[path]]
            watch = samples.watch_reference(label, lmbda) if samples else None
            if path in running.found:
                point = RatePoint(label, lmbda, _named(running.found[path], paths), _fp32_bytes(model))
            else:
                point = reference_point(model, path, lmbda, paths, on_progress, losses[path][1], watch)
            baselines[families[path]].append(replace(point, label=label))
    members = [member for group in groups for member in group.members]
    facts = provenance.collect(
        threads=running.threads,
        **({} if running.device == "CPU" else {"device": running.device}),
        images=len(paths),
        artifacts=[member.sha256 for member in members],
        plans=[member.plan_hash for member in members],
        checkpoints=[checkpoint_sha256(path) for path, _ in ordered],
    )
    models = [str(group.members[0].provenance.get("model")) for group in groups]
    of_models = {family: Curve(labels[family], tuple(points)) for family, points in baselines.items()}
    return Measured(curves, of_models, models, facts, asked - len(paths))


def codec_point(
    label: str,
    path: Path,
    loss: tuple[float, str],
    paths: Sequence[Path],
    running: Running,
    on_progress: pipeline.OnProgress,
    on_coded: OnCoded | None = None,
) -> RatePoint:
    """One artifact over the images. loss: its λ and metric"""
    lmbda, metric = loss
    check_loss(lmbda, metric, f"{path}: λ")
    results = running.found.get(path)
    if results is None:
        codec = widths.Recording(load(path, threads=running.threads, device=running.device))
        count = _Counter(f"{path.name}", len(paths), on_progress)
        measured = evaluate_codec(codec, paths, lmbda, metric=metric, on_result=count, on_coded=on_coded)
        results = [replace(result, widths=of) for result, of in zip(measured, codec.widths, strict=True)]
    return RatePoint(label, lmbda, _named(results, paths), path.stat().st_size)


def _reference_labels(models: Iterable[str]) -> dict[str, str]:
    """The label of every model's curve; with several, each says its name."""
    names = list(dict.fromkeys(models))
    return {name: REFERENCE_LABEL if len(names) == 1 else f"{REFERENCE_LABEL} {name}" for name in names}


def reference_point(
    model: Any,
    path: Path,
    lmbda: float,
    paths: Sequence[Path],
    on_progress: pipeline.OnProgress,
    metric: str = MSE,
    on_coded: OnCoded | None = None,
) -> RatePoint:
    """One FP32 checkpoint over the images, through CompressAI's own coder."""
    count = _Counter(f"{path.name} (FP32)", len(paths), on_progress)
    results = evaluate_reference(model, paths, lmbda, metric=metric, on_result=count, on_coded=on_coded)
    return RatePoint(REFERENCE_LABEL, lmbda, _named(results, paths), _fp32_bytes(model))


def _named(results: Sequence[ImageResult], paths: Sequence[Path]) -> tuple[ImageResult, ...]:
    return tuple(replace(result, name=name) for result, name in zip(results, distinct_names(paths), strict=True))


def _fp32_bytes(model: Any) -> int:
    return 4 * sum(p.numel() for p in model.parameters())


class _Counter:
    """Reports each image that is done."""

    def __init__(self, what: str, total: int, on_progress: pipeline.OnProgress) -> None:
        self.what, self.total, self.on_progress, self.done = what, total, on_progress, 0

    def __call__(self, result: ImageResult) -> None:
        self.done += 1
        self.on_progress(self.what, self.done, self.total)
