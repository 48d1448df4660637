"""Tables 2, 3 and 4 of DynaQuant: one finetune for each row, checkpoint and seed, measured on real files.

    cell (row × checkpoint × seed) ──licquant finetune──> artifact in the folder ──licquant evaluate──> figures
    figures over the seeds ──> mean and spread of a row ──> one JSON, one table, one picture

A cell that is finished is not done again, one that was interrupted goes on, and tables in one folder share their cells.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from rich.table import Table

from licquant.cluster.session import Cluster, connected
from licquant.commands import finetune as finetune_command
from licquant.commands.base import Report
from licquant.commands.compare import is_made
from licquant.commands.evaluate import Measured, References, Running, measure
from licquant.commands.prepared import Prepared, make_each, prepare
from licquant.commands.quantize import QuantizeOptions, command_line, quantize
from licquant.commands.toolkit import lmbdas_of
from licquant.dynamic.settings import DynamicSettings
from licquant.errors import LicquantError
from licquant.evaluate.artifacts import Candidate, Group
from licquant.evaluate.codec_results import Curve, RatePoint
from licquant.evaluate.widths import share_different
from licquant.images import calibration_files, list_images
from licquant.quant.in_training.finetune_settings import DISTANCE_AWARE, STRAIGHT_THROUGH
from licquant.reports import dynaquant_pictures, report
from licquant.terminal import note, say
from licquant.train.card import lmbda_of
from licquant.train.process import kept_threads
from licquant.train.progress import INTERRUPTED
from licquant.train.settings import RunOptions

SCHEMA = "licquant-table/1"


@dataclass(frozen=True)
class Row:
    """One way to quantize.

    name:       as in the paper's table
    quantizer:  of ``FinetuneRecipe``; None: nothing is trained, every weight is rounded to nearest
    estimator:  the same
    widths:     one: of all weights and activations; several: candidates, one of which is chosen for stage and image
    """

    name: str
    quantizer: str | None
    estimator: str
    widths: tuple[int, ...] = (8,)

    @property
    def key(self) -> str:
        """What tells its artifacts from other rows', in a file name."""
        trained = "fpq" if self.quantizer is None else f"{self.quantizer}-{self.estimator}"
        return f"{trained}-{'.'.join(map(str, self.widths))}"


_S, _D, _SETS = STRAIGHT_THROUGH, DISTANCE_AWARE, (6, 8, 10)
DPA_DQ = Row("DPA-DQ {6,8,10}", "dpa", _D, _SETS)
DPA = Row("DPA, DGM", "dpa", _D)
TABLES: Mapping[str, tuple[Row, ...]] = {
    "table2": (
        Row("FPQ", None, _S),
        Row("PAMS, STE", "pams", _S),
        Row("PAMS, DGM", "pams", _D),
        Row("LSQ, STE", "lsq", _S),
        Row("LSQ, DGM", "lsq", _D),
        Row("DPA, STE", "dpa", _S),
        DPA,
        Row("DPA, DGM [INT6]", "dpa", _D, (6,)),
        Row("PAMS-DQ {6,8,10}", "pams", _S, _SETS),
        DPA_DQ,
    ),
    "table3": (
        DPA,
        Row("without s", "dpa-fixed-scales", _D),
        Row("without z", "dpa-fixed-zero-points", _D),
        Row("without g(x)", "dpa", _S),
        DPA_DQ,
        Row("DQ without s", "dpa-fixed-scales", _D, _SETS),
        Row("DQ without z", "dpa-fixed-zero-points", _D, _SETS),
        Row("DQ without g(x)", "dpa", _S, _SETS),
    ),
    "table4": (
        Row("DPA-DQ {4,6,8}", "dpa", _D, (4, 6, 8)),
        DPA_DQ,
        Row("DPA-DQ {8,16}", "dpa", _D, (8, 16)),
        Row("DPA, static 8", "dpa", _D),
    ),
}

# What every cell of a table is trained with. Small: meant for an hour on two cores and one checkpoint of the scale
# hyperprior; full: for a GPU.
SMALL: Mapping[str, Any] = {"steps": 60, "batch": 4, "crop": 128, "large_from": 1.0, "warmup": 10}
FULL: Mapping[str, Any] = {"steps": 10_000, "batch": 16, "crop": 256, "large_from": 1.0, "warmup": 200}


