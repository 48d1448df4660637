"""The commands that need the training stack: their options. The work is imported when one of them runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from licquant.cache import cache_folder
from licquant.commands.base import finish
from licquant.commands.image_options import Strict
from licquant.commands.on_cluster import cluster_of, rows_beside
from licquant.commands.options import (
    Accelerator,
    ActBits,
    ActBitsOrNot,
    Address,
    Architecture,
    ArchitectureArguments,
    Artifact,
    BatchSize,
    Budget,
    BudgetOrNot,
    Cache,
    Calib,
    Checkpoint,
    CheckpointMinutes,
    ClusterJobs,
    CropSide,
    Data,
    Device,
    Devices,
    HtmlReport,
    Json,
    LargeBatchSize,
    LargeCrop,
    Latency,
    Licence,
    Lmbda,
    MaxBits,
    MaxBitsOrNot,
    MaxMinutes,
    Method,
    MethodOrNot,
    Metric,
    OnCluster,
    PlanFile,
    ReconstructionSteps,
    Resume,
    Rows,
    Seed,
    Threads,
    average_bits,
    count,
    not_negative,
    positive,
)
from licquant.commands.recipes import FinetunePreset, QuantizePreset, Recipe
from licquant.commands.train import EXIT_INTERRUPTED
from licquant.train.progress import INTERRUPTED


def quantize(
    checkpoint: Checkpoint,
    calib: Calib,
    output: Artifact,
    preset: QuantizePreset = None,
    recipe: Recipe = None,
    model: Architecture = None,
    model_args: ArchitectureArguments = None,
    method: Method = "uniform",
    budget: Budget = "bits=8",
    act_bits: ActBits = 8,
    max_bits: MaxBits = 8,
    plan: PlanFile = None,
    latency: Latency = None,
    cache: Cache = None,
    ranges: Annotated[
        str, typer.Option(help="How activation ranges are chosen: mse, min-max or percentile.", hidden=True)
    ] = "mse",
    per_tensor: Annotated[
        bool, typer.Option("--per-tensor", help="One activation scale per tensor.", hidden=True)
    ] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="Take out the channels of latents that no calibration image uses.")
    ] = False,
    steps: ReconstructionSteps = 250,
    lmbda: Lmbda = None,
    metric: Metric = None,
    licence: Licence = "not stated",
    strict: Strict = False,
    cluster: OnCluster = False,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Quantize a trained model to a .licq file."""
    from licquant.commands import quantize as quantize_command
    from licquant.models.load import parse_arguments

    options = quantize_command.QuantizeOptions(
        model=model,
        model_args=parse_arguments(model_args),
        checkpoint=checkpoint,
        calib=calib,
        output=output,
        method=method,
        budget=budget,
        act_bits=act_bits,
        ranges=ranges,
        per_channel=not per_tensor,
        prune=prune,
        steps=steps,
        lmbda=lmbda,
        metric=metric,
        licence=licence,
        strict=strict,
        max_bits=max_bits,
        plan=plan,
        latency=latency,
        cache=cache_folder(cache),
        cluster=cluster_of(cluster, address, None, None),
    )
    finish(quantize_command.quantize(options), as_json)


