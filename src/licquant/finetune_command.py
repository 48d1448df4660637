"""``licquant finetune``: quantize, train the quantized model, save it.

-o model.licq   →   model.licq     the artifact: after an early stop too, and usable then
                    model.json     what it is and how it was made      model.csv, model.png   the log and its picture
                    model.state    while the run is not complete: what --resume continues from
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from lightning.fabric import Fabric
from rich.console import Console

from licquant import pipeline
from licquant.commands import OUT, Report
from licquant.config import Budget
from licquant.errors import LicquantError, ModelError
from licquant.evaluate import provenance
from licquant.evaluate.latency import LatencyTable
from licquant.images import list_images, read_image
from licquant.models import load_model
from licquant.quant.finetune_settings import FinetuneRecipe
from licquant.toolkit_commands import lmbda_of, progress, read_plan, sha256
from licquant.train import card, resume
from licquant.train.command import make_fabric
from licquant.train.objective import describe
from licquant.train.progress import COMPLETE, INTERRUPTED
from licquant.train.settings import STATE, RunOptions


@dataclass(frozen=True)
class FinetuneOptions:
    """The options of ``licquant finetune``.

    recipe:         the settings of ``FinetuneRecipe`` that were given, by name
    run:            ``init`` is the checkpoint, ``output`` the artifact
    reconstruction: steps of post-training reconstruction before the training
    """

    recipe: Mapping[str, Any]
    run: RunOptions
    calib: Path
    method: str = "uniform"
    budget: str = "bits=8"
    act_bits: int = 8
    max_bits: int = 8
    plan: Path | None = None
    latency: Path | None = None
    tables: Path | None = None
    reconstruction: int = 0
    licence: str = "not stated"

    @property
    def checkpoint(self) -> Path:
        assert self.run.init is not None
        return self.run.init


def options_of(given: Mapping[str, Any]) -> FinetuneOptions:
    """The options from what the command line was given, by the names of their fields; None: not given."""

    def of(kind: type[Any]) -> dict[str, Any]:
        return {field.name: given[field.name] for field in fields(kind) if given.get(field.name) is not None}

    cache = given["cache"].expanduser()
    run = RunOptions(**of(RunOptions) | {"init": given["checkpoint"], "cache": cache})
    return FinetuneOptions(recipe=of(FinetuneRecipe), run=run, tables=cache, **of(FinetuneOptions))


def run(options: FinetuneOptions) -> Report:
    """Everything that can be wrong with the options is found before the long work begins."""
    lmbda = lmbda_of(options.checkpoint, options.recipe.get("lmbda"))
    if lmbda is None:
        raise ModelError(f"{options.checkpoint}: no model card beside it says λ: add --lmbda")
    recipe = FinetuneRecipe.from_mapping({**options.recipe, "lmbda": lmbda})
    budget, paths = Budget.parse(options.budget), list_images(options.calib)
    if not options.run.output.parent.is_dir():
        raise LicquantError(f"{options.run.output.parent}: there is no such folder")
    facts = made_with(options, recipe, paths)
    done = resume.finished_card(resume.identity(recipe, options.run, **facts), options.run)
    if done is not None:
        options.run.companion(STATE).unlink(missing_ok=True)
        return _report(options, done, COMPLETE)
    settings = pipeline.Settings(
        activation_bits=options.act_bits,
        max_bits=options.max_bits,
        reconstruction_steps=options.reconstruction,
        plan=None if options.plan is None else read_plan(options.plan),
        latency=None if options.latency is None else LatencyTable.load(options.latency),
        cache=options.tables,
        licence=options.licence,
    )
    fabric = make_fabric(options.run)
    model, images = load_model(recipe.model, options.checkpoint), [read_image(path) for path in paths]
    with progress() as on_progress:
        result, outcome = pipeline.finetune(
            model, images, recipe, options.run, options.method, budget, settings, facts, on_progress, fabric
        )
    described: dict[str, Any] = {}
    if fabric.is_global_zero:
        result.artifact.save(options.run.output)
        described = _card(options, recipe, facts, result, outcome, fabric)
        card.write_card(options.run.output, described)
        if outcome.status == COMPLETE:
            options.run.companion(STATE).unlink(missing_ok=True)
    return _report(options, described, outcome.status)


def made_with(options: FinetuneOptions, recipe: FinetuneRecipe, calibration: Sequence[Path]) -> dict[str, Any]:
    """What decides the artifact beside the recipe and the training images: equal records, equal artifacts."""
    contents = b"".join(hashlib.sha256(path.read_bytes()).digest() for path in calibration)
    estimator = f"{recipe.estimator}{recipe.beta:g}" if recipe.estimator == "dgm" else recipe.estimator
    return {
        "method": "-".join([*([options.method] if options.method != "uniform" else []), recipe.quantizer, estimator]),
        "allocation": options.method,
        "checkpoint_sha256": card.checkpoint_digest(options.checkpoint),
        "calibration_images": len(calibration),
        "calibration_sha256": hashlib.sha256(contents).hexdigest(),
        "budget": options.budget,
        "act_bits": options.act_bits,
        "max_bits": options.max_bits,
        "plan": None if options.plan is None else sha256(options.plan),
        "latency": None if options.latency is None else sha256(options.latency),
        "reconstruction": options.reconstruction,
    }


def _card(
    options: FinetuneOptions,
    recipe: FinetuneRecipe,
    facts: Mapping[str, Any],
    result: pipeline.Result,
    outcome: pipeline.Outcome,
    fabric: Fabric,
) -> dict[str, Any]:
    """The model card; ``train.card`` explains its entries."""
    output = options.run.output
    return {
        "model": recipe.model,
        "lmbda": recipe.lmbda,
        "loss": describe(recipe.metric),
        "steps": outcome.steps,
        "complete": outcome.status == COMPLETE,
        "seconds": round(outcome.seconds, 1),
        "hardware": card.describe_hardware(fabric.device, fabric.world_size),
        "licence": options.licence,
        "note": options.run.note,
        **resume.identity(recipe, options.run, **facts),
        "plan": result.plan.to_json(),
        "plan_hash": result.plan.hash,
        "bytes": output.stat().st_size,
        "fp32_bytes": result.quantized.traced.fp32_bytes,
        "sha256": sha256(output),
        "versions": provenance.versions(),
    }


def _report(options: FinetuneOptions, described: Mapping[str, Any], status: str) -> Report:
    output = str(options.run.output)
    if not described:  # another process than the first, which has nothing to say
        return Report({"output": output, "status": status})
    share = 100 * described["bytes"] / described["fp32_bytes"]
    line = f"{output}: {status} after {described['steps']} steps, {described['bytes']:,} bytes, {share:.1f} % of FP32"
    if status == INTERRUPTED:
        Console(stderr=True).print("continue with --resume", highlight=False)
    return Report(
        {"output": output, "status": status, "card": dict(described)}, lambda: OUT.print(line, highlight=False)
    )
