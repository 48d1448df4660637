"""How long it takes to allocate: the sensitivity table, a new budget from it, and brute force instead.

python -m benchmarks.allocation --checkpoint CKPT --calib DIR -o DIR
"""

import json
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from licquant.allocate.choices import Choices
from licquant.allocate.costs import bops_cost
from licquant.allocate.fmpq import Cost, adaptive_search, plan_for_tolerance
from licquant.allocate.optimal import least_loss, repair
from licquant.allocate.probe import Probe, Substitute, run_with_substitute
from licquant.allocate.search import Search
from licquant.allocate.sensitivity import ACTIVATIONS, SIDE, WEIGHTS, Measuring, draw_crops, measure_sensitivity
from licquant.commands.toolkit import progress
from licquant.config import MAX_BITS, Budget, Plan
from licquant.errors import BudgetError
from licquant.evaluate import provenance
from licquant.images import RGB, list_images, read_image
from licquant.models.trace import TracedModel, trace_model
from licquant.quant.calibrate import collect_statistics
from licquant.quant.grids import planned
from licquant.quant.insert import insert_quantizers
from licquant.quant.network import uniform_plan
from licquant.quant.rd import RateDistortion, evaluate
from licquant.quant.settings import Settings
from licquant.reports import report
from licquant.train.card import load_checkpoint
from licquant.train.process import keep_freed_memory

WIDTHS = tuple(range(2, 9))
SIZE = 0.14  # of the FP32 bytes: where the layers have to compete
SMALL_SIDE, SMALL_BITS = 64, 5
YEAR = 365.25 * 24 * 3600

Evaluate = Callable[[str, str, int], float]


def timed(action: Callable[[], Any]) -> tuple[Any, float]:
    """(result, seconds)."""
    start = time.perf_counter()
    return action(), time.perf_counter() - start


def from_a_table(search: Search) -> dict[str, float]:
    """Seconds of the tables, and of a budget once they are there: FMPQ; optimal's program, and its repair apart."""
    budget = Budget("size", SIZE)
    choices, table = timed(lambda: search.choices(budget).believable())
    _, sizes = timed(lambda: search.file_bytes)
    costs, limit = search.costs(budget)
    _, fmpq = timed(lambda: adaptive_search(choices, costs.total, limit))
    plan, solved = timed(lambda: least_loss(choices, costs, limit))
    _, repaired = timed(lambda: repair(choices, costs, limit, plan, search.joint_loss))
    return {"table": table, "file bytes": sizes, "fmpq": fmpq, "optimal": solved, "repair": repaired}


class Everything(Probe):
    """The same measurements with nothing kept: each one runs the whole model, as brute force does."""

    def _evaluate(self, part: str, changed: str, substitute: Substitute) -> RateDistortion:
        def run(name: str, value: Tensor) -> Tensor:
            graph = self.traced.graphs[name]
            if name == part:
                return run_with_substitute(graph, value, {}, changed, substitute)
            return graph.forward(value)[graph.output]

        with torch.no_grad():
            return evaluate(self.traced, run, self.images)


def full_evaluation(traced: TracedModel, images: Sequence[RGB], crops: Tensor, lmbda: float) -> Evaluate:
    """ζ of one layer's weights or activations by running the whole model.

    The quantized networks are made beforehand: only runs of the model count.
    """
    statistics = collect_statistics(traced, images)
    weights = {bits: insert_quantizers(traced, uniform_plan(traced, bits, 8), statistics) for bits in WIDTHS}
    activations = {bits: insert_quantizers(traced, uniform_plan(traced, MAX_BITS, bits), statistics) for bits in WIDTHS}
    steps = {step.name: (name, step) for name, graph in traced.graphs.items() for step in graph}
    probe = Everything(traced, crops)
    base = probe.base.loss(lmbda)

    def measure(layer: str, kind: str, bits: int) -> float:
        part, step = steps[layer]
        if kind == WEIGHTS:
            found = probe.with_weights(weights[bits], part, step)
        else:
            found = probe.with_activations(activations[bits], part, step)
        return float(found.loss(lmbda) / base) - 1

    return measure


def brute_force_search(
    evaluate: Evaluate, choices: Choices, cost: Cost, limit: float, tolerances: Iterable[float]
) -> Plan:
    """The search without a table: for every β in turn, every ζ is measured again by running the model.

    evaluate: (layer, "weights" or "activations", bits) → ζ, by evaluating the whole model
    tolerances: ascending; the first whose plan meets the limit wins. ``BudgetError`` if none does.
    """
    for beta in tolerances:
        measured = choices.map(evaluate)
        plan = plan_for_tolerance(measured, beta)
        if cost(plan) <= limit:
            return plan
    raise BudgetError("the budget cannot be met with any of the tolerances")


