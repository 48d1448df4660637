"""Every family at full size against CompressAI FP32 on the same weights, held to what is asked of it.

    python -m benchmarks.families -o DIR [--family cheng2020-anchor] [--image kodim01.png]

The weights are random (``untrained.py``): they show speed, memory and exactness, never quality. For each model:

    time      whole encode and decode, file bytes to file bytes, both sides with the same threads and in turn:
              every FP32 run (its serial context models take seconds) between runs of licquant
    context   what the context model alone takes while a file is decoded
    memory    largest resident size of a process that decodes one file
    exactness files whose symbols differ under other threads, BLAS kernels and the slow reference (on a crop)

A model whose result lies in DIR is not measured again: an interrupted run goes on where it stopped.
"""

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import typer
from compressai.models.base import CompressionModel
from rich.console import Console
from rich.table import Table

from benchmarks import context, exactness, memory
from benchmarks.speed import Pair, decode_file, embedded, encode_file, summarize
from benchmarks.untrained import untrained_model
from licquant import pipeline
from licquant.codec.codec import Codec, load
from licquant.codec.latents.hyperprior import GaussianCoder
from licquant.evaluate import provenance
from licquant.evaluate.codec_results import Codec as AnyCodec
from licquant.evaluate.reference import ReferenceCodec
from licquant.images import RGB, read_image, write_image
from licquant.program.threads import limited_threads
from licquant.quant.synthetic import dead_leaves
from licquant.reports import report

SCHEMA = "licquant-families/1"
MEMORY_BAR = 800e6
CROP = 128  # side of the piece that the slow reference decodes
CALIBRATION_IMAGES, CALIBRATION_SIDE = 3, 256


@dataclass(frozen=True, eq=False)
class Subject:
    """A model and its bars: ``encode`` and ``decode``, at least so many times faster; ``context``, at most so many
    ms."""

    name: str
    widths: dict[str, int]
    bars: dict[str, float] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return " ".join([self.name, *(f"{key}={value}" for key, value in self.widths.items())])

    def path(self, folder: Path, suffix: str) -> Path:
        return folder / (self.label.replace(" ", "-").replace("=", "") + suffix)


SUBJECTS = (
    Subject("bmshj2018-factorized", {"N": 128, "M": 192}),
    Subject("bmshj2018-hyperprior", {"N": 128, "M": 192}),
    Subject("mbt2018-mean", {"N": 128, "M": 192}),
    Subject("mbt2018", {"N": 192, "M": 192}, {"decode": 20}),
    Subject("cheng2020-anchor", {"N": 128}, {"encode": 6, "decode": 12}),
    Subject("cheng2020-anchor", {"N": 192}, {"context": 150}),
    Subject("cheng2020-attn", {"N": 192}),
    Subject("cheng2020-anchor-checkerboard", {"N": 192}),
    Subject("elic2022-official", {"N": 192, "M": 320}, {"encode": 5, "decode": 5}),
)


# --- measuring ----------------------------------------------------------------------------------------------


