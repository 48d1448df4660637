"""Speed of whole encodes and decodes against CompressAI FP32: file bytes to file bytes.

Both sides read and write through the same functions, use the same number of threads, and run in turn (A B, B
A, A B, ...), so that drift of the machine meets both alike. What counts is the median of the paired ratios
reference/licquant, each from two runs right after each other on the same image.

Images go in and out as binary PPM, which costs next to nothing; the same with PNG stands beside it: there the
deflate of PNG, equal on both sides, hides a part of the codec. Beside the measured ratio stands the papers'
nominal 32/bits, which is no measurement.
"""

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from licquant.errors import DataError, LicquantError
from licquant.evaluate import provenance
from licquant.evaluate.codec_results import Codec
from licquant.images import list_images, read_image, write_atomically, write_image
from licquant.reports.report import write_json

SCHEMA = "licquant-speed/1"
IMAGE_SUFFIXES = (".ppm", ".png")  # the first is the headline


@dataclass(frozen=True)
class Pair:
    """One run of each side on one image, seconds."""

    licquant: float
    reference: float

    @property
    def ratio(self) -> float:
        return self.reference / self.licquant


# --- measuring ----------------------------------------------------------------------------------------------


def encode_file(codec: Codec, source: Path, target: Path) -> None:
    """Image file → coded file."""
    write_atomically(target, codec.encode(read_image(source)))


def decode_file(codec: Codec, source: Path, target: Path) -> None:
    """Coded file → image file."""
    write_image(target, codec.decode(source.read_bytes()))


def measure(
    licquant_codec: Codec,
    reference_codec: Codec,
    images: Sequence[Path],
    repeats: int,
    folder: Path,
    on_pair: Callable[[], object] = lambda: None,
) -> dict[str, list[Pair]]:
    """``repeats`` pairs of encodes and of decodes for each image file, after one warm-up of everything.

    Decoded images have the suffix of the sources. Order inside a pair alternates from pair to pair.
    """
    pairs: dict[str, list[Pair]] = {"encode": [], "decode": []}
    sides = {"licquant": licquant_codec, "reference": reference_codec}
    for image in images:
        for repeat in range(-1, repeats):  # -1: the warm-up, not kept
            for operation in pairs:
                seconds = {}
                for name in sorted(sides, reverse=repeat % 2 == 0):
                    coded, decoded = folder / f"{name}.coded", folder / f"{name}{image.suffix}"
                    start = time.perf_counter()
                    if operation == "encode":
                        encode_file(sides[name], image, coded)
                    else:
                        decode_file(sides[name], coded, decoded)
                    seconds[name] = time.perf_counter() - start
                if repeat >= 0:
                    pairs[operation].append(Pair(**seconds))
                    on_pair()
    return pairs


def summarize(pairs: Sequence[Pair]) -> dict[str, Any]:
    """Medians in milliseconds, and the paired ratios' median, smallest and largest."""
    ratios = [pair.ratio for pair in pairs]
    return {
        "licquant_ms": 1000 * median(pair.licquant for pair in pairs),
        "reference_ms": 1000 * median(pair.reference for pair in pairs),
        "ratio_median": median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "pairs": len(pairs),
    }


# --- what is measured ---------------------------------------------------------------------------------------


def embedded(pattern: str) -> Path:
    """The first file of licquant's embedded assets that fits ``pattern``; ``DataError`` if there is none."""
    import licquant

    found = sorted((Path(licquant.__file__).parent / "assets").rglob(pattern))
    if not found:
        raise DataError(f"no embedded {pattern}: name one on the command line")
    return found[0]


def reference_checkpoint() -> Path:
    """The FP32 model of the source tree; ``DataError`` if it is not there."""
    found = sorted((Path(__file__).parents[1] / "checkpoints").glob("*-lambda0.0130.licw"))
    if not found:
        raise DataError("no FP32 checkpoint in checkpoints/: name one on the command line")
    return found[0]


def load_reference(checkpoint: Path, channels_last: bool) -> Codec:
    """CompressAI's model of a checkpoint; its name is read from the model card beside it (``.json``)."""
    import torch

    from licquant.evaluate.reference import ReferenceCodec
    from licquant.models import load_model

    card = checkpoint.with_suffix(".json")
    name = json.loads(card.read_text(encoding="utf-8"))["model"] if card.exists() else "bmshj2018-hyperprior"
    model = load_model(name, checkpoint).eval()
    model.update()  # type: ignore[operator]
    return ReferenceCodec(model.to(memory_format=torch.channels_last) if channels_last else model)


