"""The command line of training: ``licquant train``.

Where the codec's libraries are missing, ``python -m licquant.commands.train`` is the same.
"""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from licquant.commands.options import (
    Accelerator,
    BatchSize,
    Cache,
    CheckpointMinutes,
    CropSide,
    Data,
    Devices,
    Json,
    LargeBatchSize,
    LargeCrop,
    MaxMinutes,
    Resume,
    Seed,
    Threads,
    count,
    positive,
)
from licquant.commands.recipes import Recipe as RecipeFile
from licquant.errors import LicquantError, TrainingError
from licquant.terminal import note, quiet_libraries
from licquant.train.progress import INTERRUPTED
from licquant.train.settings import Recipe, RunOptions
from licquant.train.supervise import survive

if TYPE_CHECKING:
    from licquant.train.command import TrainResult

EXIT_INTERRUPTED = 130
RECIPE, RUN = "what is trained (with --plan, that file says it)", "how it is carried out"


def recipe_option(text: str, *names: str) -> Any:
    """An option that decides the result; unset, it is the default of ``Recipe``."""
    return typer.Option(*names, help=text, rich_help_panel=RECIPE)


def recipe_count(option: str, text: str) -> Any:
    """The same for how many there are of something."""
    return count(option, text, rich_help_panel=RECIPE)


def run_option(text: str, *names: str) -> Any:
    """An option that only says how the training is carried out."""
    return typer.Option(*names, help=text, rich_help_panel=RUN)


def train_command(
    *,
    model: Annotated[str | None, typer.Option("--model", help="CompressAI's name of the model")] = None,
    lmbda: Annotated[float | None, positive("--lmbda", "λ of the RD loss", rich_help_panel=RECIPE)] = None,
    metric: Annotated[str | None, recipe_option("distortion: mse (default) or ms-ssim")] = None,
    width_n: Annotated[int | None, recipe_count("--N", "width N of the model")] = None,
    width_m: Annotated[int | None, recipe_count("--M", "width M of the latent")] = None,
    steps: Annotated[int | None, recipe_count("--steps", "optimizer steps; default: 15000")] = None,
    batch_size: BatchSize = None,
    crop: CropSide = None,
    large_batch_size: LargeBatchSize = None,
    large_crop: LargeCrop = None,
    learning_rate: Annotated[
        float | None, positive("--learning-rate", "the largest; default: 3e-4", rich_help_panel=RECIPE)
    ] = None,
    precision: Annotated[
        str | None, recipe_option("bf16, fp32 or auto (default): bf16 where the processor multiplies it")
    ] = None,
    seed: Seed = None,
    data: Data,
    output: Annotated[Path, run_option("checkpoint; with --plan, a folder", "--output", "-o")],
    init: Annotated[Path | None, run_option("checkpoint to start from; of another model, the parts that agree")] = None,
    plan: Annotated[Path | None, run_option("several models: a TOML or JSON file; resumes by itself")] = None,
    recipe: RecipeFile = None,
    resume: Resume = False,
    max_minutes: MaxMinutes = None,
    checkpoint_minutes: CheckpointMinutes = 5.0,
    devices: Devices = 1,
    accelerator: Accelerator = "auto",
    threads: Threads = None,
    cache: Cache = None,
    test_images: Annotated[Path | None, run_option("folder; the RD point on it goes into the card")] = None,
    validation_images: Annotated[Path | None, run_option("folder; the same, and for --init beside it")] = None,
    max_file_mib: Annotated[
        float | None, positive("--max-file-mib", "split larger checkpoints into shards", rich_help_panel=RUN)
    ] = None,
    note: Annotated[str, run_option("for the model card")] = "",
    as_json: Json = False,
) -> None:
    """Train FP32 reference models; a run that was stopped or killed can be continued."""
    settings = {
        **{"model": model, "lmbda": lmbda, "metric": metric, "N": width_n, "M": width_m, "steps": steps},
        **{"batch": batch_size, "crop": crop, "large_batch": large_batch_size, "large_crop": large_crop},
        **{"learning_rate": learning_rate, "precision": precision, "seed": seed},
    }
    given = {name: value for name, value in settings.items() if value is not None}
    try:
        options = RunOptions(
            data=data, output=output, init=init, resume=resume, max_minutes=max_minutes,
            checkpoint_minutes=checkpoint_minutes, devices=devices, accelerator=accelerator, threads=threads,
            cache=cache, test_images=test_images, validation_images=validation_images,
            max_file_mib=max_file_mib, note=note,
        )  # fmt: skip
        results, restarts = _run(given, options, plan)
    except LicquantError as error:
        _say(error)
        raise typer.Exit(1) from error
    _report(results, None if plan is None else restarts, as_json)


def _say(error: LicquantError) -> None:
    note(f"error: {error}")


def _run(given: Mapping[str, Any], options: RunOptions, plan: Path | None) -> "tuple[list[TrainResult], int]":
    """(one run from the settings, or those of a plan; how often a crash had the plan started again)."""
    # Here, since they take seconds to import, which the help text need not wait for.
    from licquant.train.command import run_training
    from licquant.train.plan import planned_runs, run_plan

    if plan is None:
        return [run_training(Recipe.from_mapping(given), options)], 0
    if given or options.init:
        raise TrainingError(f"with --plan, {next(iter(given), 'init')} stands in the plan file")
    runs = planned_runs(plan)
    if options.devices > 1 or "LOCAL_RANK" in os.environ:  # several processes: whoever started them looks after them
        return run_plan(runs, options), 0
    return survive(run_plan, runs, options, on_crash=_say_crash)


def _say_crash(name: str) -> None:
    note(f"a library crashed ({name}): going on from the last saved state")


def _report(results: "list[TrainResult]", restarts: int | None, as_json: bool) -> None:
    """Say how it ended: JSON on standard output, words on standard error; exit 130 after an interruption.

    restarts: of a plan; None for a run alone
    """
    if results[-1].card:  # other processes than the first have none, and nothing to say
        if as_json:
            record: Any = [result.to_json() for result in results]
            whole_plan = {"runs": record, "restarts": restarts}
            sys.stdout.write(json.dumps(record[0] if restarts is None else whole_plan) + "\n")
        for result in results:
            note(_sentence(result))
        if restarts:
            note(f"started again {restarts} time after a crash of a library")
    if results[-1].status == INTERRUPTED:
        raise typer.Exit(EXIT_INTERRUPTED)


def _sentence(result: "TrainResult") -> str:
    card = result.card
    point = card.get("kodak") or card.get("test")
    measured = f", {point['bpp_real_strings']:.3f} bpp, {point['psnr_mean']:.2f} dB" if point else ""
    return f"{result.checkpoint}: {result.status} after {card['steps']} steps, {card['seconds']:.0f} s{measured}"


if __name__ == "__main__":
    quiet_libraries()
    try:
        typer.run(train_command)
    except LicquantError as error:
        _say(error)
        sys.exit(1)