def measure_pairs(
    ours: AnyCodec, reference: AnyCodec, image: Path, folder: Path, pairs: int, repeats: int
) -> dict[str, list[Pair]]:
    """``pairs`` FP32 runs of each operation, every one between two halves of ``repeats`` of ours, whose median counts.

    One pair more is the warm-up of both sides.
    """
    found: dict[str, list[Pair]] = {"encode": [], "decode": []}
    for operation, kept in found.items():
        run = encode_file if operation == "encode" else decode_file

        def timed(codec: AnyCodec, name: str, operation: str = operation, run: Callable[..., None] = run) -> float:
            coded = folder / f"{name}.coded"
            files = (image, coded) if operation == "encode" else (coded, folder / f"{name}.ppm")
            start = time.perf_counter()
            run(codec, *files)
            return time.perf_counter() - start

        for index in range(pairs + 1):
            half = max(1, repeats // 2)
            before = [timed(ours, "licquant") for _ in range(half)]
            fp32 = timed(reference, "reference")
            after = [timed(ours, "licquant") for _ in range(half)]
            if index:
                kept.append(Pair(median(before + after), fp32))
    return found


def context_milliseconds(codec: Codec, rgb: RGB, threads: int) -> float:
    """Median time of the passes of σ and μ alone; 0 for a family that has none."""
    if not isinstance(codec.coder, GaussianCoder):
        return 0.0
    latents = codec.analyse(rgb)
    bits = codec.coder.quantizer
    y = latents.y.astype("int64") << (bits.latent_bits - bits.output_bits)
    with limited_threads(threads):
        work = context.stages(codec.coder, y, latents.z)["context model"]
        return context.milliseconds(work, 9, time.perf_counter)


def exactness_of(artifact: Path, rgb: RGB) -> dict[str, int]:
    """Setting → how many of its files decode to other symbols: one image, for the slow reference a piece of it."""
    fast = {name: setting for name, setting in exactness.SETTINGS.items() if name != exactness.SLOW}
    slow = {exactness.SLOW: exactness.SETTINGS[exactness.SLOW]}
    top, left = ((side - CROP) // 2 for side in rgb.shape[:2])
    return exactness.files_that_differ(artifact, {"image": rgb}, fast) | exactness.files_that_differ(
        artifact, {"piece": rgb[top : top + CROP, left : left + CROP]}, slow
    )


def make_artifact(subject: Subject, folder: Path) -> tuple[CompressionModel, Path]:
    """The FP32 model and its artifact, which is made unless it lies in the folder already."""
    photographs = dead_leaves(1 + CALIBRATION_IMAGES, CALIBRATION_SIDE)
    model, path = untrained_model(subject.name, subject.widths, photographs[0]), subject.path(folder, ".licq")
    if not path.exists():
        pipeline.quantize(model, photographs[1:]).artifact.save(path)
    return model, path


def measure(
    subject: Subject, image: Path, output: Path, threads: int, pairs: int, repeats: int, say: Callable[[str], object]
) -> dict[str, Any]:
    """Everything about one model; leaves its artifact in ``output``."""
    say("making the model and its artifact")
    model, artifact = make_artifact(subject, output)
    codec, rgb = load(artifact, threads=threads), read_image(image)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        source = folder / "source.ppm"
        write_image(source, rgb)
        say("encoding and decoding in turn with CompressAI")
        measured = measure_pairs(codec, ReferenceCodec(model), source, folder, pairs, repeats)
        coded = folder / "licquant.coded"
        say("memory, context model, exactness")
        return {
            "family": codec.artifact.family,
            "speed": {operation: summarize(found) for operation, found in measured.items()},
            "context_ms": context_milliseconds(codec, rgb, threads),
            "decode_peak_bytes": memory.measure("decode", artifact, source, coded, folder / "cache")["peak_bytes"],
            "different": exactness_of(artifact, rgb),
            "file_bytes": coded.stat().st_size,
            "artifact_bytes": artifact.stat().st_size,
        }


# --- reporting ----------------------------------------------------------------------------------------------


def misses(subject: Subject, found: dict[str, Any]) -> list[str]:
    """Which bars the result does not reach."""
    missed = []
    for name, bar in subject.bars.items():
        value = found["context_ms"] if name == "context" else found["speed"][name]["ratio_median"]
        if value > bar if name == "context" else value < bar:
            missed.append(f"{name} {value:.1f}, bar {bar:g}")
    if found["decode_peak_bytes"] > MEMORY_BAR:
        missed.append(f"memory {found['decode_peak_bytes'] / 1e6:.0f} MB, bar {MEMORY_BAR / 1e6:.0f}")
    return missed + [f"{count} files differ: {name}" for name, count in found["different"].items() if count]


def table_of(records: dict[Subject, dict[str, Any]], threads: int) -> Table:
    """One row a model: FP32 → licquant in ms with the median of the paired ratios, and the other figures."""
    table = Table(title=f"file to file, {threads} threads; untrained weights", title_justify="left")
    for heading in ("model", "encode ms", "×", "decode ms", "×", "context ms", "decode MB", "differ", "missed"):
        table.add_column(heading, justify="left" if heading in ("model", "missed") else "right")
    for subject, found in records.items():
        times = []
        for row in found["speed"].values():
            times += [f"{row['reference_ms']:,.0f} → {row['licquant_ms']:,.0f}", f"{row['ratio_median']:.1f}"]
        table.add_row(
            subject.label,
            *times,
            f"{found['context_ms']:.0f}",
            f"{found['decode_peak_bytes'] / 1e6:.0f}",
            str(sum(found["different"].values())),
            "; ".join(misses(subject, found)) or "–",
        )
    return table


def main(
    family: Annotated[str, typer.Option(help="Part of the names of the models to measure.")] = "",
    image: Annotated[Path | None, typer.Option(help="Default: an embedded image of 768×512.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of either side.")] = 2,
    pairs: Annotated[int, typer.Option(min=1, help="FP32 runs of each operation.")] = 3,
    repeats: Annotated[int, typer.Option(min=2, help="Runs of licquant around each of them.")] = 6,
    output: Annotated[Path, typer.Option("-o", help="Folder for the JSON results and the artifacts.")] = Path(
        "bench-output"
    ),
) -> None:
    """Measure every model that has no result in OUTPUT yet, print the table; exit code 1 if a bar is missed."""
    output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(threads)
    console = Console(stderr=True)
    chosen = [subject for subject in SUBJECTS if family in subject.label]
    records = {}
    for index, subject in enumerate(chosen, 1):
        path, start = subject.path(output, ".json"), f"[{index}/{len(chosen)}] {subject.label}"
        if not path.exists():
            say = lambda doing, start=start: console.print(f"{start}: {doing}", markup=False)  # noqa: E731
            found = measure(subject, image or embedded("kodim23.png"), output, threads, pairs, repeats, say)
            facts = {"schema": SCHEMA, "model": subject.label, "bars": subject.bars}
            report.write_json(path, {**facts, **found, "provenance": provenance.collect(threads=threads)})
        records[subject] = json.loads(path.read_text())
    Console(width=160).print(table_of(records, threads))
    raise typer.Exit(any(misses(subject, found) for subject, found in records.items()))


if __name__ == "__main__":
    typer.run(main)
