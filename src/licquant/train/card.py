"""The model card: a JSON file beside the checkpoint that says what the model is and how it came to be.

model, N, M          CompressAI's registered name and its widths
lmbda, loss          λ and the formula of the loss that it is for
data, data_sha256    the folder of training images, how many; a hash of their names and sizes, and as
                     ``data_contents_sha256`` one of their contents (earlier cards lack it)
steps, batch         optimizer steps; crops of each phase
init, init_sha256    what training started from; ``init_parts``: what was taken over of it, if it was another model
recipe               every setting that decides the weights
complete             false while the run can be continued
seconds, hardware    how long it took, and on what: device, precision and memory layout, of each machine in turn
versions             of the libraries
kodak or test        RD point on the test images: bits per pixel of CompressAI's real strings, PSNR in dB, RD
                     loss, means over the images
validation           the same on the validation images, and ``init_rd_loss``: that of ``init`` on them
sha256, shards       of the checkpoint, or of the shards' hashes in a row; hash of each shard
note, licence        for whoever uses the weights
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from licquant.config import check_lmbda, parse_json
from licquant.errors import LicquantError, ModelError, TrainingError
from licquant.evaluate import provenance
from licquant.evaluate.rd import DISTORTION_WEIGHTS, MS_SSIM, MSE, check_loss, describe, rd_loss
from licquant.images import list_images, utf8, write_result
from licquant.models.load import load_model, model_name, read_state
from licquant.models.recognize import SUPPORTED
from licquant.models.shards import joint_sha256
from licquant.models.small import SUFFIX
from licquant.train import architectures
from licquant.train.settings import CARD, Recipe, RunOptions, phases


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


def lmbda_of(checkpoint: Path, given: float | None = None) -> float | None:
    """λ as given, else from the card beside the checkpoint, else None: the one place where any command reads it.

    ``ModelError`` for a λ that is not a finite number above 0; ``TrainingError`` for a card that cannot be read.
    """
    if given is not None:
        return check_lmbda(given)
    card = read_card(checkpoint) or {}
    return check_lmbda(card["lmbda"], f"{checkpoint.with_suffix(CARD)}: lmbda") if "lmbda" in card else None


def model_of(checkpoint: Path, given: str | None = None) -> str | None:
    """The model's name as given, else from the card beside the checkpoint, else None: its weights show it then.

    What a card names is never imported: only registered names count there. ``TrainingError`` for a card that cannot
    be read.
    """
    name = given if given is not None else (read_card(checkpoint) or {}).get("model")
    return name if given is not None or name in SUPPORTED else None


def name_of(checkpoint: Path, given: str | None = None) -> str:
    """The model's name as given, by the card, or by the weights; ``ModelError`` if they are those of none."""
    return model_name(model_of(checkpoint, given), checkpoint)


def load_checkpoint(checkpoint: Path, given: str | None = None, arguments: Mapping[str, Any] | None = None) -> Any:
    """The model as ``models.load_model`` makes it, with the name as given or by the card."""
    return load_model(model_of(checkpoint, given), checkpoint, arguments)


def metric_of(checkpoint: Path, given: str | None = None) -> str:
    """What λ weighs, ``mse`` or ``ms-ssim``: as given, else by the card beside the checkpoint, else ``mse``.

    ``ModelError`` for another metric; ``TrainingError`` for a card that cannot be read.
    """
    if given is None:
        card = read_card(checkpoint) or {}
        said = " ".join(str(card.get(key, "")) for key in ("metric", "loss")).lower().replace("_", "-")
        return MS_SSIM if MS_SSIM in said else MSE
    if given not in DISTORTION_WEIGHTS:
        raise ModelError(f"unknown metric {given!r}: choose one of {', '.join(DISTORTION_WEIGHTS)}")
    return given


def loss_of(checkpoint: Path, lmbda: float | None = None, metric: str | None = None) -> tuple[float | None, str]:
    """(λ, metric) as given, else by the card; ``ModelError`` for a λ of a model that was trained for MS-SSIM alone."""
    found, weighed = lmbda_of(checkpoint, lmbda), metric_of(checkpoint, metric)
    return (None if found is None else check_loss(found, weighed, f"{checkpoint}: λ")), weighed