def against_brute_force(traced: TracedModel, images: Sequence[RGB], lmbda: float) -> dict[str, float]:
    """Both searches for the widths of weights and activations, on one crop so small that brute force ends.

    Brute force is told the tolerances at which the plan can change, which it could not know, and tries them upwards.
    """
    images = [image[:SMALL_SIDE, :SMALL_SIDE] for image in images[:1]]
    crops, costs = draw_crops(images, 1, SMALL_SIDE), bops_cost(traced)
    limit = costs.total(uniform_plan(traced, SMALL_BITS, SMALL_BITS))
    statistics = collect_statistics(traced, images)

    def adaptive() -> tuple[Choices, Plan]:
        table = measure_sensitivity(Measuring(traced, statistics, crops), {WEIGHTS: WIDTHS, ACTIVATIONS: WIDTHS})
        choices = Choices.of(table, lmbda, WIDTHS, WIDTHS)
        return choices, adaptive_search(choices, costs.total, limit)

    (choices, plan), adaptive_seconds = timed(adaptive)
    _, search_seconds = timed(lambda: adaptive_search(choices, costs.total, limit))
    measure, calls = full_evaluation(traced, images, crops, lmbda), 0

    def evaluate_counted(layer: str, kind: str, bits: int) -> float:
        nonlocal calls
        calls += 1
        return measure(layer, kind, bits)

    values = {z for of in choices.layers.values() for each in (of.weights, of.activations) for z in each.values()}
    tolerances = sorted(z + 1e-9 for z in {0.0, *values} if z >= 0)
    shown = track(tolerances, "brute force", console=Console(stderr=True))
    found, seconds = timed(lambda: brute_force_search(evaluate_counted, choices, costs.total, limit, shown))
    return {
        "brute_force_seconds": seconds,
        "brute_force_evaluations": calls,
        "adaptive_seconds": adaptive_seconds,
        "adaptive_search_seconds": search_seconds,
        "ratio": seconds / adaptive_seconds,
        "ratio_from_table": seconds / search_seconds,
        "layers_with_the_same_widths": sum(found[name] == bits for name, bits in plan.items()),
        "layers": len(plan),
    }


def projected(search: Search, lmbda: float, table_seconds: float) -> dict[str, float]:
    """Brute force for the whole model at the measured speed: β · measurements, and every assignment."""
    measure = full_evaluation(search.traced, search.images[:2], search.crops, lmbda)
    steps = [step for graph in search.traced.graphs.values() for step in planned(graph)]
    some_layer = next(step.name for step in search.traced.graphs["g_s"] if step.has_weights)
    _, seconds = timed(lambda: measure(some_layer, WEIGHTS, 6))
    kinds = len(WIDTHS) * sum(1 + step.has_weights for step in steps)
    betas = kinds // 2  # half of those at which the plan can change
    scan = betas * kinds * seconds
    return {
        "evaluation_seconds": seconds,
        "measurements": kinds,
        "betas": betas,
        "scan_seconds": scan,
        "scan_ratio": scan / table_seconds,
        "assignments": len(WIDTHS) ** (kinds // len(WIDTHS)),
        "assignments_years": len(WIDTHS) ** (kinds // len(WIDTHS)) * seconds / YEAR,
    }


def print_results(seconds: dict[str, float], small: dict[str, float] | None, whole: dict[str, float]) -> None:
    table = Table(title="Allocation", title_justify="left")
    table.add_column("what")
    table.add_column("measured", justify="right")
    for key, label in (
        ("table", f"sensitivity table, 8 crops of {SIDE}×{SIDE}"),
        ("file bytes", "file bytes of every layer and width"),
        ("fmpq", "a new budget: FMPQ"),
        ("optimal", "a new budget: optimal, the integer program"),
        ("repair", "its repair, on the whole model"),
    ):
        table.add_row(label, f"{seconds[key]:.3g} s")
    if small is not None:
        table.add_section()
        table.add_row("one crop of 64×64: adaptive search, with its table", f"{small['adaptive_seconds']:.3g} s")
        evaluations = f"{small['brute_force_evaluations']} evaluations"
        table.add_row(f"the same by brute force, {evaluations}", f"{small['brute_force_seconds']:.3g} s")
        table.add_row("ratio, with the table", f"{small['ratio']:.0f}×")
        table.add_row("ratio, once the table is there", f"{small['ratio_from_table']:,.0f}×")
    table.add_section()
    scan = f"{whole['betas']} β × {whole['measurements']} ζ × {whole['evaluation_seconds']:.3g} s"
    table.add_row(f"this model, projected: {scan}", f"{whole['scan_seconds'] / 3600:.3g} h")
    table.add_row("ratio, with the table", f"{whole['scan_ratio']:.0f}×")
    every = f"{whole['assignments']:.2g} × {whole['evaluation_seconds']:.3g} s"
    table.add_row(f"all assignments, projected: {every}", f"{whole['assignments_years']:.2g} years")
    Console().print(table)


def main(
    checkpoint: Annotated[Path, typer.Option(help="A checkpoint with its model card.")],
    calib: Annotated[Path, typer.Option(help="A folder of calibration images.")],
    brute_force: Annotated[bool, typer.Option(help="Run it on a small crop; of many layers it takes hours.")] = True,
    output: Annotated[Path, typer.Option("-o", help="Folder for the JSON result.")] = Path("bench-output"),
) -> None:
    """Measure each once, and print the arithmetic of what cannot be measured."""
    output.mkdir(parents=True, exist_ok=True)
    keep_freed_memory()  # as the commands do
    lmbda = float(json.loads(checkpoint.with_suffix(".json").read_text())["lmbda"])
    images = [read_image(path) for path in list_images(calib)]
    traced = trace_model(load_checkpoint(checkpoint))
    statistics = collect_statistics(traced, images)
    settings = Settings(max_bits=max(WIDTHS), lmbda=lmbda)
    with progress() as on_progress:
        search = Search(traced, images, statistics, settings, on_progress=on_progress)
        seconds = from_a_table(search)
    small = against_brute_force(traced, images, lmbda) if brute_force else None
    whole = projected(search, lmbda, seconds["table"] + seconds["fmpq"])
    print_results(seconds, small, whole)
    record = {
        "schema": "licquant-allocation/1",
        "seconds": seconds,
        "one_small_crop": small,
        "projected": whole,
        "provenance": provenance.collect(checkpoint=checkpoint.name),
    }
    report.write_json(output / "allocation.json", record)


if __name__ == "__main__":
    typer.run(main)
