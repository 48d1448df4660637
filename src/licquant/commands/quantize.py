"""``licquant quantize``: a trained model to a .licq file, and what is written beside it."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from licquant import pipeline
from licquant.allocate.file_budget import FileSize
from licquant.allocate.sensitivity import ACTIVATIONS, WEIGHTS, Measuring, Sensitivity, Spread
from licquant.cluster.session import Cluster
from licquant.cluster.tasks import each
from licquant.commands.base import Report
from licquant.commands.prepared import Prepared
from licquant.commands.toolkit import (
    WidthOptions,
    calibration_facts,
    progress,
    say_skipped,
    size_facts,
    write_layer_bars,
)
from licquant.config import Budget, Plan
from licquant.digests import file_sha256
from licquant.errors import LicquantError, ModelError
from licquant.evaluate.rd import MSE
from licquant.images import calibration_files, check_places, read_calibration, utf8, write_atomically
from licquant.models.shards import checkpoint_sha256
from licquant.quant.calibrate import calibrate
from licquant.quant.insert import QuantizerSettings
from licquant.quant.pruning import Pruned, prune
from licquant.quant.ranges import RANGE_METHODS
from licquant.reports import allocation_pictures, sensitivity_table
from licquant.terminal import say
from licquant.train.card import load_checkpoint, loss_of, name_of
from licquant.train.process import keep_freed_memory

_WHERE = re.compile(r" --cluster\b| --address[ =]\S+")


def command_line() -> str:
    """This process's command as an artifact tells it: without folders, and without where it was carried out.

    An artifact travels, and need not tell where it was made. What is not UTF-8 in names is told by escapes.
    """
    words = (utf8(Path(word).name if "/" in word else word).decode() for word in sys.argv[1:])
    return _WHERE.sub("", " ".join(["licquant", *words]))


@dataclass(frozen=True, kw_only=True)
class QuantizeOptions(WidthOptions):
    """The options of ``licquant quantize``. command: what the artifact tells of how it was made"""

    model: str | None
    checkpoint: Path
    calib: Path
    output: Path
    model_args: Mapping[str, Any] | None = None
    ranges: str = "mse"
    per_channel: bool = True
    prune: bool = False
    steps: int
    lmbda: float | None = None
    metric: str | None = None
    cache: Path | None = None
    cluster: Cluster | None = None
    command: str = field(default_factory=command_line)


def quantize(options: QuantizeOptions, prepared: Prepared | None = None) -> Report:
    """Everything that can be wrong with the options is found before the long work begins.

    prepared: of the checkpoint and the calibration images, where it is there already
    """
    if options.ranges not in RANGE_METHODS:
        raise LicquantError(f"unknown ranges {options.ranges!r}: choose one of {', '.join(RANGE_METHODS)}")
    budget = Budget.parse(options.budget)
    paths = calibration_files(options.calib)
    lmbda, metric = loss_of(options.checkpoint, options.lmbda, options.metric)
    options = replace(options, metric=metric)
    check_places(options.output, *findings_of(options.output).values())
    if options.steps and lmbda is None:
        raise ModelError(f"{options.checkpoint}: no model card beside it says λ: add --lmbda, or --steps 0")
    settings = settings_of(options, lmbda)  # built before the model is loaded: it refuses what is out of range
    keep_freed_memory()
    options = replace(options, model=name_of(options.checkpoint, options.model))
    model = prepared.calibrated if prepared else load_checkpoint(options.checkpoint, options.model, options.model_args)
    pipeline.check_asked(model, budget, settings)
    record = {**made_with(options, lmbda, paths), "command": options.command}
    with progress() as on_progress:
        calibration = prepared.calibration if prepared else read_calibration(paths, options.strict)
        calibrated = calibrate(model, calibration.images, settings.metric, on_progress)
        calibrated, pruned = prune(calibrated) if options.prune else Pruned(calibrated, {})
        result = pipeline.quantize(
            calibrated, calibration.images, options.method, budget, settings, record, on_progress
        )
    size = result.artifact.save(options.output)
    if result.sensitivity is not None and lmbda is not None:
        write_findings(options.output, result.sensitivity, result.plan, lmbda)
    fp32 = result.quantized.traced.fp32_bytes
    found = {**record, "output": str(options.output), "bytes": size, "fp32_bytes": fp32, "plan_hash": result.plan.hash}
    found |= {**size_facts(result.size), "skipped": say_skipped(calibration, len(paths))}
    found |= {"pruned": {latent: count for latent, (count, _) in pruned.items()}} if options.prune else {}
    line = f"{options.output}: {size:,} bytes, {100 * size / fp32:.1f} % of FP32 ({fp32:,} bytes){told(result.size)}"
    line += "".join(f"; {count} of {of} channels of {latent} taken out" for latent, (count, of) in pruned.items())
    return Report(found, lambda: say(line))


def settings_of(options: QuantizeOptions, lmbda: float | None) -> pipeline.Settings:
    """What the options mean to the pipeline; their metric is known, not the card's to say."""
    return replace(
        options.settings(),
        quantizer=QuantizerSettings(RANGE_METHODS[options.ranges], options.per_channel),
        reconstruction_steps=options.steps,
        lmbda=lmbda,
        metric=options.metric or MSE,
        cache=options.cache,
        spread=spread_over(options.cluster) if options.cluster else None,
    )


def spread_over(cluster: Cluster) -> Spread:
    """Measurements on a cluster, each by as many threads as there are here: sums of floats depend on them."""
    alike = replace(cluster, threads=torch.get_num_threads())
    return lambda measuring, wanted: each(alike, measuring, measuring.key, wanted, [Measuring.__module__])


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
        **({"prune": True} if options.prune else {}),
        "steps": options.steps,
    }


def told(size: FileSize | None) -> str:
    """Budget and prediction in bytes for the result's line; nothing where the budget is none of bytes."""
    return "" if size is None else f"; budget {size.budget:,}, predicted {size.predicted:,}"


def findings_of(output: Path) -> dict[str, Path]:
    """What ``write_findings`` writes beside an artifact."""
    beside = output.with_suffix("")
    endings = {"plan": "-plan.json", "zeta": "-zeta.png", "layers": "-layers.png"}
    places = {name: beside.with_name(beside.name + ending) for name, ending in endings.items()}
    return places | {"table": sensitivity_table.place_beside(output)}


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
    sensitivity_table.write_table(output, file_sha256(output), lmbda, table.layers, bits, tables)
    write_layer_bars(output, places["layers"])