def finetune(
    checkpoint: Checkpoint,
    data: Data,
    calib: Calib,
    output: Artifact,
    preset: FinetunePreset = None,
    recipe: Recipe = None,
    model: Architecture = None,
    model_args: ArchitectureArguments = None,
    quantizer: Annotated[
        str, typer.Option(help="dpa, lsq or pams; or dpa-fixed-scales, dpa-fixed-zero-points.")
    ] = "dpa",
    estimator: Annotated[
        str, typer.Option(help="Gradient of rounding: dgm (distance-aware) or ste.", hidden=True)
    ] = "dgm",
    beta: Annotated[float | None, positive("--beta", "Shape of dgm's gradient; default: 2.", hidden=True)] = None,
    widths: Annotated[
        str | None, typer.Option(help="6,8,10: have a width chosen for each stage and image. Instead of a budget.")
    ] = None,
    average_bits: Annotated[
        float | None,
        average_bits("--average-bits", "Of --widths: the average to reach; default: the mean of the widths."),
    ] = None,
    gamma: Annotated[
        float | None, not_negative("--gamma", "Instead: price of a bit of the average, in R + λ·D.", hidden=True)
    ] = None,
    bit_cost: Annotated[
        str | None,
        typer.Option(help="Of --widths, what the bits count: layers (default), bytes, bops or latency.", hidden=True),
    ] = None,
    method: MethodOrNot = None,
    budget: BudgetOrNot = None,
    act_bits: ActBitsOrNot = None,
    max_bits: MaxBitsOrNot = None,
    plan: PlanFile = None,
    latency: Latency = None,
    reconstruction: Annotated[
        int, count("--reconstruction", "Steps of reconstruction before the training.", low=0, hidden=True)
    ] = 0,
    steps: Annotated[int | None, count("--steps", "Optimizer steps; default: 3000.")] = None,
    batch: BatchSize = None,
    crop: CropSide = None,
    large_batch: LargeBatchSize = None,
    large_crop: LargeCrop = None,
    learning_rate: Annotated[
        float | None, positive("--learning-rate", "Of weights, in steps of their grids.", hidden=True)
    ] = None,
    grid_rate: Annotated[
        float | None, positive("--grid-rate", "Of scales, in logarithms, and zero points.", hidden=True)
    ] = None,
    metric: Metric = None,
    lmbda: Lmbda = None,
    seed: Seed = None,
    resume: Resume = False,
    max_minutes: MaxMinutes = None,
    checkpoint_minutes: CheckpointMinutes = 5.0,
    devices: Devices = 1,
    accelerator: Accelerator = "auto",
    threads: Threads = None,
    cache: Cache = None,
    licence: Licence = "not stated",
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Quantize a trained model, train it as the integer codec that it becomes, and save a .licq file."""
    given = {name: value for name, value in locals().items() if name not in ("preset", "recipe")}
    from licquant.commands import finetune as finetune_command

    result = finetune_command.run(finetune_command.options_of(given))
    finish(result, as_json)
    if result.record["status"] == INTERRUPTED:
        raise typer.Exit(EXIT_INTERRUPTED)


def evaluate(
    images: Annotated[list[Path], typer.Option(help="Test images: files, folders with all below, lists of paths.")],
    models: Annotated[list[Path], typer.Option(help="Quantized models: a.licq b.licq …")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The results, a .json file; pictures beside it.")],
    reference: Annotated[list[Path] | None, typer.Option(help="Their FP32 checkpoints, in any order.")] = None,
    model: Architecture = None,
    model_args: ArchitectureArguments = None,
    metric: Metric = None,
    threads: Threads = None,
    device: Device = "CPU",
    html: HtmlReport = None,
    cluster: OnCluster = False,
    address: Address = None,
    jobs: ClusterJobs = None,
    rows: Rows = None,
    as_json: Json = False,
) -> None:
    """Measure rate and quality on real files, against the FP32 model's own coder."""
    from licquant.commands import evaluate as evaluate_command
    from licquant.models.load import parse_arguments

    references = evaluate_command.References(reference or [], model, parse_arguments(model_args))
    on = cluster_of(cluster, address, jobs, threads)
    running = evaluate_command.Running(threads, device, on, rows or rows_beside(output))
    finish(evaluate_command.evaluate(images, models, output, references, running, metric, html), as_json)


def profile(
    checkpoint: Checkpoint,
    output: Annotated[Path, typer.Option("--output", "-o", help="The latency table, a .json file.")],
    model: Architecture = None,
    model_args: ArchitectureArguments = None,
    size: Annotated[str, typer.Option(help="Size of the image, WIDTHxHEIGHT.")] = "768x512",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Measure how long each layer takes at each class of widths on this machine."""
    from licquant.commands import profile as profile_command
    from licquant.models.load import parse_arguments

    arguments = parse_arguments(model_args)
    options = profile_command.ProfileOptions(model, checkpoint, output, size, threads, arguments)
    finish(profile_command.run(options), as_json)


def compare(
    checkpoint: Annotated[list[Path], typer.Option(help="Trained FP32 checkpoints with model cards: a.pt b.pt …")],
    calib: Calib,
    images: Annotated[Path, typer.Option(help="A folder of test images.")],
    budget: Annotated[list[str], typer.Option(help="For every method: size=0.25 size=0.14 …")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for artifacts, results and pictures.")],
    methods: Annotated[str, typer.Option(help="Separated by commas; all if absent.")] = "",
    model: Architecture = None,
    act_bits: ActBits = 8,
    max_bits: MaxBits = 8,
    steps: ReconstructionSteps = 250,
    threads: Threads = None,
    strict: Strict = False,
    html: HtmlReport = None,
    cluster: OnCluster = False,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Quantize with several methods under the same budgets and measure them all; artifacts in the folder are kept."""
    from licquant.commands import compare as compare_command

    options = compare_command.CompareOptions(
        model=model, checkpoints=checkpoint, calib=calib, images=images, budgets=budget, methods=methods,
        output=output, act_bits=act_bits, max_bits=max_bits, steps=steps, threads=threads, strict=strict, html=html,
        cluster=cluster_of(cluster, address, None, None),
    )  # fmt: skip
    finish(compare_command.compare(options), as_json)


def reproduce(
    name: Annotated[str, typer.Argument(help="table1 to table4, fig2, fig4, fig5 or fig6 of DynaQuant.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for files and pictures.")] = Path("reproduced"),
    checkpoint: Annotated[
        list[Path] | None, typer.Option(help="Trained FP32 checkpoints with model cards: a.pt b.pt …")
    ] = None,
    models: Annotated[Path | None, typer.Option(help="A folder of such, all of which are taken.")] = None,
    calib: Annotated[Path | None, typer.Option(help="A folder of calibration images.")] = None,
    data: Annotated[Path | None, typer.Option(help="A folder of training images.")] = None,
    images: Annotated[Path | None, typer.Option(help="A folder of test images.")] = None,
    artifact: Annotated[Path | None, typer.Option(help="Of fig6: a dynamic .licq file to show.")] = None,
    model: Architecture = None,
    seeds: Annotated[int, count("--seeds", "Finetunes for each row of a table.")] = 3,
    steps: Annotated[int | None, count("--steps", "Of each; default: few, for two cores.")] = None,
    full: Annotated[bool, typer.Option("--full", help="The size for a GPU.")] = False,
    threads: Threads = None,
    cache: Cache = None,
    cluster: OnCluster = False,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Make a figure or a table of the papers again; what the folder holds already is not made twice."""
    from licquant.commands import reproduce as reproduce_command
    from licquant.commands import reproduce_cells

    folder = cache_folder(cache)
    given = [*(checkpoint or []), *(reproduce_cells.checkpoints_in(models) if models else [])]
    options = reproduce_cells.ReproduceOptions(
        output=output, model=model, checkpoints=given, calib=calib, train=data, images=images,
        artifact=artifact, seeds=seeds, steps=steps, full=full, threads=threads, cache=folder,
        cluster=cluster_of(cluster, address, None, None),
    )  # fmt: skip
    result = reproduce_command.run(name, options)
    finish(result, as_json)
    if result.record.get("status") == INTERRUPTED:
        raise typer.Exit(EXIT_INTERRUPTED)


def models(as_json: Json = False) -> None:
    """List the supported models: family, parameters, multiply-accumulates per pixel."""
    from licquant.commands import models as models_command

    finish(models_command.run(), as_json)


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for files and pictures.")] = Path(
        "demo-output"
    ),
    as_json: Json = False,
) -> None:
    """The whole path on embedded images and models, in under two minutes."""
    from licquant.commands import demo as demonstration

    finish(demonstration.run(output), as_json)
