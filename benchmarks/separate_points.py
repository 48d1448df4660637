"""One curve of points that were measured apart, each λ by an ``evaluate`` of its own, on several machines or days.

    python -m benchmarks.separate_points a.json b.json c.json d.json [--model elic2022-official]

Prints a row for each λ and, of four or more, the BD-rate. What a point is compared with is the FP32 model in the same
file (``evaluate --reference``), else that of the card of --model, which holds for the 24 Kodak images alone.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from licquant.errors import DataError
from licquant.evaluate.metrics import bd_rate
from licquant.reports.report import SCHEMA
from licquant.terminal import show_table

FEWEST = 4  # points of a curve that has a BD-rate
KODAK = {f"kodim{number:02}.png" for number in range(1, 25)}


@dataclass(frozen=True)
class Point:
    """bpp of files, PSNR in dB, RD loss J."""

    bpp: float
    psnr: float
    rd_loss: float


@dataclass(frozen=True)
class Pair:
    """A quantized model's point and its FP32 model's; bits: the average over layers of the weights' widths."""

    lmbda: float
    fp32: Point
    quantized: Point
    model_bytes: int
    bits: float

    @property
    def increase(self) -> float:
        """Of the RD loss, in percent."""
        return 100 * (self.quantized.rd_loss / self.fp32.rd_loss - 1)


def pairs(evaluations: Iterable[Path], cards: Sequence[Mapping[str, Any]]) -> list[Pair]:
    """Every point of the files, by λ.

    cards: of the FP32 models that are not in the files
    ``DataError`` for a file that is none of evaluate's or has several curves, for a point without an FP32 one, and
    for a λ twice.
    """
    found = [pair for path in evaluations for pair in _pairs(path, cards)]
    found.sort(key=lambda pair: pair.lmbda)
    if len({pair.lmbda for pair in found}) < len(found):
        raise DataError("one curve has each λ once: some are in two of these files")
    return found


def bd(found: Sequence[Pair]) -> float:
    """BD-rate (PCHIP) in percent; errors as ``metrics.bd_rate``."""
    rates = [[pair.fp32.bpp for pair in found], [pair.quantized.bpp for pair in found]]
    psnrs = [[pair.fp32.psnr for pair in found], [pair.quantized.psnr for pair in found]]
    return bd_rate(rates[0], psnrs[0], rates[1], psnrs[1])


def _pairs(path: Path, cards: Sequence[Mapping[str, Any]]) -> list[Pair]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: not JSON: {error}") from error
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        raise DataError(f"{path}: not the result of licquant evaluate")
    if len(record["curves"]) != 1:
        raise DataError(f"{path}: has {len(record['curves'])} curves, and not one")
    beside = {point["lmbda"]: _point(point) for point in (record["reference"] or {"points": []})["points"]}
    return [
        Pair(
            lmbda=point["lmbda"],
            fp32=beside.get(point["lmbda"]) or _of_card(path, point, cards),
            quantized=_point(point),
            model_bytes=point["model_bytes"],
            bits=point["bits"]["weight_layer"],
        )
        for point in record["curves"][0]["points"]
    ]


def _of_card(path: Path, point: Mapping[str, Any], cards: Sequence[Mapping[str, Any]]) -> Point:
    if {image["name"] for image in point["images"]} != KODAK:
        raise DataError(f"{path}: has no FP32 model, and a card's point is of the 24 Kodak images: use --reference")
    for card in cards:
        if card["lmbda"] == point["lmbda"] and "bpp_real_strings" in card.get("kodak", {}):
            return Point(*(card["kodak"][name] for name in ("bpp_real_strings", "psnr_mean", "rd_loss")))
    raise DataError(f"{path}: has no FP32 model, and no card of --model has its point at λ = {point['lmbda']:g}")


def _point(record: Mapping[str, Any]) -> Point:
    return Point(record["bpp"], record["psnr"], record["rd_loss"])


def cards_of(model: str, folder: Path) -> list[Mapping[str, Any]]:
    """The cards of all λ of a model."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    return [card for card in found if card.get("model") == model]


def table_of(found: Sequence[Pair]) -> Table:
    """A row for each λ."""
    table = Table(title="against FP32", title_justify="left", box=SIMPLE_HEAD)
    for heading in ("λ", "FP32 bpp", "FP32 PSNR", "bpp", "PSNR", "RD loss", "bits a layer", "model bytes"):
        table.add_column(heading, justify="right", no_wrap=True)
    for pair in found:
        rates = [text for p in (pair.fp32, pair.quantized) for text in (f"{p.bpp:.4f}", f"{p.psnr:.2f}")]
        table.add_row(f"{pair.lmbda:g}", *rates, f"{pair.increase:+.2f} %", f"{pair.bits:.2f}", f"{pair.model_bytes:,}")
    return table


def main(
    evaluations: Annotated[list[Path], typer.Argument(help="Results of licquant evaluate, one curve each.")],
    model: Annotated[str, typer.Option(help="CompressAI's name, for FP32 points from cards.")] = "",
    cards: Annotated[Path, typer.Option(help="A folder of model cards.")] = Path("checkpoints"),
) -> None:
    """Print the curve and its BD-rate."""
    try:
        found = pairs(evaluations, cards_of(model, cards))
        show_table(table_of(found))
        if len(found) >= FEWEST:
            Console().print(f"BD-rate (PCHIP) {bd(found):+.2f} %")
    except (DataError, OSError) as error:
        Console(stderr=True).print(f"Error: {error}", markup=False)
        raise typer.Exit(1) from error


if __name__ == "__main__":
    typer.run(main)