def write_card(checkpoint: Path, card: Mapping[str, Any]) -> None:
    """Write ``card`` beside ``checkpoint``; ``TrainingError`` if that fails."""
    text = json.dumps(card, indent=2, ensure_ascii=False) + "\n"
    try:
        write_result(checkpoint.with_suffix(CARD), utf8(text))
    except LicquantError as error:
        raise TrainingError(str(error)) from error


def file_hashes(files: Mapping[str, str]) -> dict[str, Any]:
    """The card's entries for file name → SHA-256: ``sha256``, and ``shards`` where there are several."""
    return {"sha256": joint_sha256(files.values()), **({"shards": dict(files)} if len(files) > 1 else {})}


@dataclass(frozen=True)
class Reached:
    """How far a run came: steps taken, seconds of all its parts, images that it drew from, and on what."""

    step: int
    seconds: float
    images: int
    hardware: str


def make_card(
    recipe: Recipe, options: RunOptions, widths: Mapping[str, int], identity: Mapping[str, Any], reached: Reached
) -> dict[str, Any]:
    """The card without what is known only once the checkpoint is written: its hashes, its RD point."""
    return {
        "model": recipe.model,
        **widths,
        "lmbda": recipe.lmbda,
        "loss": describe(recipe.metric),
        "data": f"{options.data.resolve().name} ({reached.images} images)",
        "steps": reached.step,
        "batch": ", then ".join(
            f"{phase.batch} x {phase.crop}x{phase.crop} to step {phase.stop}" for phase in phases(recipe)
        ),
        "init": describe_init(options.init),
        "seconds": round(reached.seconds, 1),
        "hardware": reached.hardware,
        "note": options.note or _default_note(options, recipe, reached.step),
        "licence": options.licence,
        "complete": reached.step == recipe.steps,
        **identity,
        "versions": {name: _version(name) for name in ("licquant", "torch", "compressai", "lightning", "numpy")},
    }


def describe_init(init: Path | None) -> str:
    """What the card says of the start: ``scratch``, or λ of the checkpoint, else its file's name."""
    if init is None:
        return "scratch"
    try:
        lmbda = lmbda_of(init)
    except LicquantError:  # what another model's card says is no reason to lose this one
        lmbda = None
    return init.name if lmbda is None else f"lambda {lmbda:g}"


def _default_note(options: RunOptions, recipe: Recipe, step: int) -> str:
    notes = [] if step == recipe.steps else [f"stopped at step {step} of {recipe.steps}: not yet fully trained"]
    if options.output.suffix == SUFFIX:
        notes.append("weights stored in 11 bits")
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
            initial = _initial(recipe, options.init, widths)
            before = rd_point(initial, options.validation_images, recipe.lmbda, recipe.metric)
            entries["validation"]["init_rd_loss"] = before["rd_loss"]
    return entries


def measure(recipe: Recipe, checkpoint: Path, widths: Mapping[str, int], folder: Path) -> tuple[str, dict[str, float]]:
    """The folder's name, and the RD point of a checkpoint on it: CompressAI's real strings, means over images."""
    model = architectures.build(recipe.model, widths)
    architectures.load_weights(model, read_state(checkpoint), str(checkpoint))
    model.eval()
    return folder.resolve().name, rd_point(model, folder, recipe.lmbda, recipe.metric)


def _initial(recipe: Recipe, init: Path, widths: Mapping[str, int]) -> Any:
    """The model that training started from, which may be another than the recipe's."""
    model = architectures.build(recipe.model, widths)
    whole = architectures.start_from(model, read_state(init), str(init)).whole
    return model.eval() if whole else load_checkpoint(init)


def rd_point(model: Any, folder: Path, lmbda: float, metric: str = MSE) -> dict[str, float]:
    """A CompressAI model's means over the folder's images: bits per pixel of its real strings, PSNR in dB, RD loss."""
    from licquant.evaluate.reference import evaluate_reference

    results = evaluate_reference(model, list_images(folder), lmbda)
    point = {
        "bpp_real_strings": fmean(result.bpp for result in results),
        "psnr_mean": fmean(result.psnr for result in results),
        "rd_loss": fmean(result.rd_loss for result in results),
    }
    if metric == MS_SSIM:
        point["ms_ssim_mean"] = fmean(result.ms_ssim for result in results)
        point["rd_loss"] = rd_loss(point["bpp_real_strings"], 1 - point["ms_ssim_mean"], lmbda, metric)
    return {name: round(value, 5) for name, value in point.items()}
