"""Many images in one command against one after another: seconds an image, file to file, models loaded before.

    python -m benchmarks.many_images --images DIR -o DIR

One after another each image has all threads; ``licquant encode FOLDER`` has two at a time on half of them each. Both
sides run in turn (A B, B A, ...), and the files that they write must be equal.
"""

import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.speed import embedded
from licquant.commands.base import Wanted
from licquant.commands.coding_work import Decoding, Encoding, HowRun, Work, attempt
from licquant.commands.file_lists import Job
from licquant.evaluate import provenance
from licquant.images import Reading, list_images, read_image, write_image
from licquant.reports import report

TOGETHER = 2  # as the commands do without --jobs


def works(artifact: Path, threads: int, callers: int) -> dict[str, Work]:
    """Both operations, their models loaded."""
    how = HowRun("openvino", max(1, threads // callers), callers=callers)
    return {
        "encode": Encoding(how, artifact, None, None, None, Reading()).start(),
        "decode": Decoding(how, artifact, Wanted()).start(),
    }


def seconds(jobs: Sequence[Job], work: Work, callers: int) -> float:
    """Wall time of all jobs; the first one's error, if there is one, is raised."""
    start = time.perf_counter()
    with ThreadPoolExecutor(callers) as pool:
        outcomes = list(pool.map(lambda job: attempt(job, work, skip_existing=False), jobs))
    taken = time.perf_counter() - start
    for outcome in outcomes:
        if outcome.error:
            raise RuntimeError(outcome.error)
    return taken


def measure(
    images: Sequence[Path], artifact: Path, threads: int, rounds: int, folder: Path
) -> dict[str, list[dict[str, float]]]:
    """Operation → for each round the seconds an image of ``alone`` and ``together``; a first round is not kept."""
    sources = [folder / f"{number:04d}.ppm" for number in range(len(images))]
    for source, image in zip(sources, images, strict=True):
        write_image(source, read_image(image))
    sides = {
        "alone": (works(artifact, threads, 1), 1),
        "together": (works(artifact, threads, TOGETHER), TOGETHER),
    }
    found: dict[str, list[dict[str, float]]] = {"encode": [], "decode": []}
    for number in range(-1, rounds):
        for operation, kept in found.items():
            taken = {}
            for name in sorted(sides, reverse=number % 2 == 0):
                work, callers = sides[name]
                coded = [folder / name / source.with_suffix(".lic").name for source in sources]
                jobs = {
                    "encode": [Job(source, file) for source, file in zip(sources, coded, strict=True)],
                    "decode": [Job(file, file.with_suffix(".ppm")) for file in coded],
                }
                taken[name] = seconds(jobs[operation], work[operation], callers) / len(sources)
            if number >= 0:
                kept.append(taken)
    check_equal(*(folder / name for name in sides))
    return found


def check_equal(one: Path, other: Path) -> None:
    """``RuntimeError`` unless both folders hold files of the same names and bytes."""
    written, again = ({path.name: path.read_bytes() for path in folder.iterdir()} for folder in (one, other))
    for name in sorted(written | again):
        if written.get(name) != again.get(name):
            raise RuntimeError(f"{name}: differs between one after another and together")


def main(
    images: Annotated[Path, typer.Option(help="A folder of test images.")],
    output: Annotated[Path, typer.Option("-o", help="Folder for many-images.json.")],
    model: Annotated[Path | None, typer.Option(help="Artifact (.licq); default: an embedded one.")] = None,
    threads: int = 2,
    rounds: int = 5,
) -> None:
    """Measure, print the medians, write them with all rounds."""
    artifact = model or embedded("*-lambda0.0130.licq")
    paths = list_images(images)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(paths, artifact, threads, rounds, Path(folder))
    table = Table(title=f"{len(paths)} images, file to file, {threads} threads, medians of {rounds} rounds")
    for heading in ("operation", "alone", "two at a time", "ratio", "from", "to"):
        table.add_column(heading, justify="left" if heading == "operation" else "right")
    for operation, rows in found.items():
        ratios = [row["together"] / row["alone"] for row in rows]
        ms = {name: f"{1000 * median(row[name] for row in rows):.0f} ms" for name in ("alone", "together")}
        bounds = (f"{value:.2f}" for value in (median(ratios), min(ratios), max(ratios)))
        table.add_row(operation, ms["alone"], ms["together"], *bounds)
    Console().print(table)
    output.mkdir(parents=True, exist_ok=True)
    record = {
        "schema": "licquant-many-images/1",
        "provenance": provenance.collect(artifact=artifact.name, threads=threads, images=len(paths)),
        "rounds": found,
    }
    report.write_json(output / "many-images.json", record)


if __name__ == "__main__":
    typer.run(main)
