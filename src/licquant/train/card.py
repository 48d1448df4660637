"""The model card: a JSON file beside the checkpoint that says what the model is and how it came to be.

model, N, M          CompressAI's registered name and its widths
lmbda, loss          λ and the formula of the loss that it is for
data, data_sha256    the folder of training images, how many; a hash of their names and sizes
steps, batch         optimizer steps; crops of each phase
init, init_sha256    what training started from
recipe               every setting that decides the weights
complete             false while the run can be continued
seconds, hardware    how long it took, and on what        versions   of the libraries
kodak or test        RD point on the test images: bits per pixel of CompressAI's real strings, PSNR in dB, RD
                     loss, means over the images
validation           the same on the validation images, and ``init_rd_loss``: that of ``init`` on them
sha256, shards       of the checkpoint, or of the shards' hashes in a row; hash of each shard
note, licence        for whoever uses the weights
"""

import hashlib
import json
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from licquant.config import parse_json
from licquant.errors import LicquantError, TrainingError
from licquant.evaluate import provenance
from licquant.images import list_images, write_atomically
from licquant.models.load import read_state
from licquant.models.shards import shard_paths
from licquant.train import architectures, schedule
from licquant.train.objective import describe
from licquant.train.settings import CARD, Recipe, RunOptions


def read_card(checkpoint: Path) -> dict[str, Any] | None:
    """The card beside ``checkpoint``; None if there is none, ``TrainingError`` if it cannot be read."""
    path = checkpoint.with_suffix(CARD)
    try:
        card = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise TrainingError(f"{path}: not a model card that can be read") from error
    if not isinstance(card, dict):
        raise TrainingError(f"{path}: not a model card")
    return card


def write_card(checkpoint: Path, card: Mapping[str, Any]) -> None:
    """Write ``card`` beside ``checkpoint``; ``TrainingError`` if that fails."""
    text = json.dumps(card, indent=2, ensure_ascii=False) + "\n"
    try:
        write_atomically(checkpoint.with_suffix(CARD), text.encode())
    except LicquantError as error:
        raise TrainingError(str(error)) from error


def file_hashes(files: Mapping[str, str]) -> dict[str, Any]:
    """The card's entries for file name → SHA-256: ``sha256``, and ``shards`` where there are several."""
    if len(files) == 1:
        return {"sha256": next(iter(files.values()))}
    return {"sha256": hashlib.sha256("".join(files.values()).encode()).hexdigest(), "shards": dict(files)}


def checkpoint_digest(checkpoint: Path) -> str:
    """What the card calls ``sha256``: of the file, or of the shards' hashes in a row."""
    paths = [checkpoint] if checkpoint.exists() else shard_paths(checkpoint)
    if not paths:
        raise TrainingError(f"{checkpoint}: there is no such checkpoint")
    return str(file_hashes({path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths})["sha256"])


def make_card(
    recipe: Recipe,
    options: RunOptions,
    widths: Mapping[str, int],
    identity: Mapping[str, Any],
    *,
    step: int,
    seconds: float,
    images: int,
    hardware: str,
) -> dict[str, Any]:
    """The card without what is known only once the checkpoint is written: its hashes, its RD point."""
    return {
        "model": recipe.model,
        **widths,
        "lmbda": recipe.lmbda,
        "loss": describe(recipe.metric),
        "data": f"{options.data.resolve().name} ({images} images)",
        "steps": step,
        "batch": ", then ".join(
            f"{phase.batch} x {phase.crop}x{phase.crop} to step {phase.stop}" for phase in schedule.phases(recipe)
        ),
        "init": describe_init(options.init),
        "seconds": round(seconds, 1),
        "hardware": hardware,
        "note": options.note or _default_note(options, recipe, step),
        "licence": options.licence,
        "complete": step == recipe.steps,
        **identity,
        "versions": {name: _version(name) for name in ("licquant", "torch", "compressai", "lightning", "numpy")},
    }


def describe_init(init: Path | None) -> str:
    if init is None:
        return "scratch"
    try:
        return f"lambda {(read_card(init) or {})['lmbda']:g}"
    except (KeyError, TypeError, ValueError, OverflowError):  # not said, or no number
        return init.name


def _default_note(options: RunOptions, recipe: Recipe, step: int) -> str:
    notes = [] if step == recipe.steps else [f"stopped at step {step} of {recipe.steps}: not yet fully trained"]
    if options.float16:
        notes.append("large tensors stored as float16")
    return "; ".join(notes)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def describe_hardware(device: torch.device, devices: int) -> str:
    """Processor, or accelerator, and how much of it was used."""
    if device.type == "cuda":
        return f"{devices} x {torch.cuda.get_device_name(device)}"
    threads = f"{torch.get_num_threads()} threads"
    return f"{provenance.machine()['cpu']}, {threads}" + (f" in each of {devices} processes" if devices > 1 else "")


# --- the RD point -------------------------------------------------------------------------------------------


def check_images(options: RunOptions) -> None:
    """An error now, rather than after hours, if test or validation images cannot be evaluated later."""
    folders = [folder for folder in (options.test_images, options.validation_images) if folder]
    if not folders:
        return
    try:
        import licquant.evaluate.reference  # noqa: F401
    except ImportError as error:
        raise TrainingError(f"{folders[0]}: its images cannot be evaluated without {error.name}") from error
    for folder in folders:
        list_images(folder)


def measure_all(recipe: Recipe, options: RunOptions, widths: Mapping[str, int]) -> dict[str, Any]:
    """The card's entries for the RD points that the options ask for: ``kodak`` or ``test``, ``validation``."""
    entries: dict[str, Any] = {}
    if options.test_images:
        name, point = measure(recipe, options.output, widths, options.test_images)
        entries |= {"kodak": point} if name == "kodak" else {"test": {"images": name, **point}}
    if options.validation_images:
        name, point = measure(recipe, options.output, widths, options.validation_images)
        entries["validation"] = {"images": name, **point}
        if options.init:
            before = measure(recipe, options.init, widths, options.validation_images)[1]
            entries["validation"]["init_rd_loss"] = before["rd_loss"]
    return entries


def measure(recipe: Recipe, checkpoint: Path, widths: Mapping[str, int], folder: Path) -> tuple[str, dict[str, float]]:
    """The folder's name, and the RD point of a checkpoint on it: CompressAI's real strings, means over images."""
    from licquant.evaluate.reference import evaluate_reference

    model = architectures.build(recipe.model, widths)
    architectures.load_weights(model, read_state(checkpoint), str(checkpoint))
    model.eval()
    model.update()  # an initial checkpoint may lack the tables
    results = evaluate_reference(model, list_images(folder), recipe.lmbda)
    point = {
        "bpp_real_strings": fmean(result.bpp for result in results),
        "psnr_mean": fmean(result.psnr for result in results),
        "rd_loss": fmean(result.rd_loss for result in results),
    }
    if recipe.metric == "ms-ssim":
        point["ms_ssim_mean"] = fmean(result.ms_ssim for result in results)
        point["rd_loss"] = point["bpp_real_strings"] + recipe.lmbda * (1 - point["ms_ssim_mean"])
    return folder.resolve().name, {name: round(value, 5) for name, value in point.items()}
