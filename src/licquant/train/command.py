"""A whole training run: check, decode, train, save, export, describe.

-o model.pt   →   model.pt       the model (stored small in model.licw), or model-1of2.pt, … where sizes are limited
                  model.json     the model card
                  model.csv      the log          model.png   its picture
                  model.state    while the run is not complete: what --resume continues from
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments import TorchElasticEnvironment
from lightning.fabric.strategies import DDPStrategy
from rich.console import Console
from torch import Tensor

from licquant.cache import cache_folder
from licquant.errors import TrainingError
from licquant.models.load import read_state
from licquant.terminal import plain_console
from licquant.train import architectures, card, export, resume
from licquant.train.batches import Crops
from licquant.train.loop import Loop
from licquant.train.pixels import Pixels, open_pixels
from licquant.train.process import keep_freed_memory, kept_threads
from licquant.train.progress import COMPLETE, Clock, decoding_bar
from licquant.train.settings import PICTURE, STATE, BaseRecipe, Recipe, RunOptions
from licquant.train.trainer import Trainer


@dataclass(frozen=True)
class TrainResult:
    """How a run ended: ``status`` is ``complete``, ``time limit`` or ``interrupted``."""

    status: str
    checkpoint: Path
    card: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        return {"status": self.status, "checkpoint": str(self.checkpoint), "card": dict(self.card)}


def make_fabric(options: RunOptions) -> Fabric:
    """The Fabric for the options, launched: from here on, one process runs for each device.

    Where torchrun started this process, its processes are taken, on one machine or several, instead of ``devices``.
    """
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    devices, nodes = options.devices, 1
    if TorchElasticEnvironment.detect():
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
    # Buffers do not change in a step: ``Stepper`` shares them where they may have changed.
    strategy: Any = DDPStrategy(broadcast_buffers=False) if devices * nodes > 1 else "auto"
    try:
        fabric = Fabric(accelerator=options.accelerator, devices=devices, num_nodes=nodes, strategy=strategy)
    except Exception as error:  # Lightning has its own exceptions for what a machine lacks
        raise TrainingError(f"cannot train on {devices} x {options.accelerator}: {error}") from error
    fabric.launch()
    keep_freed_memory()
    torch.backends.cudnn.benchmark = fabric.device.type == "cuda"
    return fabric


@kept_threads()
def run_training(
    recipe: Recipe,
    options: RunOptions,
    *,
    fabric: Fabric | None = None,
    console: Console | None = None,
    clock: Clock | None = None,
) -> TrainResult:
    """Train one model and leave its checkpoint and companions, as the top of this file lists them.

    ``fabric``: launched already (several runs in one process); ``clock``: for a time limit over several runs.
    Raises ``ModelError`` for an unknown model or weights that do not fit, ``DataError`` for images that
    cannot be used, ``TrainingError`` for all else that keeps the run from starting or going on.
    """
    console = console or plain_console(stderr=True)
    clock = clock or Clock(options.max_minutes)
    widths, weights = _architecture(recipe, options)
    mine = resume.identity(recipe, options)
    card.check_images(options)
    make_parents(options.output)
    done = resume.finished_card(mine, options)
    if done is not None:
        options.companion(STATE).unlink(missing_ok=True)
        return TrainResult(COMPLETE, options.output, done)
    saved = resume.load_state(options.companion(STATE), mine)
    fabric = fabric or make_fabric(options)
    crops = open_crops(fabric, recipe, options, console)
    model = architectures.build(recipe.model, widths, recipe.seed)
    start = None if weights is None else architectures.start_from(model, weights, str(options.init))
    trainer = Trainer(fabric, model, recipe)
    run = _Run(trainer, crops, mine, options, clock, console)
    if saved is not None:
        run.continue_from(saved)
    if fabric.is_global_zero:
        if start is not None and not start.whole:
            _say(console, f"from {options.init}: {start}")
        _say(console, f"training on {trainer.made_on[-1]}")
    status = run.train()
    description = run.export(recipe, widths, start) if fabric.is_global_zero else {}
    fabric.barrier()  # a later run of a plan may start from this one's checkpoint
    return TrainResult(status, options.output, description)


def make_parents(output: Path) -> None:
    """The folders that a checkpoint goes to; ``TrainingError`` if they cannot be made."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise TrainingError(f"{output.parent}: cannot be made: {reason}") from error


def _architecture(recipe: Recipe, options: RunOptions) -> tuple[dict[str, int], dict[str, Tensor] | None]:
    """(widths, initial weights or None), from the checkpoint to start from if there is one."""
    if options.init is None:
        return architectures.resolve_widths(recipe.model, recipe.N, recipe.M), None
    weights = read_state(options.init)
    return architectures.widths_of(recipe.model, weights, recipe.N, recipe.M), weights


def open_crops(fabric: Fabric, recipe: BaseRecipe, options: RunOptions, console: Console) -> Crops:
    """This process's share of the batches; the first process says what there is."""
    crops = Crops(_pixels(fabric, options, console), recipe, fabric.global_rank, fabric.world_size)
    if fabric.is_global_zero:
        _report_data(crops, console)
    return crops


def _pixels(fabric: Fabric, options: RunOptions, console: Console) -> Pixels:
    """The decoded images; the first process decodes, the others wait for it."""
    cache = cache_folder(options.cache)
    if fabric.is_global_zero:
        with decoding_bar(console) as on_image:
            pixels = open_pixels(options.data, cache, on_image)
    fabric.barrier()
    return pixels if fabric.is_global_zero else open_pixels(options.data, cache)


def _report_data(crops: Crops, console: Console) -> None:
    lines = [f"{len(crops.pixels)} training images"]
    if crops.pixels.unreadable:
        lines.append(f"{crops.pixels.unreadable} skipped: cannot be read")
    lines += [f"{count} skipped for {crop}x{crop} crops: smaller" for crop, count in crops.too_small().items() if count]
    _say(console, "; ".join(lines))


def _say(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)


class _Run(Loop):
    """A training loop that ends in a checkpoint."""

    trainer: Trainer

    def export(self, recipe: Recipe, widths: Mapping[str, int], start: architectures.Start | None) -> dict[str, Any]:
        """Write checkpoint, picture and card; return the card. A complete run's state is then deleted."""
        options, output = self.options, self.options.output
        seconds = self.seconds
        state = export.finished_state(recipe.model, widths, self.trainer.averaged_state())
        limit = None if options.max_file_mib is None else options.max_file_mib * 2**20
        files = export.write_checkpoint(output, state, limit)
        reached = card.Reached(self.trainer.step, seconds, len(self.crops.pixels), "; ".join(self.trainer.made_on))
        description = card.make_card(recipe, options, widths, self.mine, reached) | card.file_hashes(files)
        if start is not None and not start.whole:
            description["init_parts"] = list(start.taken)
        complete = description["complete"]
        if complete:
            # The card must describe the files already when they are read back.
            card.write_card(output, description | {"complete": False})
            description |= card.measure_all(recipe, options, widths)
        self.journal.draw(options.companion(PICTURE), f"{recipe.model} λ={recipe.lmbda:g}")
        card.write_card(output, description)
        if complete:
            options.companion(STATE).unlink(missing_ok=True)
        return description
