"""Tables 2, 3 and 4 of DynaQuant: cells for every row, checkpoint and seed, measured on real files.

cells ──licquant evaluate──> figures;  over the seeds ──> mean and spread of a row ──> one JSON, one table, one picture
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from rich.table import Table

from licquant.commands.base import Report
from licquant.commands.evaluate import Measured, References, Running, measure
from licquant.commands.reproduce_cells import (
    DPA,
    DPA_DQ,
    NEAREST,
    Interrupted,
    ReproduceOptions,
    Row,
    Way,
    check_inputs,
    in_order,
    interrupted,
    make_cells,
    ready_to_run,
)
from licquant.evaluate.artifacts import Candidate, Group
from licquant.evaluate.codec_results import Curve, RatePoint
from licquant.evaluate.widths import share_different
from licquant.images import list_images
from licquant.quant.in_training.finetune_settings import DISTANCE_AWARE, STRAIGHT_THROUGH
from licquant.reports import dynaquant_pictures, report
from licquant.terminal import say
from licquant.train.process import kept_threads

SCHEMA = "licquant-table/1"

_S, _D, _SETS = STRAIGHT_THROUGH, DISTANCE_AWARE, (6, 8, 10)
TABLES: Mapping[str, tuple[Way, ...]] = {
    "table2": (
        NEAREST,
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


@kept_threads()
def table(name: str, options: ReproduceOptions) -> Report:
    """Make one of ``TABLES``: whatever cells the folder does not hold yet, then measure all of them.

    Errors as those of ``licquant finetune`` and ``evaluate``; all that is wrong with the options is found first.
    """
    rows = TABLES[name]
    check_inputs(options)
    assert options.images is not None
    tests = list_images(options.images)
    with ready_to_run(options) as options:
        return _made_and_measured(name, rows, tests, options)


def _made_and_measured(name: str, rows: Sequence[Way], tests: Sequence[Path], options: ReproduceOptions) -> Report:
    try:
        made = make_cells(rows, options)
    except Interrupted:
        return interrupted(name)
    seeds = {row: row.seeds(options.seeds) for row in rows}
    groups = [
        Group(f"{row.name} #{seed}", row.name, in_order([Candidate.read(path) for path in made[row, seed]]))
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


# --- figures ------------------------------------------------------------------------------------------------


def table_record(
    name: str, rows: Sequence[Way], found: Mapping[str, Sequence[Curve]], measured: Measured, options: ReproduceOptions
) -> dict[str, Any]:
    """What a table's JSON holds; found: row → its curves, one for each seed."""
    reference = measured.reference
    assert reference is not None
    (model,) = options.families
    return {
        "schema": SCHEMA,
        "table": name,
        "settings": {
            "model": model,
            **options.size,
            "seeds": options.seeds,
            "full": options.full,
        },
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