@dataclass(frozen=True)
class ReproduceOptions:
    """The options of ``licquant reproduce``; a result says which of them it needs.

    train, calib, images: folders of training, calibration and test images
    seeds:                how many cells there are for each row and checkpoint
    steps:                of every finetune; None: those of the size
    full:                 for a GPU
    artifact:             what figure 6 shows; None: the DPA-DQ cell, which is made if need be
    cluster:              for cells and measurements; None for this process
    """

    output: Path
    model: str = "bmshj2018-hyperprior"
    checkpoints: Sequence[Path] = ()
    calib: Path | None = None
    train: Path | None = None
    images: Path | None = None
    artifact: Path | None = None
    seeds: int = 3
    steps: int | None = None
    full: bool = False
    threads: int | None = None
    cache: Path | None = None
    cluster: Cluster | None = None

    @property
    def size(self) -> dict[str, Any]:
        """Settings of the recipe."""
        given = {} if self.steps is None else {"steps": self.steps}
        return {**(FULL if self.full else SMALL), **given}


@dataclass(frozen=True)
class Cell:
    """A row of a table at a checkpoint and a seed; size, command: of the process that wants it"""

    row: Row
    seed: int
    checkpoint: Path
    options: ReproduceOptions
    size: Mapping[str, Any]
    command: str

    @property
    def output(self) -> Path:
        """Its artifact."""
        return self.options.output / f"{self.checkpoint.stem}-{self.row.key}-seed{self.seed}.licq"


class Interrupted(Exception):
    """Somebody wanted a cell to stop; what it has done is saved."""


@kept_threads()
def table(name: str, options: ReproduceOptions) -> Report:
    """Make one of ``TABLES``: whatever cells the folder does not hold yet, then measure all of them.

    Errors as those of ``licquant finetune`` and ``evaluate``; all that is wrong with the options is found first.
    """
    rows = TABLES[name]
    check_inputs(options)
    assert options.images is not None
    tests = list_images(options.images)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    if options.cluster:
        options = replace(options, cluster=replace(options.cluster, threads=torch.get_num_threads()))
    with connected(options.cluster) if options.cluster else nullcontext():
        return _made_and_measured(name, rows, tests, options)


def _made_and_measured(name: str, rows: Sequence[Row], tests: Sequence[Path], options: ReproduceOptions) -> Report:
    try:
        made = make_cells(rows, options)
    except Interrupted:
        return interrupted(name)
    seeds = {row: range(options.seeds if row.quantizer else 1) for row in rows}
    groups = [
        Group(f"{row.name} #{seed}", row.name, _in_order([Candidate.read(path) for path in made[row, seed]]))
        for row in rows
        for seed in seeds[row]
    ]
    running = Running(options.threads, cluster=options.cluster, rows=options.output / f"{name}-rows")
    measured = measure(groups, References(options.checkpoints, options.model), tests, running)
    curves = iter(measured.curves)
    found = {row.name: [next(curves) for _ in seeds[row]] for row in rows}
    record = table_record(name, rows, found, measured, options)
    report.write_json(options.output / f"{name}.json", record)
    dynaquant_pictures.losses(options.output / f"{name}.png", _losses(record), f"{name}: loss against FP32, each seed")

    def show() -> None:
        report.print_table(rich_table(record))
        say(f"{options.output}: artifacts, {name}.json, {name}.png")

    return Report(record, show)


def interrupted(name: str) -> Report:
    """What stands for a table whose making was stopped and can go on."""
    line = f"{name}: interrupted; the same command goes on from there"
    return Report({"table": name, "status": INTERRUPTED}, lambda: say(line))


# --- cells --------------------------------------------------------------------------------------------------


def check_inputs(options: ReproduceOptions) -> None:
    """``LicquantError`` for folders and checkpoints that are missing, or checkpoints that cannot be told apart."""
    needed = {"--checkpoint": options.checkpoints, "--calib": options.calib, "--train": options.train}
    missing = [name for name, value in {**needed, "--images": options.images}.items() if not value]
    if missing:
        raise LicquantError(f"this result is made by finetuning: it needs {', '.join(missing)}")
    if options.seeds < 1:
        raise LicquantError(f"seeds = {options.seeds}: must be at least 1")
    lmbdas_of(options.checkpoints)
    assert options.calib is not None
    calibration_files(options.calib)


