"""What the commands that need the training stack share: options of widths, facts of calibration, progress."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from licquant import pipeline
from licquant.allocate.file_budget import FileSize
from licquant.codec.files.artifact import Artifact, read_artifact_bytes
from licquant.codec.files.contents import layer_contents
from licquant.config import Plan, parse_json
from licquant.digests import contents_sha256, file_sha256
from licquant.errors import LicquantError, ModelError, PlanError
from licquant.evaluate.latency import LatencyTable
from licquant.images import utf8
from licquant.images.calibration import Calibration
from licquant.reports import pictures
from licquant.terminal import note, on_one_line, progress_bars, remark
from licquant.train.card import loss_of


@dataclass(frozen=True, kw_only=True)
class WidthOptions:
    """The options of every command that quantizes: which widths, and how their cost is counted."""

    method: str = "uniform"
    budget: str = "bits=8"
    act_bits: int = 8
    max_bits: int = 8
    plan: Path | None = None
    latency: Path | None = None
    licence: str = "not stated"
    strict: bool = False

    def facts(self) -> dict[str, Any]:
        """What of them decides an artifact's content, beside the method."""
        return {
            "budget": self.budget,
            "act_bits": self.act_bits,
            "max_bits": self.max_bits,
            "plan": None if self.plan is None else file_sha256(self.plan),
            "latency": None if self.latency is None else file_sha256(self.latency),
        }

    def settings(self) -> pipeline.Settings:
        """What these options mean to the pipeline; reads the plan and the latency table that they name."""
        return pipeline.Settings(
            activation_bits=self.act_bits,
            max_bits=self.max_bits,
            plan=None if self.plan is None else read_plan(self.plan),
            latency=None if self.latency is None else LatencyTable.load(self.latency),
            licence=self.licence,
        )


def read_plan(path: Path) -> Plan:
    """The plan in a JSON file; ``PlanError`` if there is none."""
    try:
        return Plan.from_json(parse_json(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise PlanError(f"{path}: not a plan: {error}") from error


def size_facts(size: FileSize | None) -> dict[str, int]:
    """Under a budget of the file: what it may have, what was expected, what it has, in bytes."""
    if size is None:
        return {}
    return {"budget_bytes": size.budget, "predicted_bytes": size.predicted, "written_bytes": size.written}


def calibration_facts(calibration: Sequence[Path]) -> dict[str, Any]:
    """How many images, and a hash of the contents of those that can be read."""
    readable = [path for path in calibration if path.is_file() and os.access(path, os.R_OK)]
    return {"calibration_images": len(calibration), "calibration_sha256": contents_sha256(readable)}


def say_skipped(calibration: Calibration, count: int) -> list[str]:
    """The calibration files that were skipped, of so many, as lines on standard error; the same for programs."""
    if calibration.skipped:
        remark(f"{len(calibration.skipped)} of {count} calibration images were skipped:")
        for line in calibration.skipped:
            note(f"    {on_one_line(line)}")
    return calibration.skipped


def lmbdas_of(checkpoints: Sequence[Path]) -> list[float]:
    """λ by the model card beside each; ``ModelError`` where there is none, or two are the same."""
    found = [known_lmbda(path, loss_of(path)[0]) for path in checkpoints]
    if len(set(found)) < len(found):
        raise ModelError("two of the checkpoints have the same λ: take them one after the other")
    return found


def known_lmbda(path: Path, lmbda: float | None) -> float:
    """λ, if the card of the checkpoint at ``path`` or an option told it; ``ModelError`` otherwise."""
    if lmbda is None:
        raise ModelError(f"{path}: no model card beside it says λ ({path.with_suffix('.json').name}, key lmbda)")
    return lmbda


def write_layer_bars(path: Path, picture: Path) -> None:
    """The widths and sizes of an artifact's layers as a picture."""
    data = read_artifact_bytes(path)
    artifact = Artifact.from_bytes(data)
    layers = [
        pictures.LayerSize(c.name, c.part, c.weight_bits, c.activation_bits, c.bytes, 4 * c.weights)
        for c in layer_contents(data, artifact)
        if c.weights and c.weight_bits is not None and c.activation_bits is not None
    ]
    pictures.layer_bars(picture, layers, title=path.name + (", the widest of its widths" if artifact.dynamic else ""))


def shown_command(words: Sequence[str]) -> str:
    """A command line for a shell, file names without their folders: results are published."""
    return shlex.join(["licquant", *(utf8(_without_folder(word)).decode() for word in words)])


def _without_folder(word: str) -> str:
    option, sign, value = word.partition("=") if word.startswith("--") else ("", "", word)
    return option + sign + (Path(value).name if "/" in value else value)


def make_folder(path: Path) -> None:
    """``LicquantError`` if it cannot be made."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise LicquantError(f"{path}: cannot be made: {getattr(error, 'strerror', None) or error}") from error


@contextmanager
def progress() -> Iterator[pipeline.OnProgress]:
    """A progress bar on standard error for whatever long work goes on."""
    with progress_bars() as bars:
        tasks: dict[str, Any] = {}

        def on_progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield on_progress
