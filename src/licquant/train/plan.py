"""A training plan: several models from one file, each started from an earlier one where the plan says so.

    # curve.toml (the same in JSON is read too)
    [defaults]                      # settings of ``Recipe`` that all runs share
    model = "bmshj2018-hyperprior"
    [[runs]]
    lmbda = 0.013
    steps = 9000
    [[runs]]
    lmbda = 0.025
    steps = 2000
    init = "bmshj2018-hyperprior-lambda0.0130"

Each λ may instead branch off a trunk that is trained at a constant rate, which is what ``final_rate`` = 1 gives:

    [[runs]]
    name = "trunk"
    lmbda = 0.0483
    steps = 9000
    final_rate = 1.0
    [[runs]]                        # and so on for every λ: warm-up, cosine to 0
    lmbda = 0.013
    steps = 1500
    final_rate = 0.0
    init = "trunk"

A run is called ``MODEL-lambda0.0130`` unless it has a ``name``; its checkpoint is NAME.pt (NAME if that ends in
.licw) in the output folder. ``init`` is the name of an earlier run, or else a checkpoint's path relative to the plan.
Runs are worked through in order; complete ones are passed over, so the same command continues an interrupted plan.
"""

import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from licquant.config import parse_json
from licquant.errors import ModelError, TrainingError
from licquant.models.shards import checkpoint_files
from licquant.models.small import SUFFIX
from licquant.terminal import plain_console
from licquant.train.command import TrainResult, make_fabric, run_training
from licquant.train.process import kept_threads
from licquant.train.progress import COMPLETE, Clock
from licquant.train.settings import Recipe, RunOptions


@dataclass(frozen=True)
class PlannedRun:
    """One model of a plan. ``init``: the name of an earlier run, a checkpoint, or None for fresh weights."""

    name: str
    recipe: Recipe
    init: str | Path | None


def planned_runs(path: Path) -> list[PlannedRun]:
    """The runs of a plan file; ``TrainingError``, naming the run, for anything in it that cannot be used."""
    try:
        text = path.read_text(encoding="utf-8")
        record = parse_json(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise TrainingError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise TrainingError(f"{path}: not a {'JSON' if path.suffix == '.json' else 'TOML'} file: {error}") from error
    if not isinstance(record, dict) or not isinstance(record.get("runs"), list) or not record["runs"]:
        raise TrainingError(f"{path}: a plan needs a list of runs")
    unknown = record.keys() - {"defaults", "runs"}
    if unknown:
        raise TrainingError(f"{path}: unknown entry {min(unknown)!r}; a plan has defaults and runs")
    runs: list[PlannedRun] = []
    for number, entry in enumerate(record["runs"], start=1):
        try:
            runs.append(_planned_run(entry, record.get("defaults", {}), runs, path.parent))
        except TrainingError as error:
            raise TrainingError(f"{path}: run {number}: {error}") from error
    return runs


def _planned_run(entry: Any, defaults: Any, earlier: list[PlannedRun], folder: Path) -> PlannedRun:
    if not isinstance(entry, dict) or not isinstance(defaults, dict):
        raise TrainingError("defaults and runs must be tables of names and values")
    values = {**defaults, **entry}
    name, init = values.pop("name", None), values.pop("init", None)
    recipe = Recipe.from_mapping(values)
    name = f"{recipe.model}-lambda{recipe.lmbda:.4f}" if name is None else name
    if not isinstance(name, str) or Path(name).name != name or not name.isprintable():
        raise TrainingError(f"name = {name!r}: must be a file name without a suffix")
    names = [run.name for run in earlier]
    if name in names:
        raise TrainingError(f"the name {name} is taken by an earlier run: give this one another")
    if init is not None and not isinstance(init, str):
        raise TrainingError(f"init = {init!r}: must be the name of an earlier run or a path")
    if init is not None and init not in names:
        init = folder / init
        try:
            checkpoint_files(init)
        except ModelError as error:
            reason = str(error).encode(errors="backslashreplace").decode()
            raise TrainingError(f"init: neither an earlier run nor a checkpoint: {reason}") from error
    return PlannedRun(name, recipe, init)


@kept_threads()
def run_plan(plan: list[PlannedRun], options: RunOptions, console: Console | None = None) -> list[TrainResult]:
    """Work through the plan; ``options.output`` is the folder for the checkpoints.

    Stops early at the time limit, which holds for all runs together, or when interrupted; the last result
    says so. Errors as ``run_training``.
    """
    console = console or plain_console(stderr=True)
    clock = Clock(options.max_minutes)
    fabric = make_fabric(options)
    results: list[TrainResult] = []
    for number, run in enumerate(plan, start=1):
        output = _checkpoint(options.output, run.name)
        init = _checkpoint(options.output, run.init) if isinstance(run.init, str) else run.init
        if fabric.is_global_zero:
            console.print(f"run {number} of {len(plan)}: {run.name}", markup=False, highlight=False, soft_wrap=True)
        own = replace(options, output=output, init=init, resume=True)
        results.append(run_training(run.recipe, own, fabric=fabric, console=console, clock=clock))
        if results[-1].status != COMPLETE:
            break
    return results


def _checkpoint(folder: Path, name: str) -> Path:
    # Not with_suffix(): names end in a λ, whose digits would be taken for a suffix.
    return folder / (name if name.endswith(SUFFIX) else f"{name}.pt")