def make_cells(rows: Sequence[Row], options: ReproduceOptions) -> dict[tuple[Row, int], list[Path]]:
    """(row, seed) → its artifacts, one for each checkpoint; ``Interrupted`` if somebody wanted a cell to stop."""
    alone = replace(options, cluster=None)
    cells = [
        Cell(row, seed, checkpoint, alone, options.size, command_line())
        for row in rows
        for seed, checkpoint in product(range(options.seeds if row.quantizer else 1), options.checkpoints)
    ]
    if not all(_on_cluster(options.cluster, cells) if options.cluster else _in_turn(cells)):
        raise Interrupted
    made = dict[tuple[Row, int], list[Path]]()
    for cell in cells:
        made.setdefault((cell.row, cell.seed), []).append(cell.output)
    return made


def _in_turn(cells: Sequence[Cell]) -> Iterator[bool]:
    """Whether each was made."""
    for number, cell in enumerate(cells, 1):
        note(f"{number}/{len(cells)} {cell.output.name}")
        yield _make(cell)


def _on_cluster(cluster: Cluster, cells: Sequence[Cell]) -> Iterator[bool]:
    """The same: checkpoints are calibrated here, then every cell is a task."""
    options = cells[0].options
    assert options.calib is not None
    prepared = {path.absolute(): prepare(path, options.model, options.calib) for path in options.checkpoints}
    places = {name: path.absolute() for name in _PLACES if (path := getattr(options, name)) is not None}
    absolute = replace(options, **places)
    there = [replace(cell, checkpoint=cell.checkpoint.absolute(), options=absolute) for cell in cells]
    alike = replace(cluster, threads=options.threads or torch.get_num_threads())
    for number, (cell, whole) in enumerate(make_each(alike, _make, prepared, there), 1):
        note(f"{number}/{len(cells)} {cell.output.name}")
        yield whole


_PLACES = ("output", "calib", "train", "images", "cache")


def _make(cell: Cell, prepared: Prepared | None = None) -> bool:
    """Make its artifact, unless it is there; False if somebody wanted it to stop."""
    if cell.row.quantizer is None:
        return _round_to_nearest(cell, prepared)
    return _finetune(cell, prepared)


def _round_to_nearest(cell: Cell, prepared: Prepared | None) -> bool:
    (bits,) = cell.row.widths
    options = cell.options
    assert options.calib is not None
    job = QuantizeOptions(
        model=options.model, checkpoint=cell.checkpoint, calib=options.calib, output=cell.output,
        budget=f"bits={bits}", act_bits=bits, steps=0, lmbda=lmbda_of(cell.checkpoint, None), cache=options.cache,
        command=cell.command,
    )  # fmt: skip
    if not is_made(job):
        quantize(job, prepared)
    return True


def _finetune(cell: Cell, prepared: Prepared | None) -> bool:
    options, row = cell.options, cell.row
    assert options.calib is not None
    assert options.train is not None
    recipe = {"model": options.model, "quantizer": row.quantizer, "estimator": row.estimator, "seed": cell.seed}
    run = RunOptions(
        options.train, cell.output, init=cell.checkpoint, resume=True, threads=options.threads, cache=options.cache,
        accelerator="auto",
    )  # fmt: skip
    static = {"budget": f"bits={row.widths[0]}", "act_bits": row.widths[0]}
    widths: dict[str, Any] = static if len(row.widths) == 1 else {"dynamic": DynamicSettings(row.widths)}
    found = finetune_command.run(
        finetune_command.FinetuneOptions(
            recipe={**recipe, **cell.size}, run=run, calib=options.calib, tables=options.cache, **widths
        ),
        prepared,
    )
    return bool(found.record["status"] != INTERRUPTED)


