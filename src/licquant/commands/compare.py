"""``licquant compare``: the same checkpoints, images and budgets for several methods, in one table."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch

from licquant import pipeline
from licquant.allocate.methods import TABLED
from licquant.allocate.search import Search
from licquant.cluster.session import Cluster, connected
from licquant.codec.files.artifact import Artifact, read_artifact_bytes
from licquant.commands.base import Report
from licquant.commands.evaluate import NO_PICTURES, References, Running, measure, samples_of, write_html
from licquant.commands.prepared import Prepared, make_each, prepare
from licquant.commands.quantize import QuantizeOptions, made_with, quantize, settings_of
from licquant.commands.toolkit import lmbdas_of, make_folder, progress
from licquant.config import Budget
from licquant.errors import ArtifactError, BudgetError, LicquantError
from licquant.evaluate.artifacts import Candidate, grouped
from licquant.images import calibration_files, check_places, list_images
from licquant.reports import report
from licquant.reports.html.folder import PAGE, check_report_place
from licquant.terminal import note, say
from licquant.train.card import loss_of, name_of
from licquant.train.process import kept_threads


@dataclass(frozen=True)
class CompareOptions:
    """The options of ``licquant compare``. threads: of every quantization and measurement"""

    model: str | None
    checkpoints: Sequence[Path]
    calib: Path
    images: Path
    budgets: Sequence[str]
    methods: str  # separated by commas; all if empty
    output: Path
    act_bits: int
    max_bits: int
    steps: int
    threads: int | None
    strict: bool = False
    html: Path | None = None
    cluster: Cluster | None = None


@kept_threads()
def compare(options: CompareOptions) -> Report:
    """Quantize whatever the folder does not hold yet, measure everything, write results and pictures into it.

    A method that cannot meet a budget is left out there and said so; other errors end the command, and the next
    run goes on from the artifacts that are finished.
    """
    jobs, tests = _jobs(options), list_images(options.images)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    cluster = options.cluster and replace(options.cluster, threads=torch.get_num_threads())
    with connected(cluster) if cluster else nullcontext():
        reasons = dict(_on_cluster(cluster, jobs, options) if cluster else _in_turn(jobs))
        made = [job.output for job in jobs if not reasons.get(job.output)]
        missed: list[dict[str, Any]] = [
            {"method": job.method, "budget": job.budget, "lmbda": job.lmbda, "reason": reasons[job.output]}
            for job in jobs
            if reasons.get(job.output)
        ]
        if not made:
            raise BudgetError(f"no method met its budget: {missed[0]['reason']}")
        references = References(options.checkpoints, options.model)
        groups = grouped([Candidate.read(path) for path in made])
        samples = samples_of(groups, tests) if options.html else None
        running = Running(options.threads, cluster=cluster, rows=options.output / "rows")
        measured = measure(groups, references, tests, running, samples=samples)
    measured.facts["missed"] = missed
    measured.write(options.output / "results.json")
    if options.html and samples:
        write_html(options.html, measured, groups, samples)

    def show() -> None:
        for curves, reference in measured.compared:
            report.print_table(report.comparison_table(curves, reference))
        for miss in missed:
            say("left out: {method} {budget}, λ={lmbda:g}: {reason}".format(**miss))
        say(f"{options.output}: artifacts, results.json, pictures")
        if options.html:
            say(f"{options.html / PAGE}: the report")

    return Report(measured.record, show, status=int(measured.failed > 0))


def _in_turn(jobs: Sequence[QuantizeOptions]) -> Iterator[tuple[Path, str]]:
    """Output of every job, and why its budget cannot be met, if so."""
    for number, job in enumerate(jobs, 1):
        note(f"{number}/{len(jobs)} {job.output.name}")
        yield job.output, "" if is_made(job) else _make(job)


def _make(job: QuantizeOptions, prepared: Prepared | None = None) -> str:
    try:
        quantize(job, prepared)
    except BudgetError as error:
        return str(error)
    return ""


def _on_cluster(
    cluster: Cluster, jobs: Sequence[QuantizeOptions], options: CompareOptions
) -> Iterator[tuple[Path, str]]:
    """As ``_in_turn``, of what is not made yet: checkpoints are calibrated here, their tables measured there, then each
    quantization is a task. Sizes and curvature are a matter of seconds: whoever does not find them measures them.
    """
    missing = [job for job in jobs if not is_made(job)]
    prepared: dict[Path, Prepared] = {}
    for job in missing:
        if job.checkpoint not in prepared:
            prepared[job.checkpoint] = prepare(job.checkpoint, job.model, job.calib, job.strict)
    tabled = {(job.checkpoint, job.budget): job for job in missing if job.method in TABLED}
    for job in tabled.values():
        _measure_table(cluster, job, prepared[job.checkpoint])
    outputs = {job.output.absolute(): job.output for job in missing}
    absolute = [
        replace(job, **{name: getattr(job, name).absolute() for name in ("checkpoint", "calib", "output", "cache")})
        for job in missing
    ]
    given = {path.absolute(): one for path, one in prepared.items()}
    for number, (job, reason) in enumerate(make_each(cluster, _make, given, absolute), 1):
        note(f"{number}/{len(missing)} {job.output.name}")
        yield outputs[job.output], reason


def _measure_table(cluster: Cluster, job: QuantizeOptions, prepared: Prepared) -> None:
    """It is in the cache then."""
    lmbda, metric = loss_of(job.checkpoint)
    settings = settings_of(replace(job, cluster=cluster, metric=metric), lmbda)
    traced, statistics = prepared.calibrated
    with progress() as on_progress:
        search = Search(traced, prepared.calibration.images, statistics, settings, on_progress=on_progress)
        search.choices(Budget.parse(job.budget))


def _jobs(options: CompareOptions) -> list[QuantizeOptions]:
    """One quantization for each method, budget and checkpoint; what is wrong with the options is found here."""
    methods = [word.strip() for word in options.methods.split(",") if word.strip()] or list(pipeline.METHODS)
    unknown = [method for method in methods if method not in pipeline.METHODS]
    if unknown:
        raise BudgetError(f"unknown method {unknown[0]!r}: choose from {', '.join(pipeline.METHODS)}")
    for budget in options.budgets:
        Budget.parse(budget)
    calibration_files(options.calib)
    lmbdas = lmbdas_of(options.checkpoints)
    names = {checkpoint: name_of(checkpoint, options.model) for checkpoint in options.checkpoints}
    make_folder(options.output)
    check_places(options.output / "results.json")
    if options.html is not None:
        if options.cluster:
            raise LicquantError(NO_PICTURES)
        check_report_place(options.html, options.output / "results.json")
    return [
        QuantizeOptions(
            model=names[checkpoint],
            checkpoint=checkpoint,
            calib=options.calib,
            output=options.output / _file_name(checkpoint, method, budget, options),
            method=method,
            budget=budget,
            act_bits=options.act_bits,
            max_bits=options.max_bits,
            steps=options.steps,
            strict=options.strict,
            lmbda=lmbda,
            cache=options.output / "measured",
        )
        for method, budget, (checkpoint, lmbda) in product(
            methods, options.budgets, zip(options.checkpoints, lmbdas, strict=True)
        )
    ]


def is_made(job: QuantizeOptions) -> bool:
    """Whether the job's artifact is there, whole, and made with the same checkpoint, images and settings."""
    try:
        found = Artifact.from_bytes(read_artifact_bytes(job.output)).provenance
    except ArtifactError:
        return False
    wanted: dict[str, Any] = made_with(job, job.lmbda, calibration_files(job.calib))
    return all(found.get(key) == value for key, value in wanted.items())


def _file_name(checkpoint: Path, method: str, budget: str, options: CompareOptions) -> str:
    plain = re.sub(r"[^\w.=-]", "_", budget)
    return f"{checkpoint.stem}-{method}-{plain}-w{options.max_bits}-a{options.act_bits}.licq"
