"""Options of more than one command, each declared once: a word means the same wherever it stands.

Numbers are declared with their range. Options marked ``hidden`` are rare: the help leaves them out, a recipe file
(``recipes.py``), the command line and the manual page have them all the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from licquant.config import MAX_BITS, MAX_LMBDA, MIN_BITS
from licquant.errors import LicquantError

MANY = 10**9  # of whatever is counted, more than anybody can wait for
MAX_THREADS = 1024
MAX_SEED = 2**63 - 1


@dataclass(frozen=True)
class Range:
    """What an option takes: ``whole`` numbers or any finite ones from low to high, low itself only if not ``above``."""

    option: str
    low: float
    high: float
    whole: bool = True
    above: bool = False

    @property
    def __name__(self) -> str:
        """What the help shows in place of a value."""
        if self.above or self.high >= MANY:
            return f"{'>' if self.above else '>='}{self.low:g}"
        return f"{self.low:g}..{self.high:g}"

    def __call__(self, value: Any) -> float:
        """The number that was given; ``LicquantError``, one line that names the option, for any other."""
        try:
            number = int(value) if self.whole else float(value)
        except (ValueError, OverflowError):
            number = math.nan
        if not self.low <= number <= self.high or (self.above and number == self.low):
            kind = "a whole number" if self.whole else "a finite number"
            bound = f"{'above' if self.above else 'from'} {self.low:g}"
            bound += f" to {self.high:g}" if self.high < MANY else ""
            raise LicquantError(f"{self.option} {str(value)[:40]}: must be {kind} {bound}")
        return number


def whole(option: str, low: int, high: int, help_: str, *names: str, **more: Any) -> Any:
    """An option for whole numbers; names: others of the same option."""
    return typer.Option(option, *names, parser=Range(option, low, high), help=help_, **more)


def positive(option: str, help_: str, **more: Any) -> Any:
    """An option for finite numbers above 0."""
    return typer.Option(option, parser=Range(option, 0, MAX_LMBDA, whole=False, above=True), help=help_, **more)


def not_negative(option: str, help_: str, **more: Any) -> Any:
    """An option for finite numbers from 0 on."""
    return typer.Option(option, parser=Range(option, 0, MAX_LMBDA, whole=False), help=help_, **more)


def bits(option: str, help_: str, **more: Any) -> Any:
    """An option for a width."""
    return whole(option, MIN_BITS, MAX_BITS, help_, **more)


def average_bits(option: str, help_: str) -> Any:
    """An option for an average of widths."""
    return typer.Option(option, parser=Range(option, MIN_BITS, MAX_BITS, whole=False), help=help_)


def count(option: str, help_: str, low: int = 1, **more: Any) -> Any:
    """An option for how many there are of something."""
    return whole(option, low, MANY, help_, **more)


# --- what a command reads and writes
Checkpoint = Annotated[Path, typer.Option(help="A trained FP32 checkpoint in CompressAI's format.")]
Calib = Annotated[Path, typer.Option(help="Calibration images: a folder, nested or not, or a list, a path a line.")]
Data = Annotated[Path, typer.Option(help="A folder of training images.")]
Artifact = Annotated[Path, typer.Option("--output", "-o", help="The quantized model, a .licq file.")]
ModelFile = Annotated[
    Path | None, typer.Option("--model", "-m", help="A .licq file, or a folder of them; default: the embedded ones.")
]
Cache = Annotated[
    Path | None,
    typer.Option(help="Folder for decoded images and measured tables; default: see licquant cache.", hidden=True),
]

# --- what a checkpoint is
Architecture = Annotated[
    str | None,
    typer.Option(
        "--model", help="CompressAI's name, or package.module:Class; by default from the card, then the weights."
    ),
]
ArchitectureArguments = Annotated[
    str | None,
    typer.Option("--model-args", help="Of a class of your own, as JSON: '{\"N\": 128}'.", hidden=True),
]
Lmbda = Annotated[float | None, positive("--lmbda", "λ of the checkpoint, if no model card says it.")]
Metric = Annotated[str | None, typer.Option(help="What λ weighs: mse or ms-ssim; default: the card's.")]
Licence = Annotated[str, typer.Option(help="Licence of the weights, stored in the file.", hidden=True)]

# --- which widths
# The last four twice: finetune has to know whether they were given, since they exclude --widths.
_METHOD = typer.Option(
    help="Who chooses the widths: uniform (default), fmpq, optimal, hessian, rdo-ptq or raq.", show_default=False
)
_BUDGET = typer.Option(
    help="bits=8 (default), size=10% (of FP32), bytes=2e6, latency=60 (ms) or 110%, bops=90% or loss=0.5%.",
    show_default=False,
)
_ACT_BITS = bits("--act-bits", "Width of all activations, or the widest; default: 8.", show_default=False)
_MAX_BITS = bits("--max-bits", "Widest weights that are considered; default: 8.", show_default=False)
Method = Annotated[str, _METHOD]
MethodOrNot = Annotated[str | None, _METHOD]
Budget = Annotated[str, _BUDGET]
BudgetOrNot = Annotated[str | None, _BUDGET]
ActBits = Annotated[int, _ACT_BITS]
ActBitsOrNot = Annotated[int | None, _ACT_BITS]
MaxBits = Annotated[int, _MAX_BITS]
MaxBitsOrNot = Annotated[int | None, _MAX_BITS]
PlanFile = Annotated[Path | None, typer.Option("--plan", help="A plan of widths to use instead, a .json file.")]
Latency = Annotated[Path | None, typer.Option(help="Table of licquant profile, where latency counts.")]
ReconstructionSteps = Annotated[int, count("--steps", "Steps of reconstruction; 0 rounds to nearest.", low=0)]

# --- how a training is carried out
Resume = Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")]
MaxMinutes = Annotated[float | None, not_negative("--max-minutes", "Stop then, with a usable model.")]
CheckpointMinutes = Annotated[float, not_negative("--checkpoint-minutes", "Between two saved states.", hidden=True)]
Devices = Annotated[int, whole("--devices", 1, MAX_THREADS, "Processes or GPUs.", hidden=True)]
Accelerator = Annotated[str, typer.Option(help="auto, cpu or cuda.", hidden=True)]
BatchSize = Annotated[int | None, count("--batch-size", "Crops a step, on all devices; default: 8.", hidden=True)]
CropSide = Annotated[int | None, count("--crop", "Pixels a side; default: 128 (ms-ssim: 192).", hidden=True)]
LargeBatchSize = Annotated[int | None, count("--large-batch-size", "In the last quarter; default: 3.", hidden=True)]
LargeCrop = Annotated[int | None, count("--large-crop", "In the last quarter; default: 256.", hidden=True)]
Seed = Annotated[int | None, whole("--seed", 0, MAX_SEED, "Default: 0.", hidden=True)]

# --- how any command works
Threads = Annotated[int | None, whole("--threads", 1, MAX_THREADS, "CPU threads; default: the libraries' choice.")]
Engine = Annotated[str, typer.Option(help="openvino (fast) or exact (slow, integers only).")]
Device = Annotated[
    str, typer.Option(help="Of OpenVINO: CPU, GPU, NPU or AUTO, for what need not be exact; that stays on the CPU.")
]
Jobs = Annotated[
    int | None, whole("--jobs", 1, MAX_THREADS, "Files at a time; default: 2, or the cluster's cores.", "-j")
]
OnCluster = Annotated[bool, typer.Option("--cluster", help="By Ray, here or on many machines: docs/cluster.md.")]
ClusterJobs = Annotated[
    int | None,
    whole("--jobs", 1, MAX_THREADS, "Of --cluster: images at a time; default: all its cores.", "-j", hidden=True),
]
Address = Annotated[str | None, typer.Option(help="Of a Ray cluster: auto, HOST:PORT, …")]
Rows = Annotated[
    Path | None, typer.Option(help="Of --cluster: folder for a row a file; default: beside the output.", hidden=True)
]
SkipExisting = Annotated[bool, typer.Option("--skip-existing", help="Leave out what is there already.")]
HtmlReport = Annotated[Path | None, typer.Option("--html", help="Folder for a report that a browser opens.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