def _in_order(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    return tuple(sorted(candidates, key=lambda candidate: candidate.lmbda))


# --- figures ------------------------------------------------------------------------------------------------


def table_record(
    name: str, rows: Sequence[Row], found: Mapping[str, Sequence[Curve]], measured: Measured, options: ReproduceOptions
) -> dict[str, Any]:
    """What a table's JSON holds; found: row → its curves, one for each seed."""
    reference = measured.reference
    assert reference is not None
    return {
        "schema": SCHEMA,
        "table": name,
        "settings": {"model": options.model, **options.size, "seeds": options.seeds, "full": options.full},
        "provenance": measured.facts,
        "reference": [{"lmbda": point.lmbda, **_means([_figures(point, None)])} for point in reference.points],
        "rows": [
            {
                **asdict(row),
                "points": [_point_record(fp32, found[row.name]) for fp32 in reference.points],
                "bd_rate_percent": _over_seeds(
                    [{"pchip": report.compare(curve, reference)["bd_rate_pchip_percent"]} for curve in found[row.name]]
                ),
            }
            for row in rows
        ],
    }


def _point_record(fp32: RatePoint, curves: Sequence[Curve]) -> dict[str, Any]:
    """A row at one λ; every curve has a point there."""
    points = [point for curve in curves if (point := curve.at(fp32.lmbda))]
    return {"lmbda": fp32.lmbda, **_over_seeds([_figures(point, fp32) for point in points])}


def _figures(point: RatePoint, fp32: RatePoint | None) -> dict[str, float | None]:
    """Of one cell; None for what it does not have. ``bits`` are parameter-weighted, ``bits_layer`` by layers."""
    return {
        "bits": point.bits.weight if point.bits else None,
        "bits_layer": point.bits.weight_layer if point.bits else None,
        "bits_activation": point.bits.activation if point.bits else None,
        "bpp": point.bpp,
        "psnr": point.psnr,
        "rd_loss": point.rd_loss,
        "rd_loss_change_percent": report.rd_loss_change(point, fp32),
        "model_bytes": point.model_bytes,
        "share_different": share_different(point.choices) if point.choices else None,
    }


def _over_seeds(cells: Sequence[Mapping[str, float | None]]) -> dict[str, Any]:
    """``values`` (one for each seed), ``mean`` and ``spread`` (the sample standard deviation) of every figure."""
    values = {key: [cell[key] for cell in cells] for key in cells[0]}
    known = {key: [value for value in row if value is not None] for key, row in values.items()}
    return {
        "values": values,
        "mean": {key: fmean(row) if row else None for key, row in known.items()},
        "spread": {key: stdev(row) if len(row) > 1 else None for key, row in known.items()},
    }


def _means(cells: Sequence[Mapping[str, float | None]]) -> dict[str, Any]:
    found: dict[str, Any] = _over_seeds(cells)["mean"]
    return found


def _losses(record: Mapping[str, Any]) -> dict[str, dict[float, list[float]]]:
    """Row → λ → the loss of every seed in percent, for the picture; the row's name with its average bits."""
    return {
        f"{row['name']}\n{fmean(point['mean']['bits'] for point in row['points']):.2f} bits": {
            point["lmbda"]: point["values"]["rd_loss_change_percent"] for point in row["points"]
        }
        for row in record["rows"]
    }


def rich_table(record: Mapping[str, Any]) -> Table:
    """Rows × figures, each a mean with its spread over the seeds; one block for each λ."""
    settings = record["settings"]
    table = Table(
        title=f"{record['table']}: {settings['model']}, {settings['steps']} steps of {settings['batch']} crops of "
        f"{settings['crop']}×{settings['crop']}, {settings['seeds']} seeds: mean ± standard deviation",
        title_justify="left",
    )
    table.add_column("row", no_wrap=True)
    headings = ["λ", "bits", "bits/layer", "act. bits", "bpp", "PSNR dB", "RD loss", "vs. FP32 %", "differ %"]
    for heading in [*headings, "BD-rate %"]:
        table.add_column(heading, justify="right", no_wrap=True)
    for fp32 in record["reference"]:
        figures = (f"{fp32['lmbda']:g}", "32", "32", "32", f"{fp32['bpp']:.4f}", f"{fp32['psnr']:.3f}")
        table.add_row("FP32", *figures, f"{fp32['rd_loss']:.4f}", "–", "–", "–")
    table.add_section()
    for row in record["rows"]:
        for cells in _table_rows(row):
            table.add_row(*cells)
    return table


def _table_rows(row: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """One for each λ."""
    for point in row["points"]:
        yield (
            row["name"],
            f"{point['lmbda']:g}",
            *(_cell(point, key, ".2f") for key in ("bits", "bits_layer", "bits_activation")),
            _cell(point, "bpp", ".4f"),
            _cell(point, "psnr", ".3f"),
            _cell(point, "rd_loss", ".4f"),
            _cell(point, "rd_loss_change_percent", "+.2f"),
            _cell(point, "share_different", ".0%").replace("%", ""),
            _cell(row["bd_rate_percent"], "pchip", "+.2f"),
        )


def _cell(of_seeds: Mapping[str, Any], key: str, form: str) -> str:
    mean, spread = of_seeds["mean"][key], of_seeds["spread"][key]
    if mean is None:
        return "–"
    return f"{mean:{form}}" + (f" ± {spread:{form.lstrip('+')}}" if spread else "")
