"""Does a plan of four λ with warm starts do as well as four models trained alone?

The plan trains a trunk at a middle λ for 70 % of the steps, and ends it at a quarter of its learning rate. From
the trunk, chains lead to the higher and to the lower λ: each λ starts from its neighbour and takes 7.5 % of the
steps. Alone, each λ gets as many steps as the whole plan, four times the cost in all, with the same largest
learning rate, batch and crops, and a full cosine. All end in an RD point from real strings on the test images.
Everything is resumed: the command can be stopped and given again.
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from licquant.errors import LicquantError, TrainingError
from licquant.evaluate import provenance
from licquant.reports.report import write_json
from licquant.train.command import TrainResult, run_training
from licquant.train.plan import PlannedRun, run_plan
from licquant.train.progress import COMPLETE
from licquant.train.settings import Recipe, RunOptions

SCHEMA = "licquant-train-plan/1"
MODEL = "bmshj2018-hyperprior"
SMALL = {"N": 32, "M": 48, "crop": 64, "large_crop": 128, "large_batch": 2, "average": 0.998, "final_rate": 0.0}
RATE, WARMUP = 2e-3, 100

TRUNK, TRUNK_SHARE, TRUNK_LMBDA, TRUNK_FINAL_RATE = "trunk", 0.7, 0.018, 0.25
# λ → the run that it starts from, in the order of training.
BRANCHES = {0.013: TRUNK, 0.0067: "plan-0.013", 0.025: TRUNK, 0.0483: "plan-0.025"}
BRANCH_SHARE, BRANCH_RATE, BRANCH_WARMUP = 0.075, 1e-3, 20


def alone(lmbda: float, steps: int) -> Recipe:
    """The recipe of a model that is trained from fresh weights."""
    return Recipe.from_mapping(
        {**SMALL, "model": MODEL, "lmbda": lmbda, "steps": steps, "learning_rate": RATE, "warmup": WARMUP}
    )


def plan(steps: int) -> list[PlannedRun]:
    """The trunk and the four branches, ``steps`` in all."""
    trunk = replace(alone(TRUNK_LMBDA, round(TRUNK_SHARE * steps)), final_rate=TRUNK_FINAL_RATE, large_from=1.0)
    runs = [PlannedRun(TRUNK, trunk, None)]
    for lmbda, start in BRANCHES.items():
        recipe = replace(
            alone(lmbda, round(BRANCH_SHARE * steps)), learning_rate=BRANCH_RATE, warmup=BRANCH_WARMUP, large_from=0.5
        )
        runs.append(PlannedRun(f"plan-{lmbda:g}", recipe, start))
    return runs


def compare(steps: int, options: RunOptions) -> list[dict[str, Any]]:
    """Train everything into ``options.output``; one row for each λ, RD losses on the test images."""
    planned = run_plan(plan(steps), options)
    _check_complete(planned[-1])
    rows = []
    for lmbda, result in zip(BRANCHES, planned[1:], strict=True):
        own = replace(options, output=options.output / f"alone-{lmbda:g}.pt", resume=True)
        single = run_training(alone(lmbda, steps), own)
        _check_complete(single)
        pair = [_point(card) for card in (result.card, single.card)]
        change = 100 * (pair[0]["rd_loss"] / pair[1]["rd_loss"] - 1)
        rows.append({"lmbda": lmbda, "plan": pair[0], "alone": pair[1], "change_percent": change})
    return sorted(rows, key=lambda row: row["lmbda"])


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
        "provenance": provenance.collect(threads=threads, steps=steps, branch_share=BRANCH_SHARE),
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
