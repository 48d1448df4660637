"""Table 1 and figures 4 and 5 of DynaQuant, on every trained family that there is: what each way to quantize loses.

    way × checkpoint ──licquant quantize or finetune──> artifact ──licquant evaluate──> BD-rate of a family

Real files and all layers; what the papers print for a way stands beside it. A cell that is finished is not made again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.table import Table

from licquant.codec.codec import load
from licquant.commands.base import Report
from licquant.commands.evaluate import Measured, References, Running, measure
from licquant.commands.reproduce_cells import (
    DPA_DQ_AS_PRINTED,
    DPA_RECONSTRUCTED,
    NEAREST,
    AfterTraining,
    Interrupted,
    ReproduceOptions,
    Way,
    check_inputs,
    in_order,
    interrupted,
    make_cells,
    ready_to_run,
)
from licquant.commands.toolkit import known_lmbda
from licquant.evaluate.artifacts import Candidate, Group
from licquant.evaluate.codec_results import Curve, ImageResult, RatePoint, evaluate_codec
from licquant.evaluate.reference import evaluate_reference
from licquant.images import RGB, list_images, read_image, utf8, write_result
from licquant.reports import dynaquant_pictures, report
from licquant.terminal import say
from licquant.train.card import load_checkpoint, loss_of
from licquant.train.process import kept_threads

SCHEMA = "licquant-table1/1"
_STATIC, _DYNAMIC = DPA_RECONSTRUCTED, DPA_DQ_AS_PRINTED
DRAWN: tuple[Way, ...] = (_STATIC, _DYNAMIC)  # of figures 4 and 5
# Under 8 bits on average a layer may have up to 10 of them; a sixth of the bytes is of the file that is written.
WAYS: tuple[Way, ...] = (
    NEAREST,
    AfterTraining("W8A8 after training", "uniform", "bits=8"),
    AfterTraining("FMPQ", "fmpq", "bits=8", max_bits=10),
    AfterTraining("optimal, 1/6 of the bytes", "optimal", "size=0.1667", max_bits=10),
    AfterTraining("RDO-PTQ W8A8", "rdo-ptq", "bits=8"),
    AfterTraining("RAQ", "raq", "bits=8", act_bits=10),
    *DRAWN,
)
# BD-rates on Kodak in percent: DynaQuant, table 1; those of mbt2018 HAMP-LIC (arXiv 2608.12239), table I. Bits, layers
# that are left out and what counts as a rate differ from paper to paper.
PUBLISHED: Mapping[str, Mapping[str, float]] = {
    "bmshj2018-hyperprior": {NEAREST.name: 7.44, "FMPQ": 6.48, _STATIC.name: 5.85, _DYNAMIC.name: 7.63},
    "mbt2018": {NEAREST.name: 3.54, "FMPQ": 1.20},
    "cheng2020-anchor": {
        NEAREST.name: 2.05, "FMPQ": 0.89, "RDO-PTQ W8A8": 4.88, "RAQ": 27.84, _STATIC.name: 1.02, _DYNAMIC.name: 7.15,
    },
    "elic2022-official": {_STATIC.name: 5.97, _DYNAMIC.name: 7.62},
}  # fmt: skip


@kept_threads()
def table1(options: ReproduceOptions) -> Report:
    """Every way for every family: ``table1.json``, ``.md``, and ``.png`` where there are BD-rates.

    Errors as ``reproduce_tables.table``.
    """
    found = _measured(WAYS, options)
    if found is None:
        return interrupted("table1")
    record = table1_record(found)
    report.write_json(options.output / "table1.json", record)
    write_result(options.output / "table1.md", utf8(markdown(record)))
    rates = {family["model"]: _rates(family) for family in record["families"]}
    if any(rates.values()):
        dynaquant_pictures.bd_rates(options.output / "table1.png", rates, PUBLISHED)

    def show() -> None:
        report.print_table(rich_table(record))
        say(f"{options.output}: artifacts, table1.json, table1.md and, of BD-rates, table1.png")

    return Report(record, show)


@kept_threads()
def figure4(options: ReproduceOptions) -> Report:
    """RD curves of every family in FP32, in 8 bits, and with widths that depend on the image."""
    found = _measured(DRAWN, options)
    if found is None:
        return interrupted("fig4")
    panels = {
        name: (fp32, [Curve(_in_bits(way.name, curve), curve.points) for way, curve in curves.items()])
        for name, (fp32, curves) in found.families.items()
    }
    path = options.output / "fig4.png"
    dynaquant_pictures.rd_panels(path, panels)
    record = {**table1_record(found), "schema": "licquant-fig4/1"}
    report.write_json(options.output / "fig4.json", record)
    return Report({"output": str(path), **record}, lambda: say(str(path)))


@kept_threads()
def figure5(options: ReproduceOptions) -> Report:
    """The first test image, whole and its middle: as it is, in FP32, in 8 bits, and with widths of its own.

    Of every family the checkpoint with the largest λ.
    """
    check_inputs(options)
    assert options.images is not None
    image = list_images(options.images)[0]
    largest = {name: max(paths, key=_lmbda) for name, paths in options.families.items()}
    with ready_to_run(replace(options, checkpoints=list(largest.values()), seeds=1)) as options:
        try:
            made = make_cells(DRAWN, options)
        except Interrupted:
            return interrupted("fig5")
    panels = {
        name: list(_panels(image, checkpoint, {way.name: made[way, 0][index] for way in DRAWN}, options.threads))
        for index, (name, checkpoint) in enumerate(largest.items())
    }
    path = options.output / "fig5.png"
    dynaquant_pictures.details(path, read_image(image), {name: _captioned(row) for name, row in panels.items()})
    record = {
        "schema": "licquant-fig5/1",
        "image": image.name,
        "families": {
            name: {label: {"bpp": result.bpp, "psnr": result.psnr} for label, _, result in row}
            for name, row in panels.items()
        },
    }
    report.write_json(options.output / "fig5.json", record)
    return Report({"output": str(path), **record}, lambda: say(str(path)))


# --- measuring ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Found:
    """What was measured. families: model → (its FP32 curve, way → its curve)"""

    families: Mapping[str, tuple[Curve, Mapping[Way, Curve]]]
    measured: Measured


def _measured(ways: Sequence[Way], options: ReproduceOptions) -> Found | None:
    """None if somebody wanted a cell to stop."""
    check_inputs(options)
    assert options.images is not None
    tests = list_images(options.images)
    families = options.families
    with ready_to_run(replace(options, seeds=1)) as options:
        try:
            made = make_cells(ways, options)
        except Interrupted:
            return None
        files = {way: dict(zip(options.checkpoints, made[way, 0], strict=True)) for way in ways}
        groups = [
            Group(f"{name} {way.name}", way.name, in_order([Candidate.read(files[way][path]) for path in paths]))
            for name, paths in families.items()
            for way in ways
        ]
        running = Running(options.threads, cluster=options.cluster, rows=options.output / "table1-rows")
        measured = measure(groups, References(options.checkpoints, options.model), tests, running)
    curves = iter(measured.curves)
    found = {name: (measured.references[name], {way: next(curves) for way in ways}) for name in families}
    return Found(found, measured)


def table1_record(found: Found) -> dict[str, Any]:
    """What the JSON holds: of every family the FP32 points, and of every way its figures and its points."""
    return {
        "schema": SCHEMA,
        "provenance": found.measured.facts,
        "families": [
            {
                "model": name,
                "reference": [_point(point) for point in fp32.points],
                "ways": [
                    {
                        "name": way.name,
                        **report.compare(curve, fp32),
                        "points": [_point(point) for point in curve.points],
                        "published_bd_rate_percent": PUBLISHED.get(name, {}).get(way.name),
                    }
                    for way, curve in curves.items()
                ],
            }
            for name, (fp32, curves) in found.families.items()
        ],
    }


def _point(point: RatePoint) -> dict[str, float]:
    return {"lmbda": point.lmbda, "bpp": point.bpp, "psnr": point.psnr, "rd_loss": point.rd_loss}


def _rates(family: Mapping[str, Any]) -> dict[str, float]:
    """Way → BD-rate in percent, of those that have one: it takes four points."""
    rates = {way["name"]: way["bd_rate_pchip_percent"] for way in family["ways"]}
    return {name: rate for name, rate in rates.items() if rate is not None}


_TITLE = "BD-rate (PCHIP) against the same FP32 checkpoints, real files, all layers"
_COLUMNS = ("family", "way", "bits per weight", "per layer", "activations", "model, of FP32", "BD-rate", "the paper's")


def _cells(record: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """One for each family and way, as ``_COLUMNS`` says."""
    for family in record["families"]:
        for way in family["ways"]:
            bits = way["average_bits"]
            yield (
                family["model"],
                way["name"],
                *(f"{bits[key]:.2f}" for key in ("weight", "weight_layer", "activation")),
                f"{way['average_model_percent']:.1f} %",
                *(
                    "–" if rate is None else f"{rate:+.2f} %"
                    for rate in (way["bd_rate_pchip_percent"], way["published_bd_rate_percent"])
                ),
            )


def markdown(record: Mapping[str, Any]) -> str:
    """The table for a page."""
    images = record["provenance"]["images"]
    lines = [_COLUMNS, ("---",) * len(_COLUMNS), *_cells(record)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{_TITLE}, {images} images.\n\n{table}\n"


def rich_table(record: Mapping[str, Any]) -> Table:
    """The table for a terminal."""
    table = Table(
        title="BD-rate (PCHIP) against the same FP32 checkpoints, real files, all layers", title_justify="left"
    )
    for index, heading in enumerate(_COLUMNS):
        table.add_column(heading, justify="left" if index < 2 else "right", no_wrap=True)
    family = None
    for cells in _cells(record):
        if family not in (None, cells[0]):
            table.add_section()
        family = cells[0]
        table.add_row(*cells)
    return table


# --- pictures -----------------------------------------------------------------------------------------------


def _in_bits(name: str, curve: Curve) -> str:
    """A curve's name with its average width, as the paper's legend has it."""
    return f"{name}: {fmean(point.bits.weight_layer for point in curve.points if point.bits):.2f} bits"


def _panels(
    image: Path, checkpoint: Path, artifacts: Mapping[str, Path], threads: int | None
) -> Iterator[tuple[str, RGB, ImageResult]]:
    """(name, picture, figures) of one image in FP32 and by every artifact."""
    lmbda, decoded = _lmbda(checkpoint), list[RGB]()

    def keep(_: RGB, __: bytes, rgb: RGB) -> None:
        decoded.append(rgb)

    results = [("FP32", evaluate_reference(load_checkpoint(checkpoint), [image], lmbda, on_coded=keep))]
    for name, artifact in artifacts.items():
        results.append((name, evaluate_codec(load(artifact, threads=threads), [image], lmbda, on_coded=keep)))
    for (name, (result,)), rgb in zip(results, decoded, strict=True):
        yield name, rgb, result


def _captioned(panels: Sequence[tuple[str, RGB, ImageResult]]) -> list[tuple[str, RGB]]:
    return [(f"{name}\n{result.bpp:.3f} bpp, {result.psnr:.2f} dB", rgb) for name, rgb, result in panels]


def _lmbda(checkpoint: Path) -> float:
    return known_lmbda(checkpoint, loss_of(checkpoint)[0])
