"""Is a plan made for latency faster than plans made for bits, at the same loss? Measured, not counted.

python -m benchmarks.latency_plan --checkpoint CKPT --calib DIR --latency TABLE --images DIR -o DIR

The plans made for average weight bits and for bit operations come first, with their measured loss. The plan made for
latency is the fastest by the table (``licquant profile``) whose measured loss is no higher. Then whole encodes and
decodes of files run in turn. Weights are rounded to nearest everywhere: only the choice of widths is compared.
"""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.speed import measure, summarize
from licquant.allocate.choices import Choices, rounded_up
from licquant.allocate.costs import Costs
from licquant.allocate.methods import allocate
from licquant.allocate.optimal import cheapest, options_of, solve
from licquant.allocate.search import Search
from licquant.codec.codec import Codec, load
from licquant.config import Budget, Plan
from licquant.errors import BudgetError
from licquant.evaluate import provenance
from licquant.evaluate.latency import LatencyTable
from licquant.images import list_images, read_image, write_image
from licquant.models import load_model
from licquant.models.trace import trace_model
from licquant.quant.calibrate import collect_statistics
from licquant.quant.network import uniform_plan
from licquant.quant.settings import Settings
from licquant.reports import report
from licquant.train.process import keep_freed_memory

WIDEST = 12  # of weights and activations: INT8 kernels end at 8
UNIFORM = 7  # the budgets are what this uniform width costs
TIGHTER = 1e-4  # the table's loss is a sum: where layers interact it is asked for less, at least by this


@dataclass(frozen=True)
class Made:
    """A plan, its measured loss as a fraction, and the table's milliseconds."""

    plan: Plan
    loss: float
    predicted_ms: float


def least_cost(choices: Choices, costs: Costs, loss: float) -> Plan:
    """The plan with the least cost whose Σ ζ is within ``loss``; ``BudgetError`` with the smallest Σ ζ if none is."""
    options = list(options_of(choices, costs))
    plan = solve(options, [o.cost for o in options], [o.loss for o in options], loss)
    if plan is None:
        least = choices.loss(cheapest(options, lambda o: o.loss))
        raise BudgetError(f"the loss cannot be met: the smallest possible is {rounded_up(100 * least, 4)} %")
    return plan


def fastest_within(search: Search, loss: float) -> Plan:
    """The plan with the least latency by the table whose measured loss is within ``loss``."""
    costs, _ = search.costs(Budget("latency", 1.0))
    choices = search.choices(Budget("latency", 1.0)).believable()
    asked = loss
    while True:
        plan = least_cost(choices, costs, asked)
        excess = search.joint_loss(plan) - loss
        if excess <= 0:
            return plan
        asked -= max(excess, TIGHTER)


def make_plans(search: Search) -> dict[str, Made]:
    """Budget → plan: those made for bits and bit operations, and for each the fastest with no more loss."""
    made: dict[str, Made] = {}
    uniform = uniform_plan(search.traced, UNIFORM, UNIFORM)
    latency, _ = search.costs(Budget("latency", 1.0))
    for kind in ("bits", "bops"):
        costs, _ = search.costs(Budget(kind, 2.0))
        plan = allocate(search, "optimal", Budget(kind, costs.total(uniform)))
        made[kind] = Made(plan, search.joint_loss(plan), latency.total(plan))
        fast = fastest_within(search, made[kind].loss)
        made[f"latency, loss of {kind}"] = Made(fast, search.joint_loss(fast), latency.total(fast))
    return made


def timed(made: dict[str, Made], search: Search, images: list[Path], threads: int, repeats: int) -> dict[str, Any]:
    """Plan made for bits or bit operations → operation → milliseconds of both, and the ratio of the pairs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def codec(plan: Plan) -> Codec:
            quantized = search.quantized(plan)
            search.lowered(quantized).save(folder / "model.licq")
            return load(folder / "model.licq", threads=threads)

        sources = []
        for path in images:
            sources.append(folder / f"{path.stem}.ppm")
            write_image(sources[-1], read_image(path))
        results = {}
        for kind in ("bits", "bops"):
            fast = codec(made[f"latency, loss of {kind}"].plan)
            pairs = measure(fast, codec(made[kind].plan), sources, repeats, folder)
            results[kind] = {operation: summarize(found) for operation, found in pairs.items()}
    return results


def print_results(made: dict[str, Made], results: dict[str, Any], threads: int) -> None:
    table = Table(title=f"Plans at one loss, widths up to {WIDEST}, {threads} threads", title_justify="left")
    for heading in ("made for", "RD loss", "table", "encode", "decode"):
        table.add_column(heading, justify="left" if heading == "made for" else "right")
    for kind, operations in results.items():
        for name, key in ((kind, "reference_ms"), (f"latency, loss of {kind}", "licquant_ms")):
            ms = [f"{operations[operation][key]:.1f} ms" for operation in ("encode", "decode")]
            table.add_row(name, f"{100 * made[name].loss:+.3f} %", f"{made[name].predicted_ms:.1f} ms", *ms)
        ratios = [f"{operations[operation]['ratio_median']:.2f}×" for operation in ("encode", "decode")]
        table.add_row("ratio, paired", "", "", *ratios, end_section=True)
    Console().print(table)


def main(
    checkpoint: Annotated[Path, typer.Option(help="A checkpoint with its model card.")],
    calib: Annotated[Path, typer.Option(help="A folder of calibration images.")],
    latency: Annotated[Path, typer.Option(help="The table that licquant profile made on this machine.")],
    images: Annotated[Path, typer.Option(help="A folder of test images; the first four are used.")],
    name: str = "bmshj2018-hyperprior",
    threads: int = 2,
    repeats: int = 7,
    cache: Annotated[Path, typer.Option(help="Folder for measured tables.")] = Path("~/.cache/licquant"),
    output: Annotated[Path, typer.Option("-o", help="Folder for the JSON result.")] = Path("bench-output"),
) -> None:
    """Make the plans, measure them, print both."""
    output.mkdir(parents=True, exist_ok=True)
    keep_freed_memory()
    lmbda = float(json.loads(checkpoint.with_suffix(".json").read_text())["lmbda"])
    photographs = [read_image(path) for path in list_images(calib)]
    traced = trace_model(load_model(name, checkpoint))
    settings = Settings(WIDEST, WIDEST, lmbda=lmbda, cache=cache.expanduser(), latency=LatencyTable.load(latency))
    search = Search(traced, photographs, collect_statistics(traced, photographs), settings)
    try:
        made = make_plans(search)
    except BudgetError as error:
        raise SystemExit(f"error: {error}") from error
    results = timed(made, search, list_images(images)[:4], threads, repeats)
    print_results(made, results, threads)
    record = {
        "schema": "licquant-latency-plan/1",
        "plans": {
            kind: {"plan": found.plan.to_json(), "loss": found.loss, "predicted_ms": found.predicted_ms}
            for kind, found in made.items()
        },
        "measured": results,
        "provenance": provenance.collect(checkpoint=checkpoint.name, threads=threads),
    }
    report.write_json(output / "latency-plan.json", record)


if __name__ == "__main__":
    typer.run(main)
