"""Several artifacts beside one another: milliseconds to encode and to decode an image in memory, and their bytes.

    python -m benchmarks.side_by_side A.licq B.licq … --images DIR -o DIR

All take turns on every image, so that a load of the machine falls on all of them. The ratio is the median of those of
the pairs, each with the first artifact's time on the same image.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

import licquant
from licquant.evaluate import provenance
from licquant.images import RGB, list_images, read_image
from licquant.reports import report

OPERATIONS = ("encode", "decode")


def measure(
    artifacts: Sequence[Path], images: Sequence[RGB], threads: int, rounds: int
) -> list[dict[str, list[float]]]:
    """Of each artifact: operation → seconds of each image in each round; a first round is not kept."""
    codecs = [licquant.load(path, threads=threads) for path in artifacts]
    found: list[dict[str, list[float]]] = [{name: [] for name in OPERATIONS} for _ in codecs]
    for number in range(rounds + 1):
        for rgb in images:
            for codec, times in zip(codecs, found, strict=True):
                begin = time.perf_counter()
                coded = codec.encode(rgb)
                between = time.perf_counter()
                codec.decode(coded)
                if number:
                    times["encode"].append(between - begin)
                    times["decode"].append(time.perf_counter() - between)
    return found


def summary(times: Sequence[dict[str, list[float]]]) -> list[dict[str, float]]:
    """Of each artifact: medians in ms, and the median ratio to the first one's times."""
    return [
        {f"{name}_ms": 1e3 * median(of[name]) for name in OPERATIONS}
        | {f"{name}_ratio": median(a / b for a, b in zip(of[name], times[0][name], strict=True)) for name in OPERATIONS}
        for of in times
    ]


def main(
    artifacts: Annotated[
        list[Path], typer.Argument(help="Quantized models; the first is what others are compared to.")
    ],
    images: Annotated[Path, typer.Option(help="A folder of test images.")],
    threads: int = 2,
    rounds: int = 3,
    output: Annotated[Path, typer.Option("-o", help="Folder for the JSON result.")] = Path("bench-output"),
) -> None:
    """Print bytes, medians and ratios of every artifact."""
    rows = summary(measure(artifacts, [read_image(path) for path in list_images(images)], threads, rounds))
    table = Table(title=f"{threads} threads, {rounds} rounds", title_justify="left")
    for heading in ("model", "bytes", "encode", "to the first", "decode", "to the first"):
        table.add_column(heading, justify="left" if heading == "model" else "right")
    for path, row in zip(artifacts, rows, strict=True):
        cells = [cell for name in OPERATIONS for cell in (f"{row[f'{name}_ms']:.1f} ms", f"{row[f'{name}_ratio']:.3f}")]
        table.add_row(path.name, f"{path.stat().st_size:,}", *cells)
    Console().print(table)
    output.mkdir(parents=True, exist_ok=True)
    models = [
        {"model": path.name, "bytes": path.stat().st_size, **row} for path, row in zip(artifacts, rows, strict=True)
    ]
    facts = provenance.collect(threads=threads)
    report.write_json(
        output / "side-by-side.json", {"schema": "licquant-side-by-side/1", "models": models, "provenance": facts}
    )


if __name__ == "__main__":
    typer.run(main)
