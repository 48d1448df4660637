"""``licquant finetune``: quantize, train the quantized model, save it.

-o model.licq   →   model.licq     the artifact: after an early stop too, and usable then
                    model.json     what it is and how it was made      model.csv, model.png   the log and its picture
                    model-zeta.json, …   what ``quantize`` leaves too, where the method measured what each width costs
    model.state    while the run is not complete: what --resume continues from
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from licquant import pipeline
from licquant.cache import cache_folder
from licquant.commands.base import Report
from licquant.commands.prepared import Prepared
from licquant.commands.quantize import findings_of, write_findings
from licquant.commands.toolkit import WidthOptions, calibration_facts, progress, say_skipped, size_facts
from licquant.config import Budget
from licquant.digests import file_sha256
from licquant.dynamic.finetune import finetune_dynamic
from licquant.dynamic.settings import LATENCY, DynamicSettings
from licquant.errors import BudgetError, ModelError, TrainingError
from licquant.evaluate import provenance
from licquant.evaluate.rd import describe
from licquant.images import calibration_files, check_places, read_calibration
from licquant.models.load import parse_arguments
from licquant.models.shards import checkpoint_sha256
from licquant.quant.in_training.finetune_settings import DISTANCE_AWARE, FinetuneRecipe, Training
from licquant.terminal import note, say
from licquant.train import card, resume
from licquant.train.progress import COMPLETE, INTERRUPTED
from licquant.train.settings import STATE, RunOptions


@dataclass(frozen=True, kw_only=True)
class FinetuneOptions(WidthOptions):
    """The options of ``licquant finetune``.

    recipe:         the settings of ``FinetuneRecipe`` that were given, by name
    run:            ``init`` is the checkpoint, ``output`` the artifact
    reconstruction: steps of post-training reconstruction before the training
    dynamic:        for widths that depend on the image, in place of method, budget and plan
    """

    recipe: Mapping[str, Any]
    run: RunOptions
    calib: Path
    tables: Path | None = None
    reconstruction: int = 0
    dynamic: DynamicSettings | None = None
    model_args: Mapping[str, Any] | None = None

    @property
    def checkpoint(self) -> Path:
        """The FP32 model that is finetuned."""
        assert self.run.init is not None
        return self.run.init


# What chooses fixed widths, and what --widths wants to know.
_STATIC, _DYNAMIC = ("method", "budget", "act_bits", "max_bits", "plan"), ("average_bits", "gamma", "bit_cost")


def options_of(given: Mapping[str, Any]) -> FinetuneOptions:
    """The options from what the command line was given, by the names of their fields; None: not given."""

    def of(kind: type[Any]) -> dict[str, Any]:
        return {field.name: given[field.name] for field in fields(kind) if given.get(field.name) is not None}

    cache = cache_folder(given["cache"])
    run = RunOptions(**of(RunOptions) | {"init": given["checkpoint"], "cache": cache})
    return FinetuneOptions(
        **of(FinetuneOptions)
        | {"model_args": parse_arguments(given["model_args"])}
        | {"recipe": of(FinetuneRecipe), "run": run, "tables": cache, "dynamic": _dynamic(given)}
    )


def _dynamic(given: Mapping[str, Any]) -> DynamicSettings | None:
    """What ``--widths`` and its companions say; ``TrainingError`` for options that do not go together."""
    text = given["widths"]
    clash = next((name for name in (_DYNAMIC if text is None else _STATIC) if given[name] is not None), None)
    if clash is not None:
        option = f"--{clash.replace('_', '-')}"
        raise TrainingError(f"{option} needs --widths" if text is None else f"--widths and {option}: give one of them")
    if text is None:
        return None
    try:
        widths = tuple(int(word) for word in text.split(","))
    except ValueError as error:
        raise TrainingError(f"widths = {text!r}: write for instance 6,8,10") from error
    return DynamicSettings(widths, **{name: given[name] for name in _DYNAMIC if given[name] is not None})


def run(options: FinetuneOptions, prepared: Prepared | None = None) -> Report:
    """Everything that can be wrong with the options is found before the long work begins.

    prepared: of the checkpoint and the calibration images, where it is there already
    """
    lmbda, metric = card.loss_of(options.checkpoint, options.recipe.get("lmbda"), options.recipe.get("metric"))
    if lmbda is None:
        raise ModelError(f"{options.checkpoint}: no model card beside it says λ: add --lmbda")
    name = card.name_of(options.checkpoint, options.recipe.get("model"))
    recipe = FinetuneRecipe.from_mapping({**options.recipe, "model": name, "metric": metric, "lmbda": lmbda})
    budget, paths = Budget.parse(options.budget), calibration_files(options.calib)
    settings = replace(options.settings(), reconstruction_steps=options.reconstruction, cache=options.tables)
    if options.dynamic and options.dynamic.bit_cost == LATENCY and options.latency is None:
        raise BudgetError("--bit-cost latency needs --latency: a table made with licquant profile")
    check_places(*findings_of(options.run.output).values())
    training = Training(recipe, options.run, made_with(options, recipe, paths))
    done = resume.finished_card(training.identity, options.run)
    if done is not None:
        options.run.companion(STATE).unlink(missing_ok=True)
        return _report(options, done, COMPLETE)
    fabric = training.fabric
    model = (
        prepared.calibrated if prepared else card.load_checkpoint(options.checkpoint, recipe.model, options.model_args)
    )
    calibration = prepared.calibration if prepared else read_calibration(paths, options.strict)
    images = calibration.images
    with progress() as on_progress:
        if options.dynamic:
            result, outcome = finetune_dynamic(model, images, training, options.dynamic, settings, on_progress)
        else:
            result, outcome = pipeline.finetune(model, images, training, options.method, budget, settings, on_progress)
    described: dict[str, Any] = {}
    if fabric.is_global_zero:
        result.artifact.save(options.run.output)
        if result.sensitivity is not None:  # a run that goes on has its widths from its state, and measures nothing
            write_findings(options.run.output, result.sensitivity, result.plan, lmbda)
        described = _card(options, training, result, outcome)
        card.write_card(options.run.output, described)
        if outcome.status == COMPLETE:
            options.run.companion(STATE).unlink(missing_ok=True)
        say_skipped(calibration, len(paths))
    return _report(options, described, outcome.status)


def made_with(options: FinetuneOptions, recipe: FinetuneRecipe, calibration: Sequence[Path]) -> dict[str, Any]:
    """What decides the artifact beside the recipe and the training images, the code, its libraries and the machine.

    With all of these the same, equal records are equal artifacts but for the licence, on one device.
    """
    estimator = f"{recipe.estimator}{recipe.beta:g}" if recipe.estimator == DISTANCE_AWARE else recipe.estimator
    common = {
        "checkpoint_sha256": checkpoint_sha256(options.checkpoint),
        **({"model_args": dict(options.model_args)} if options.model_args else {}),
        **calibration_facts(calibration),
        "reconstruction": options.reconstruction,
    }
    if options.dynamic:
        chosen = options.dynamic.to_mapping()
        return {
            "method": f"{recipe.quantizer}-dq-{estimator}",
            "budget": f"widths={','.join(map(str, options.dynamic.widths))}",
            "latency": options.facts()["latency"],
            **chosen,
            **common,
        }
    allocation = [] if options.method == "uniform" else [options.method]
    return {
        "method": "-".join([*allocation, recipe.quantizer, estimator]),
        "allocation": options.method,
        **options.facts(),
        **common,
    }


def _card(
    options: FinetuneOptions, training: Training, result: pipeline.Result, outcome: pipeline.Outcome
) -> dict[str, Any]:
    """The model card; ``train.card`` explains its entries."""
    output, recipe, fabric = options.run.output, training.recipe, training.fabric
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
        **training.identity,
        "plan": result.plan.to_json(),
        "plan_hash": result.plan.hash,
        "bytes": output.stat().st_size,
        "fp32_bytes": result.quantized.traced.fp32_bytes,
        **size_facts(result.size),
        "sha256": file_sha256(output),
        "versions": provenance.versions(),
    }


def _report(options: FinetuneOptions, described: Mapping[str, Any], status: str) -> Report:
    output = str(options.run.output)
    if not described:  # another process than the first, which has nothing to say
        return Report({"output": output, "status": status})
    share = 100 * described["bytes"] / described["fp32_bytes"]
    line = f"{output}: {status} after {described['steps']} steps, {described['bytes']:,} bytes, {share:.1f} % of FP32"
    if status == INTERRUPTED:
        note("continue with --resume")
    return Report({"output": output, "status": status, "card": dict(described)}, lambda: say(line))
