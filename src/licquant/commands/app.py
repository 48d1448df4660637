"""The command line. Each command is a few calls; PyTorch is imported only by those that need it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any

import typer

from licquant import __version__
from licquant.cache import cache_folder
from licquant.commands import base as commands
from licquant.commands import coding as coding_command
from licquant.commands import inspect as inspect_command
from licquant.commands.image_options import Background, Depth, Frame, Metadata, NoAlpha, Srgb, Strict, reading_of
from licquant.commands.options import MAX_SEED, MAX_THREADS, average_bits, bits, count, not_negative, positive, whole
from licquant.commands.train import EXIT_INTERRUPTED, train_command
from licquant.errors import LicquantError
from licquant.images import parse_colour
from licquant.terminal import quiet_libraries, remark
from licquant.train.progress import INTERRUPTED

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help, and errors that are not broken into lines
    pretty_exceptions_enable=False,
    help="Learned image compression as a small, fast, integer codec.",
)

Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
Threads = Annotated[
    int | None, whole("--threads", 1, MAX_THREADS, "Threads for the fast engine; its own choice if absent.")
]
Engine = Annotated[str, typer.Option(help="openvino (fast) or exact (slow, integers only).")]
ModelFile = Annotated[
    Path | None, typer.Option("--model", "-m", help="A .licq file, or a folder of them; default: the embedded ones.")
]
Jobs = Annotated[int, whole("--jobs", 1, MAX_THREADS, "Files at the same time.", "-j")]
SkipExisting = Annotated[bool, typer.Option("--skip-existing", help="Leave out what is there already.")]

VERBOSE = "--verbose"
ModelName = Annotated[
    str | None,
    typer.Option(
        help="CompressAI's name of the model, or package.module:Class; by default from its card, then its weights."
    ),
]
Metric = Annotated[
    str | None, typer.Option(help="Of the distortion that λ weighs: mse or ms-ssim; by default as the model card says.")
]
ModelArguments = Annotated[
    str | None, typer.Option("--model-args", help="Of a class of your own, as JSON: '{\"N\": 128}'.")
]

# Options that take several values, as in --models a.licq b.licq.
_LISTS = {
    "inspect": ("--images",),
    "evaluate": ("--images", "--models", "--reference"),
    "compare": ("--checkpoint", "--budget"),
    "reproduce": ("--checkpoint",),
}


@app.callback()
def _root(
    verbose: Annotated[bool, typer.Option(VERBOSE, help="Show the warnings of other libraries, too.")] = False,
) -> None:
    pass


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


@app.command()
def encode(
    images: Annotated[list[Path], typer.Argument(help="Files, folders with all below them, patterns, or -")],
    output: Annotated[str, typer.Option("--output", "-o", help="A .lic file, or a folder for several; or -")],
    model: ModelFile = None,
    quality: Annotated[int | None, count("--quality", "Which of the models, by bit rate; default: the middle.")] = None,
    target_bpp: Annotated[float | None, positive("--target-bpp", "The best of the models within this rate.")] = None,
    target_psnr: Annotated[float | None, positive("--target-psnr", "The smallest file of this PSNR in dB.")] = None,
    jobs: Jobs = 1,
    skip_existing: SkipExisting = False,
    engine: Engine = "openvino",
    threads: Threads = None,
    srgb: Srgb = False,
    metadata: Metadata = False,
    background: Background = None,
    no_alpha: NoAlpha = False,
    depth: Depth = None,
    frame: Frame = None,
    as_json: Json = False,
) -> None:
    """Encode images."""
    options = coding_command.CodingOptions(images, output, model, engine, threads, jobs, skip_existing, as_json)
    reading = reading_of(srgb, metadata, background, no_alpha, depth, frame)
    _report(coding_command.encode(options, quality, target_bpp, target_psnr, reading), as_json)


@app.command()
def decode(
    files: Annotated[list[Path], typer.Argument(help="Files, folders with all below them, patterns, or -")],
    output: Annotated[
        str, typer.Option("--output", "-o", help="A .png, .ppm, .bmp or .tif file, or a folder for several; or png:-")
    ],
    model: Annotated[
        Path | None, typer.Option("--model", "-m", help="A .licq file, or a folder of them; default: see below.")
    ] = None,
    form: Annotated[str | None, typer.Option("--format", help="png (default), ppm, bmp or tif, in a folder.")] = None,
    crop: Annotated[str | None, typer.Option(metavar="X,Y,W,H", help="This part only; it takes less time.")] = None,
    jobs: Jobs = 1,
    skip_existing: SkipExisting = False,
    engine: Engine = "openvino",
    threads: Threads = None,
    srgb: Srgb = False,
    background: Background = None,
    as_json: Json = False,
) -> None:
    """Decode coded images. A file names its model, which is looked for among the embedded ones, in the folders that
    LICQUANT_MODELS lists, and beside the file."""
    options = coding_command.CodingOptions(files, output, model, engine, threads, jobs, skip_existing, as_json)
    part = None if crop is None else coding_command.parse_crop(crop)
    colour = None if background is None else parse_colour(background)
    _report(coding_command.decode(options, form, commands.Wanted(part, srgb, colour)), as_json)


@app.command()
def inspect(
    file: Annotated[Path | None, typer.Argument(help="A .licq or .lic file.")] = None,
    model: Annotated[
        Path | None, typer.Option("--model", "-m", help="Of a .lic file: its model, to show the widths chosen for it.")
    ] = None,
    images: Annotated[
        list[Path] | None, typer.Option(help="Of a .licq file: folders or files, to show the widths chosen for each.")
    ] = None,
    machine: Annotated[bool, typer.Option("--machine", help="Show which kernels are exact here, and used.")] = False,
    as_json: Json = False,
) -> None:
    """Show what is in a .licq or .lic file, or what this machine's kernels do."""
    _report(inspect_command.machine() if machine else inspect_command.inspect(file, model, images or []), as_json)


