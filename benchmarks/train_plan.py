"""Does a plan of four λ with warm starts do as well as four models trained alone?

The plan trains the highest λ for 55 % of the steps; each further λ starts from the one before and takes 15 %.
Alone, each λ gets as many steps as the whole plan: four times the cost in all. Both end in an RD point from
real strings on the test images. Everything is resumed: the command can be stopped and given again.
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from licquant.errors import LicquantError, TrainingError
from licquant.evaluate import provenance
from licquant.evaluate.report import write_json
from licquant.train.command import TrainResult, run_training
from licquant.train.plan import PlannedRun, run_plan
from licquant.train.progress import COMPLETE
from licquant.train.settings import Recipe, RunOptions

SCHEMA = "licquant-train-plan/1"
MODEL = "bmshj2018-hyperprior"
LMBDAS = (0.0483, 0.025, 0.013, 0.0067)
SHARES = (0.55, 0.15, 0.15, 0.15)
# Once a model is trained for one λ, another needs smaller steps than fresh weights do.
RATES = (1e-3, 5e-4, 5e-4, 5e-4)
WARMUPS = (200, 50, 50, 50)


def alone(lmbda: float, steps: int) -> Recipe:
    """The recipe of a model that is trained from fresh weights."""
    return Recipe(MODEL, lmbda, N=32, M=48, steps=steps, learning_rate=RATES[0], warmup=WARMUPS[0])


def plan(steps: int) -> list[PlannedRun]:
    """The four runs, ``steps`` in all."""
    runs: list[PlannedRun] = []
    for lmbda, share, rate, warmup in zip(LMBDAS, SHARES, RATES, WARMUPS, strict=True):
        own = round(share * steps)
        recipe = Recipe(MODEL, lmbda, N=32, M=48, steps=own, learning_rate=rate, warmup=warmup)
        runs.append(PlannedRun(f"plan-{lmbda:g}", recipe, runs[-1].name if runs else None))
    return runs


def compare(steps: int, options: RunOptions) -> list[dict[str, Any]]:
    """Train everything into ``options.output``; one row for each λ, RD losses on the test images."""
    planned = run_plan(plan(steps), options)
    _check_complete(planned[-1])
    rows = []
    for lmbda, result in zip(LMBDAS, planned, strict=True):
        own = replace(options, output=options.output / f"alone-{lmbda:g}.pt", resume=True)
        single = run_training(alone(lmbda, steps), own)
        _check_complete(single)
        pair = [_point(card) for card in (result.card, single.card)]
        change = 100 * (pair[0]["rd_loss"] / pair[1]["rd_loss"] - 1)
        rows.append({"lmbda": lmbda, "plan": pair[0], "alone": pair[1], "change_percent": change})
    return rows


def _check_complete(result: TrainResult) -> None:
    if result.status != COMPLETE:
        raise TrainingError(f"{result.status}: give the same command again to go on")


def _point(card: Any) -> Any:
    return card.get("kodak") or card["test"]


def main(
    output: Annotated[Path, typer.Option("--output", "-o", help="folder for train_plan.json and the models")],
    data: Annotated[Path, typer.Option(help="folder of training images")],
    test_images: Annotated[Path, typer.Option(help="folder of images to compare on")],
    steps: Annotated[int, typer.Option(min=100, help="of the whole plan")] = 4000,
    threads: Annotated[int, typer.Option(min=1)] = 2,
) -> None:
    """Train a plan and its four single models, and write OUTPUT/train_plan.json."""
    options = RunOptions(data, output, accelerator="cpu", threads=threads, test_images=test_images)
    try:
        rows = compare(steps, options)
    except LicquantError as error:
        Console(stderr=True).print(f"error: {error}", markup=False)
        raise typer.Exit(1) from error
    record = {
        "schema": SCHEMA,
        "provenance": provenance.collect(threads=threads, steps=steps, shares=SHARES),
        "results": rows,
    }
    write_json(output / "train_plan.json", record)
    table = Table(title=f"RD loss on {test_images.name}, {steps} steps")
    for heading in ("λ", "plan", "alone", "change"):
        table.add_column(heading, justify="right")
    for row in rows:
        figures = (f"{row[side]['rd_loss']:.4f}" for side in ("plan", "alone"))
        table.add_row(f"{row['lmbda']:g}", *figures, f"{row['change_percent']:+.2f} %")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
