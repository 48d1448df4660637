"""Does training of a model survive here? Several runs of ``licquant train``, each a process with a seed of its own.

    python -m benchmarks.train_runs --data DIR [--model cheng2020-anchor --runs 6 --steps 60] -o DIR

Told are the exit status and the loss of the first and the last row of the run's log, means over 50 steps or fewer. A
run that a library's crash ends, or whose loss does not fall, makes the command end with 1.
"""

import csv
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from licquant.evaluate import provenance
from licquant.reports import report


def train(model: str, words: list[str], data: Path, steps: int, seed: int, folder: Path) -> dict[str, Any]:
    """One run: its status (negative: the signal that ended it), its losses, its seconds."""
    output, recipe = folder / f"{seed}.pt", folder / f"{seed}.toml"
    recipe.write_text(f"[train]\nseed = {seed}\n", encoding="utf-8")
    command = [sys.executable, "-m", "licquant", "train", "--model", model, *words, "--data", str(data)]
    begun = time.perf_counter()
    done = subprocess.run([*command, "--steps", str(steps), "--recipe", str(recipe), "-o", str(output)])
    log = output.with_suffix(".csv")
    losses = [float(row["loss"]) for row in csv.DictReader(log.open())] if log.exists() else []
    return {"seed": seed, "status": done.returncode, "losses": losses, "seconds": time.perf_counter() - begun}


def is_right(run: dict[str, Any]) -> bool:
    """It ended by itself, and its loss fell."""
    losses = run["losses"]
    return run["status"] == 0 and len(losses) > 1 and losses[-1] < losses[0]


def main(
    data: Annotated[Path, typer.Option(help="A folder of training images.")],
    model: str = "cheng2020-anchor",
    width: Annotated[int, typer.Option("--N", help="Width N of the model.")] = 128,
    lmbda: float = 0.013,
    runs: int = 6,
    steps: int = 60,
    threads: int = 2,
    output: Annotated[Path, typer.Option("-o", help="Folder for train-runs.json.")] = Path("bench-output"),
) -> None:
    """Train, print a row a run, write them."""
    words = ["--N", str(width), "--lmbda", str(lmbda), "--threads", str(threads)]
    with tempfile.TemporaryDirectory() as folder:
        found = [train(model, words, data, steps, seed, Path(folder)) for seed in range(runs)]
    table = Table(title=f"{model}, N={width}, λ {lmbda:g}: {steps} steps on {threads} threads", title_justify="left")
    for heading in ("seed", "exit status", "loss, first row", "last row", "seconds"):
        table.add_column(heading, justify="right")
    for run in found:
        first, last = (f"{losses[0]:.3f}", f"{losses[-1]:.3f}") if (losses := run["losses"]) else ("–", "–")
        table.add_row(str(run["seed"]), str(run["status"]), first, last, f"{run['seconds']:.0f}")
    Console().print(table)
    output.mkdir(parents=True, exist_ok=True)
    record = {"schema": "licquant-train-runs/1", "model": model, "steps": steps, "runs": found}
    report.write_json(output / "train-runs.json", {**record, "provenance": provenance.collect(threads=threads)})
    if not all(map(is_right, found)):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