@app.command()
def quantize(
    checkpoint: Annotated[Path, typer.Option(help="A trained FP32 checkpoint in CompressAI's format.")],
    calib: Annotated[Path, typer.Option(help="Calibration images: a folder, nested or not, or a list, a path a line.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The quantized model, a .licq file.")],
    model: ModelName = None,
    model_args: ModelArguments = None,
    method: Annotated[
        str, typer.Option(help="Who chooses the widths: uniform, fmpq, optimal, hessian, rdo-ptq or raq.")
    ] = "uniform",
    budget: Annotated[
        str, typer.Option(help="bits=8, size=0.1 (of FP32), bytes=2000000, bops=1e8, latency=60 (ms) or loss=0.5%.")
    ] = "bits=8",
    act_bits: Annotated[int, bits("--act-bits", "Width of all activations, 2 to 16.")] = 8,
    max_bits: Annotated[int, bits("--max-bits", "Widest weights that are considered, 2 to 16.")] = 8,
    plan: Annotated[Path | None, typer.Option(help="A plan to use instead, a .json file.")] = None,
    latency: Annotated[Path | None, typer.Option(help="Table of licquant profile, for latency= budgets.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder for measured tables; default: see licquant cache.")] = None,
    ranges: Annotated[str, typer.Option(help="How activation ranges are chosen: mse, min-max or percentile.")] = "mse",
    per_tensor: Annotated[bool, typer.Option("--per-tensor", help="One activation scale per tensor.")] = False,
    steps: Annotated[int, count("--steps", "Steps of reconstruction; 0 rounds to nearest.", low=0)] = 250,
    lmbda: Annotated[float | None, positive("--lmbda", "λ of the checkpoint, if no model card says it.")] = None,
    metric: Metric = None,
    licence: Annotated[str, typer.Option(help="Licence of the weights, stored in the file.")] = "not stated",
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Quantize a trained model to a .licq file."""
    from licquant.commands import quantize as quantize_command
    from licquant.models.own import parse_arguments

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
        steps=steps,
        lmbda=lmbda,
        metric=metric,
        licence=licence,
        strict=strict,
        max_bits=max_bits,
        plan=plan,
        latency=latency,
        cache=cache_folder(cache),
    )
    _report(quantize_command.quantize(options), as_json)


@app.command()
def finetune(
    checkpoint: Annotated[Path, typer.Option(help="A trained FP32 checkpoint in CompressAI's format.")],
    data: Annotated[Path, typer.Option(help="A folder of training images.")],
    calib: Annotated[Path, typer.Option(help="Calibration images: a folder, nested or not, or a list, a path a line.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The quantized model, a .licq file.")],
    model: ModelName = None,
    model_args: ModelArguments = None,
    quantizer: Annotated[
        str, typer.Option(help="dpa, lsq or pams; or dpa-fixed-scales, dpa-fixed-zero-points.")
    ] = "dpa",
    estimator: Annotated[str, typer.Option(help="Gradient of rounding: dgm (distance-aware) or ste.")] = "dgm",
    beta: Annotated[float | None, positive("--beta", "Shape of dgm's gradient; default: 2.")] = None,
    widths: Annotated[
        str | None, typer.Option(help="6,8,10: have a width chosen for each stage and image. Instead of a budget.")
    ] = None,
    average_bits: Annotated[
        float | None,
        average_bits("--average-bits", "Of --widths: the average to reach; default: the mean of the widths."),
    ] = None,
    gamma: Annotated[
        float | None, not_negative("--gamma", "Instead: price of a bit of the average, in R + λ·D.")
    ] = None,
    bit_cost: Annotated[
        str | None, typer.Option(help="Of --widths, what the bits count: layers (default), bytes, bops or latency.")
    ] = None,
    method: Annotated[str | None, typer.Option(help="Who chooses fixed widths, as for quantize.")] = None,
    budget: Annotated[str | None, typer.Option(help="As for quantize; default: bits=8.")] = None,
    act_bits: Annotated[int | None, bits("--act-bits", "Width of all activations, 2 to 16; default: 8.")] = None,
    max_bits: Annotated[int | None, bits("--max-bits", "Widest weights that are considered; default: 8.")] = None,
    plan: Annotated[Path | None, typer.Option(help="A plan to use instead, a .json file.")] = None,
    latency: Annotated[Path | None, typer.Option(help="Table of licquant profile, where latency counts.")] = None,
    reconstruction: Annotated[
        int, count("--reconstruction", "Steps of reconstruction before the training.", low=0)
    ] = 0,
    steps: Annotated[int | None, count("--steps", "Optimizer steps; default: 3000.")] = None,
    batch: Annotated[int | None, count("--batch-size", "Crops a step, on all devices; default: 8.")] = None,
    crop: Annotated[int | None, count("--crop", "Pixels a side; default: 128 (ms-ssim: 192).")] = None,
    large_batch: Annotated[int | None, count("--large-batch-size", "In the last quarter.")] = None,
    large_crop: Annotated[int | None, count("--large-crop", "In the last quarter.")] = None,
    learning_rate: Annotated[float | None, positive("--learning-rate", "Of weights, in steps of their grids.")] = None,
    grid_rate: Annotated[float | None, positive("--grid-rate", "Of scales, in logarithms, and zero points.")] = None,
    metric: Metric = None,
    lmbda: Annotated[float | None, positive("--lmbda", "λ of the checkpoint, if no model card says it.")] = None,
    seed: Annotated[int | None, whole("--seed", 0, MAX_SEED, "Default: 0.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
    max_minutes: Annotated[float | None, not_negative("--max-minutes", "Stop then, with a usable model.")] = None,
    checkpoint_minutes: Annotated[float, not_negative("--checkpoint-minutes", "Between two saved states.")] = 5.0,
    devices: Annotated[int, whole("--devices", 1, MAX_THREADS, "Processes or GPUs.")] = 1,
    accelerator: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[int | None, whole("--threads", 1, MAX_THREADS, "PyTorch's CPU threads.")] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder for decoded images and measured tables; default: see licquant cache.")
    ] = None,
    licence: Annotated[str, typer.Option(help="Licence of the weights, stored in the file.")] = "not stated",
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Quantize a trained model, train it as the integer codec that it becomes, and save a .licq file."""
    given = dict(locals())
    from licquant.commands import finetune as finetune_command

    result = finetune_command.run(finetune_command.options_of(given))
    _report(result, as_json)
    if result.record["status"] == INTERRUPTED:
        raise typer.Exit(EXIT_INTERRUPTED)


@app.command()
def evaluate(
    images: Annotated[list[Path], typer.Option(help="Test images: files, folders with all below, lists of paths.")],
    models: Annotated[list[Path], typer.Option(help="Quantized models: a.licq b.licq …")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The results, a .json file; pictures beside it.")],
    reference: Annotated[list[Path] | None, typer.Option(help="Their FP32 checkpoints, in any order.")] = None,
    model: ModelName = None,
    model_args: ModelArguments = None,
    metric: Metric = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Measure rate and quality on real files, against the FP32 model's own coder."""
    from licquant.commands import evaluate as evaluate_command
    from licquant.models.own import parse_arguments

    arguments = parse_arguments(model_args)
    _report(
        evaluate_command.evaluate(images, models, output, reference or [], model, threads, arguments, metric), as_json
    )


@app.command()
def profile(
    checkpoint: Annotated[Path, typer.Option(help="A trained FP32 checkpoint in CompressAI's format.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The latency table, a .json file.")],
    model: ModelName = None,
    model_args: ModelArguments = None,
    size: Annotated[str, typer.Option(help="Size of the image, WIDTHxHEIGHT.")] = "768x512",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Measure how long each layer takes at each class of widths on this machine."""
    from licquant.commands import profile as profile_command
    from licquant.models.own import parse_arguments

    arguments = parse_arguments(model_args)
    options = profile_command.ProfileOptions(model, checkpoint, output, size, threads, arguments)
    _report(profile_command.run(options), as_json)


@app.command()
def compare(
    checkpoint: Annotated[list[Path], typer.Option(help="Trained FP32 checkpoints with model cards: a.pt b.pt …")],
    calib: Annotated[Path, typer.Option(help="Calibration images: a folder, nested or not, or a list, a path a line.")],
    images: Annotated[Path, typer.Option(help="A folder of test images.")],
    budget: Annotated[list[str], typer.Option(help="For every method: size=0.25 size=0.14 …")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for artifacts, results and pictures.")],
    methods: Annotated[str, typer.Option(help="Separated by commas; all if absent.")] = "",
    model: ModelName = None,
    act_bits: Annotated[int, bits("--act-bits", "Width of all activations, 2 to 16.")] = 8,
    max_bits: Annotated[int, bits("--max-bits", "Widest weights that are considered, 2 to 16.")] = 8,
    steps: Annotated[int, count("--steps", "Steps of reconstruction; 0 rounds to nearest.", low=0)] = 250,
    threads: Threads = None,
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Quantize with several methods under the same budgets and measure them all; artifacts in the folder are kept."""
    from licquant.commands import compare as compare_command

    options = compare_command.CompareOptions(
        model, checkpoint, calib, images, budget, methods, output, act_bits, max_bits, steps, threads, strict
    )
    _report(compare_command.compare(options), as_json)


@app.command()
def reproduce(
    name: Annotated[str, typer.Argument(help="fig2, table2, table3, table4 or fig6 of DynaQuant.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for files and pictures.")] = Path("reproduced"),
    checkpoint: Annotated[
        list[Path] | None, typer.Option(help="Trained FP32 checkpoints with model cards: a.pt b.pt …")
    ] = None,
    calib: Annotated[Path | None, typer.Option(help="A folder of calibration images.")] = None,
    train: Annotated[Path | None, typer.Option(help="A folder of training images.")] = None,
    images: Annotated[Path | None, typer.Option(help="A folder of test images.")] = None,
    artifact: Annotated[Path | None, typer.Option(help="Of fig6: a dynamic .licq file to show.")] = None,
    model: Annotated[str, typer.Option(help="CompressAI's name of the model.")] = "bmshj2018-hyperprior",
    seeds: Annotated[int, count("--seeds", "Finetunes for each row of a table.")] = 3,
    steps: Annotated[int | None, count("--steps", "Of each; default: few, for two cores.")] = None,
    full: Annotated[bool, typer.Option("--full", help="The size for a GPU.")] = False,
    threads: Threads = None,
    cache: Annotated[Path | None, typer.Option(help="Folder for decoded images; default: see licquant cache.")] = None,
    as_json: Json = False,
) -> None:
    """Make a figure or a table of the papers again; what the folder holds already is not made twice."""
    from licquant.commands import reproduce as reproduce_command
    from licquant.commands import reproduce_tables

    folder = cache_folder(cache)
    options = reproduce_tables.ReproduceOptions(
        output, model, checkpoint or [], calib, train, images, artifact, seeds, steps, full, threads, folder
    )
    result = reproduce_command.run(name, options)
    _report(result, as_json)
    if result.record.get("status") == INTERRUPTED:
        raise typer.Exit(EXIT_INTERRUPTED)


@app.command("cache")
def cache_(
    cache: Annotated[
        Path | None,
        typer.Option(help="Its folder; default: LICQUANT_CACHE, else licquant in XDG_CACHE_HOME or ~/.cache."),
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Delete everything that licquant keeps there.")] = False,
    clear_older: Annotated[bool, typer.Option("--clear-older", help="Delete what other versions made.")] = False,
    as_json: Json = False,
) -> None:
    """Show what is kept between commands (decoded images, measured tables), how much and how old, or delete it."""
    from licquant.commands import cache as cache_command

    _report(cache_command.run(cache, clear, clear_older), as_json)


@app.command()
def models(as_json: Json = False) -> None:
    """List the supported models: family, parameters, multiply-accumulates per pixel."""
    from licquant.commands import models as models_command

    _report(models_command.run(), as_json)


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for files and pictures.")] = Path(
        "demo-output"
    ),
    as_json: Json = False,
) -> None:
    """The whole path on embedded images and models, in under two minutes."""
    from licquant.commands import demo as demonstration

    _report(demonstration.run(output), as_json)


app.command("train")(train_command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: errors that licquant raises on purpose become one line and exit status 1."""
    # A file's name need not be UTF-8; to say what was made of it must not fail.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    words = list(sys.argv[1:] if arguments is None else arguments)
    if VERBOSE not in words:
        quiet_libraries()
    words = spread_lists([word for word in words if word != VERBOSE])  # wherever it stands
    try:
        app(words)
    except LicquantError as error:
        _fail(str(error))
    except ModuleNotFoundError as error:
        _fail(f"this command needs {error.name}: install licquant[toolkit]")
    except MemoryError:
        _fail("not enough memory for this image")


def spread_lists(words: list[str]) -> list[str]:
    """``--models a b`` as ``--models a --models b``, which is what click understands."""
    result: list[str] = []
    current: str | None = None
    lists = _LISTS.get(words[0], ()) if words else ()
    for word in words:
        if word.startswith("-"):
            current = word if word in lists else None
            if current is None:
                result.append(word)
        elif current is not None:
            result += [current, word]
        else:
            result.append(word)
    return result


def _fail(message: str) -> None:
    remark(message)
    sys.exit(1)


def _report(result: commands.Report, as_json: bool) -> None:
    if as_json:
        print(json.dumps(_plain(result.record), ensure_ascii=False))
    else:
        result.show()
    if result.status:
        raise typer.Exit(result.status)


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity."""
    if isinstance(value, float) and not abs(value) < float("inf"):
        return None
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


if __name__ == "__main__":
    main()
