"""The command line. Each command is a few calls; PyTorch is imported only by those that need it."""

from __future__ import annotations

import errno
import logging
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated

import typer

from licquant import __version__
from licquant.commands import base as commands
from licquant.commands import coding as coding_command
from licquant.commands import recipes
from licquant.commands.base import finish
from licquant.commands.image_options import Background, Depth, Frame, Metadata, NoAlpha, Srgb, reading_of
from licquant.commands.on_cluster import cluster_of
from licquant.commands.options import (
    Address,
    Device,
    Engine,
    Jobs,
    Json,
    ModelFile,
    OnCluster,
    Rows,
    SkipExisting,
    Threads,
    count,
    positive,
    whole,
)
from licquant.commands.toolkit_commands import (
    compare,
    demo,
    evaluate,
    finetune,
    models,
    profile,
    quantize,
    reproduce,
)
from licquant.commands.train import train_command
from licquant.errors import LicquantError
from licquant.images import parse_colour
from licquant.terminal import Remarks, drop_what_is_lost, quiet_libraries, remark

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help, and errors that are not broken into lines
    pretty_exceptions_enable=False,
    help="Learned image compression as a small, fast, integer codec.",
)

VERBOSE = "--verbose"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Options that take several values, as in --models a.licq b.licq.
_LISTS = {
    "inspect": ("--images",),
    "evaluate": ("--images", "--models", "--reference"),
    "compare": ("--checkpoint", "--budget"),
    "reproduce": ("--checkpoint",),
    "serve": ("--models",),
}

# Library → what to install for it, where that is not the toolkit.
_EXTRAS = {"onnx": "onnx", "ray": "cluster", "pyarrow": "cluster", "fsspec": "cluster"}


def _print_versions(wanted: bool) -> None:
    if wanted:
        from licquant.commands import doctor as doctor_command

        typer.echo(doctor_command.versions_in_one_line())
        raise typer.Exit


@app.callback()
def _root(
    verbose: Annotated[bool, typer.Option(VERBOSE, help="Show the warnings of other libraries, too.")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_versions, is_eager=True, help="Print the versions of all that codes"),
    ] = False,
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
    jobs: Jobs = None,
    cluster: OnCluster = False,
    address: Address = None,
    rows: Rows = None,
    skip_existing: SkipExisting = False,
    engine: Engine = "openvino",
    device: Device = "CPU",
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
    options = coding_command.CodingOptions(
        images, output, model, engine, threads, jobs=jobs, skip_existing=skip_existing, as_json=as_json, device=device,
        cluster=cluster_of(cluster, address, jobs, threads), rows=rows,
    )  # fmt: skip
    reading = reading_of(srgb, metadata, background, no_alpha, depth, frame)
    finish(coding_command.encode(options, quality, target_bpp, target_psnr, reading), as_json)


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
    jobs: Jobs = None,
    cluster: OnCluster = False,
    address: Address = None,
    rows: Rows = None,
    skip_existing: SkipExisting = False,
    engine: Engine = "openvino",
    device: Device = "CPU",
    threads: Threads = None,
    srgb: Srgb = False,
    background: Background = None,
    as_json: Json = False,
) -> None:
    """Decode coded images. A file names its model, which is looked for among the embedded ones, in the folders that
    LICQUANT_MODELS lists, and beside the file."""
    options = coding_command.CodingOptions(
        files, output, model, engine, threads, jobs=jobs, skip_existing=skip_existing, as_json=as_json, device=device,
        cluster=cluster_of(cluster, address, jobs, threads), rows=rows,
    )  # fmt: skip
    part = None if crop is None else coding_command.parse_crop(crop)
    colour = None if background is None else parse_colour(background)
    finish(coding_command.decode(options, form, commands.Wanted(part, srgb, colour)), as_json)


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
    from licquant.commands import inspect as inspect_command

    finish(inspect_command.machine() if machine else inspect_command.inspect(file, model, images or []), as_json)


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="A .licq file of fixed widths.")],
    onnx: Annotated[
        Path | None, typer.Option("--onnx", help="A new folder for ONNX models, tables and how they are joined.")
    ] = None,
    openvino: Annotated[
        Path | None, typer.Option("--openvino", help="A new folder for its transforms as OpenVINO IR.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a model for other runtimes, with which they decode and make the same files; see docs/onnx.md."""
    from licquant.commands import export as export_command

    finish(export_command.run(model, onnx, openvino), as_json)


@app.command()
def serve(
    models: Annotated[
        list[Path] | None, typer.Option(help=".licq files whose coded images it decodes; default: the embedded ones.")
    ] = None,
    port: Annotated[int, whole("--port", 0, 65535, "Where it listens on 127.0.0.1; 0: any that is free.")] = 8017,
    as_json: Json = False,
) -> None:
    """Show a page in which a browser decodes .lic files by itself; for this machine alone, until Ctrl-C."""
    from licquant.commands import serve as serve_command

    serve_command.run(models or [], port, as_json)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Check this installation: versions, CPU, what its kernels compute, a picture there and back. For bug reports: no
    name, host or folder is told."""
    from licquant.commands import doctor as doctor_command

    finish(doctor_command.run(), as_json)


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

    finish(cache_command.run(cache, clear, clear_older), as_json)


for of_the_toolkit in (quantize, finetune, evaluate, profile, compare, reproduce, models, demo):
    app.command()(of_the_toolkit)
app.command("train")(train_command)
app.add_typer(recipes.commands, name="recipe")


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
    remarks = Remarks()
    logging.getLogger("licquant").addHandler(remarks)
    try:
        _run(words)
    except LicquantError as error:
        _fail(str(error))
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get(error.name or "", "toolkit")
        _fail(f"this command needs {error.name}: install licquant[{extra}]")
    except MemoryError:
        _fail("not enough memory for this image")
    except OSError as error:  # of files that licquant reads and writes there are errors of its own
        name = error.filename or ("standard output" if error.errno in _FULL else None)
        drop_what_is_lost()
        _fail(f"{name}: {error.strerror}" if name else f"{error}")
    finally:
        logging.getLogger("licquant").removeHandler(remarks)


def _run(words: Sequence[str]) -> None:
    try:
        app(words)
    except SystemExit as end:
        if drop_what_is_lost() and not end.code:
            _fail("standard output: what was to be said cannot be written")
        raise


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


if __name__ == "__main__":
    main()