def results_table(results: dict[str, dict[str, Any]], nominal: float, threads: int) -> Table:
    """One row for each image format and operation."""
    table = Table(title=f"file to file, {threads} threads, medians")
    for heading in ("images", "operation", "CompressAI FP32", "licquant", "ratio", "min to max", "pairs"):
        table.add_column(heading, justify="left" if heading in ("images", "operation") else "right")
    for image_format, operations in results.items():
        for operation, row in operations.items():
            table.add_row(
                image_format,
                operation,
                f"{row['reference_ms']:.1f} ms",
                f"{row['licquant_ms']:.1f} ms",
                f"{row['ratio_median']:.2f} ×",
                f"{row['ratio_min']:.2f} to {row['ratio_max']:.2f}",
                str(row["pairs"]),
            )
    table.caption = f"nominal 32/bits, not a measurement: {nominal:.2f} ×"
    return table


# --- command ------------------------------------------------------------------------------------------------


def run(
    codec: Codec, reference: Codec, images: Sequence[Path], repeats: int, console: Console
) -> dict[str, dict[str, list[Pair]]]:
    """All pairs, by image format and operation; the images are first written as files of each format."""
    results = {}
    with tempfile.TemporaryDirectory() as name, Progress(console=console, transient=True) as progress:
        total = len(IMAGE_SUFFIXES) * len(images) * repeats * 2
        task = progress.add_task("measuring", total=total)
        for suffix in IMAGE_SUFFIXES:
            sources = []
            for index, image in enumerate(images):
                sources.append(Path(name) / f"source{index}{suffix}")
                write_image(sources[-1], read_image(image))
            results[suffix[1:]] = measure(
                codec, reference, sources, repeats, Path(name), lambda: progress.advance(task)
            )
    return results


def main(
    output: Annotated[Path, typer.Option("--output", "-o", help="folder for speed.json")],
    checkpoint: Annotated[Path | None, typer.Option(help="FP32 checkpoint; default: the embedded one")] = None,
    model: Annotated[Path | None, typer.Option(help="artifact (.licq); default: the embedded one")] = None,
    images: Annotated[Path | None, typer.Option(help="folder; default: the embedded images")] = None,
    threads: Annotated[int, typer.Option(min=1, help="threads of either side")] = 2,
    repeats: Annotated[int, typer.Option(min=1, help="pairs for each image")] = 5,
    bits: Annotated[float, typer.Option(help="weight bits of the artifact, for the nominal ratio")] = 8,
    channels_last: Annotated[
        bool,
        typer.Option(help="give CompressAI the memory layout that is faster on most CPUs; not its default"),
    ] = False,
) -> None:
    """Measure encode and decode against CompressAI FP32 and write OUTPUT/speed.json."""
    console = Console(stderr=True)
    try:
        measure_and_report(
            output=output,
            checkpoint=checkpoint or reference_checkpoint(),
            artifact=model or embedded("*-lambda0.0130.licq"),
            image_paths=list_images(images or embedded("*.png").parent),
            threads=threads,
            repeats=repeats,
            bits=bits,
            channels_last=channels_last,
            console=console,
        )
    except LicquantError as error:
        console.print(f"error: {error}", markup=False)
        raise typer.Exit(1) from error


def measure_and_report(
    *,
    output: Path,
    checkpoint: Path,
    artifact: Path,
    image_paths: Sequence[Path],
    threads: int,
    repeats: int,
    bits: float,
    channels_last: bool,
    console: Console,
) -> None:
    """Load both sides, measure, print the table, write ``speed.json``."""
    import torch

    import licquant

    torch.set_num_threads(threads)
    codec = licquant.load(artifact, threads=threads)
    reference = load_reference(checkpoint, channels_last)
    measured = run(codec, reference, image_paths, repeats, console)
    results = {
        image_format: {operation: summarize(pairs) for operation, pairs in operations.items()}
        for image_format, operations in measured.items()
    }
    record = {
        "schema": SCHEMA,
        "provenance": provenance.collect(
            threads=threads,
            checkpoint=checkpoint.name,
            artifact=artifact.name,
            images=[path.name for path in image_paths],
            repeats=repeats,
            channels_last=channels_last,
        ),
        "results": results,
        "nominal_ratio": 32 / bits,
        "samples_seconds": {
            image_format: {
                operation: [{"licquant": pair.licquant, "reference": pair.reference} for pair in pairs]
                for operation, pairs in operations.items()
            }
            for image_format, operations in measured.items()
        },
    }
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "speed.json", record)
    Console().print(results_table(results, 32 / bits, threads))


if __name__ == "__main__":
    typer.run(main)
