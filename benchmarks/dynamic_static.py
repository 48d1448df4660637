"""Does choosing widths for every image pay? A dynamic model beside a static one of the same bits, trained alike.

python -m benchmarks.dynamic_static --dynamic dynamic.licq --checkpoint CKPT --data DIR --calib DIR --images DIR -o DIR

The static plan has on average over the layers the bits that the dynamic model chose on these images, or nearly, and
of such plans the widths nearest to its averages of the stages. It is finetuned with the recipe that the
dynamic model tells of, and both are measured on real files.
"""

from collections.abc import Mapping
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from licquant.codec.codec import Codec, load
from licquant.codec.files.artifact import Artifact, read_artifact_bytes
from licquant.commands import finetune as finetune_command
from licquant.config import LayerBits, Plan
from licquant.dynamic.objective import ROUNDING
from licquant.evaluate import provenance
from licquant.evaluate.codec_results import evaluate_codec
from licquant.evaluate.reference import evaluate_reference
from licquant.evaluate.widths import chosen_widths, share_different, stage_of_layer
from licquant.images import list_images, read_image
from licquant.models import load_model
from licquant.quant.in_training.finetune_settings import FinetuneRecipe
from licquant.reports import report
from licquant.train.settings import RunOptions

CLOSE = 0.05  # bits, on average over the layers


def nearest_plan(averages: Mapping[str, float], layers: Mapping[str, int], widths: tuple[int, ...]) -> dict[str, int]:
    """Stage → its width: those nearest to the averages of the stages whose bits over the layers are as many.

    As many: within ``CLOSE`` of the nearest that there are. With widths of 4, 6 and 8 the very nearest may take from a
    stage that nearly all images want wide, and give to one that they do not.
    averages: stage → average bits;  layers: stage → how many layers it has
    """
    wanted = sum(layers[stage] * average for stage, average in averages.items())
    best: dict[int, tuple[float, dict[str, int]]] = {0: (0.0, {})}  # bits so far → the plan with them nearest by stage
    for stage, average in averages.items():
        further: dict[int, tuple[float, dict[str, int]]] = {}
        for (bits, (by_stage, plan)), width in product(best.items(), widths):
            apart, count = by_stage + layers[stage] * (width - average) ** 2, bits + layers[stage] * width
            if count not in further or apart < further[count][0]:
                further[count] = apart, {**plan, stage: width}
        best = further

    nearest = min(abs(bits - wanted) for bits in best)
    allowed = nearest + CLOSE * sum(layers.values())
    close = [of for bits, of in best.items() if abs(bits - wanted) <= allowed + ROUNDING]
    return min(close, key=lambda of: of[0])[1]


def static_plan(artifact: Artifact, averages: Mapping[str, float]) -> tuple[Plan, float, float]:
    """(the plan of the static model, average bits over the layers whose width is chosen: dynamic, static).

    Layers that have weights, each counted once, as where ``finetune --average-bits`` is kept.
    """
    stages = stage_of_layer(artifact)
    counted = [stages.get(name) for name, bits in artifact.plan.items() if bits.weight is not None]
    layers = {stage: counted.count(stage) for stage in averages}
    widths = tuple(sorted({width for part in artifact.dynamic.values() for s in part.stages[1:] for width in s.widths}))
    nearest = nearest_plan(averages, layers, widths)

    def of(name: str, bits: LayerBits) -> LayerBits:
        if name not in stages:
            return bits
        width = nearest[stages[name]]
        return LayerBits(None if bits.weight is None else width, width)

    means = [sum(layers[s] * of[s] for s in layers) / sum(layers.values()) for of in (averages, nearest)]
    return Plan({name: of(name, bits) for name, bits in artifact.plan.items()}), means[0], means[1]


def train_static(artifact: Artifact, plan: Path, checkpoint: Path, data: Path, calib: Path, output: Path) -> None:
    """Finetune a static model as the dynamic one was; a finished one is kept."""
    told = artifact.provenance
    recipe = {name: told[name] for name in FinetuneRecipe.__dataclass_fields__ if name in told}
    finetune_command.run(
        finetune_command.FinetuneOptions(
            recipe=recipe, run=RunOptions(data, output, init=checkpoint, resume=True), calib=calib, plan=plan,
            reconstruction=told["reconstruction"],
        )
    )  # fmt: skip


def print_results(record: dict[str, Any]) -> None:
    title = f"λ {record['lmbda']:g}, {100 * record['share_different']:.0f} % of the images differ from the majority"
    table = Table(title=title, title_justify="left")
    for heading in ("model", "bits where chosen", "RD loss", "bpp", "PSNR", "bytes"):
        table.add_column(heading, justify="left" if heading == "model" else "right")
    for name in ("dynamic", "static"):
        of = record[name]
        table.add_row(
            name, f"{of['bits']:.2f}", f"{100 * of['rd_loss']:+.2f} %", f"{of['bpp']:.4f}", f"{of['psnr']:.2f} dB",
            f"{of['bytes']:,}",
        )  # fmt: skip
    Console().print(table)


def main(
    dynamic: Annotated[Path, typer.Option(help="What licquant finetune --widths made.")],
    checkpoint: Annotated[Path, typer.Option(help="The checkpoint that it was made from, with its card.")],
    data: Annotated[Path, typer.Option(help="The training images that it was made with.")],
    calib: Annotated[Path, typer.Option(help="The calibration images.")],
    images: Annotated[Path, typer.Option(help="A folder of test images.")],
    threads: int = 2,
    output: Annotated[Path, typer.Option("-o", help="Folder for the static model and the JSON result.")] = Path(
        "bench-output"
    ),
) -> None:
    """Train the static model, measure both, print both."""
    output.mkdir(parents=True, exist_ok=True)
    artifact, tests = Artifact.from_bytes(read_artifact_bytes(dynamic)), list_images(images)
    lmbda = artifact.provenance["lmbda"]
    codec: Codec = load(dynamic, threads=threads)
    chosen = [chosen_widths(codec, read_image(path)) for path in tests]
    averages = {stage: fmean(widths[stage] for widths in chosen) for stage in chosen[0]}
    plan, dynamic_bits, static_bits = static_plan(artifact, averages)
    static = output / f"{dynamic.stem}-static.licq"
    report.write_json(static.with_name(f"{static.stem}-plan.json"), plan.to_json())
    train_static(artifact, static.with_name(f"{static.stem}-plan.json"), checkpoint, data, calib, static)
    fp32 = evaluate_reference(load_model(artifact.provenance["model"], checkpoint), tests, lmbda)
    fp32_loss = fmean(result.rd_loss for result in fp32)
    record: dict[str, Any] = {
        "schema": "licquant-dynamic-static/1",
        "lmbda": lmbda,
        "stage_bits": averages,
        "share_different": share_different(chosen),
        "provenance": provenance.collect(checkpoint=checkpoint.name, threads=threads),
    }
    for name, path, bits in (("dynamic", dynamic, dynamic_bits), ("static", static, static_bits)):
        found = evaluate_codec(load(path, threads=threads), tests, lmbda)
        record[name] = {
            "bits": bits,
            "bytes": path.stat().st_size,
            "rd_loss": fmean(result.rd_loss for result in found) / fp32_loss - 1,
            "bpp": fmean(result.bpp for result in found),
            "psnr": fmean(result.psnr for result in found),
        }
    print_results(record)
    report.write_json(output / f"{dynamic.stem}-static.json", record)


if __name__ == "__main__":
    typer.run(main)
