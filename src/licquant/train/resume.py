"""What an output name holds already: nothing, an interrupted run to go on from, or a finished model."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

from licquant.digests import contents_sha256
from licquant.errors import LicquantError, TrainingError
from licquant.images import list_images, write_atomically
from licquant.models.shards import checkpoint_sha256, files_of_shards
from licquant.train.card import read_card
from licquant.train.export import to_bytes
from licquant.train.pixels import names_digest
from licquant.train.settings import STATE, BaseRecipe, RunOptions

VERSION = 1


def identity(recipe: BaseRecipe, options: RunOptions, **facts: Any) -> dict[str, Any]:
    """What must be the same for a run to be resumed: recipe and further facts, training images, initial checkpoint.

    The images: ``data_sha256`` is a hash of their names and sizes, ``data_contents_sha256`` one of their contents,
    which runs of earlier versions lack: for them names and sizes must do.
    """
    return {
        "recipe": recipe.to_mapping() | facts,
        "data_sha256": names_digest(options.data),
        "data_contents_sha256": contents_sha256(list_images(options.data)),
        "init_sha256": None if options.init is None else checkpoint_sha256(options.init),
    }


@dataclass(frozen=True)
class Saved:
    """An interrupted run: the trainer's state, the text of its log, the seconds it took so far."""

    trainer: dict[str, Any]
    journal: str
    seconds: float


def finished_card(mine: Mapping[str, Any], options: RunOptions) -> dict[str, Any] | None:
    """The card of the run if it was completed already.

    Raises ``TrainingError`` if the output cannot be written, or if its name is taken: by anything at all without
    ``resume``, with it by a run of another identity, or by a checkpoint that is not known to be a run's.
    """
    options.check_output()
    output, state = options.output, options.companion(STATE)
    there = output.exists() or bool(files_of_shards(output))
    if not options.resume:
        if there or state.exists():
            raise TrainingError(f"{output}: exists already; continue it with --resume, or choose another -o")
        return None
    card = read_card(output) if there else None
    if card is None:
        if there and not state.exists():
            raise TrainingError(f"{output}: has no model card that says what it is; choose another -o")
        return None
    _check_same(mine, card, str(output))
    return card if card.get("complete") else None


def save_state(path: Path, mine: Mapping[str, Any], trainer: Mapping[str, Any], journal: str, seconds: float) -> None:
    """Write what ``load_state`` reads, whole or not at all; ``TrainingError`` if it cannot be written."""
    record = {
        "version": VERSION,
        "identity": json.dumps(mine),
        "trainer": dict(trainer),
        "journal": journal,
        "seconds": seconds,
    }
    try:
        write_atomically(path, to_bytes(record))
    except LicquantError as error:
        raise TrainingError(f"the training state cannot be saved, the last one is kept: {error}") from error


def load_state(path: Path, mine: Mapping[str, Any]) -> Saved | None:
    """The run saved in ``path``, None if there is none; ``TrainingError`` if another run's or damaged."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        record = torch.load(BytesIO(data), map_location="cpu", weights_only=True)
        version, other = record["version"], json.loads(record["identity"])
        saved = Saved(record["trainer"], record["journal"], float(record["seconds"]))
    except Exception as error:  # damaged archives raise many kinds
        raise TrainingError(f"{path}: not a training state that can be read") from error
    if version != VERSION:
        raise TrainingError(f"{path}: a training state of version {version}; this licquant reads {VERSION}")
    _check_same(mine, other, str(path))
    return saved


def _check_same(mine: Mapping[str, Any], other: Mapping[str, Any], place: str) -> None:
    """Raise ``TrainingError``, naming what differs, unless ``other`` has the identity ``mine``."""
    recipe, theirs = mine["recipe"], other.get("recipe")
    if not isinstance(theirs, dict):
        raise TrainingError(f"{place}: does not say what it was trained with, so it cannot be continued")
    for name, value in recipe.items():
        if theirs.get(name) != value:
            raise TrainingError(f"{place}: was started with {name} = {theirs.get(name)!r}, not {value!r}")
    for name, what in (
        ("data_sha256", "other training images"),
        ("data_contents_sha256", "training images of other contents"),
        ("init_sha256", "another initial checkpoint"),
    ):
        if other.get(name) != mine[name] and not (name == "data_contents_sha256" and name not in other):
            raise TrainingError(f"{place}: was started with {what}")
