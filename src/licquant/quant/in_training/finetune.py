"""Quantization-aware finetuning: the weights and the grids of a calibrated model, trained through the simulated codec.

    quantized model ──learn_grids, weights_and_biases──> offsets ──steps of Adam──> moving average ──settle──> the same
    model, whose plain parameters ``lower`` turns into integers

What is trained is the network that will be lowered: rounded weights, biases and zero points, 8-bit pixels, latents
rounded as the coder does, no noise. The loop, the crops, the log and the saved states are those of ``licquant.train``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from licquant.codec.files.artifact import Artifact
from licquant.quant.bfloat16_gradients import Bfloat16Gradients
from licquant.quant.calibrate import Statistics
from licquant.quant.in_training.finetune_settings import FinetuneRecipe, Training
from licquant.quant.in_training.quantizers import learn_grids
from licquant.quant.natural import only_trained, settle, weights_and_biases
from licquant.quant.network import QuantizedModel
from licquant.quant.rd import QuantizedObjective
from licquant.terminal import plain_console
from licquant.train import resume
from licquant.train.command import open_crops
from licquant.train.loop import Loop
from licquant.train.progress import Clock
from licquant.train.settings import PICTURE, STATE
from licquant.train.stepper import SCHEDULED, Stepper

_DECIDED = "decided"  # in the saved state, so that it is not searched for again

# Of Adam's parameters: ``params``, and ``share``, its rate over the recipe's learning rate.
ParameterGroup = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Task:
    """What is finetuned: a network of any kind that is made of quantized parts.

    model:     all that is stored of it;  decided: its widths, in JSON: what ``decided_before`` tells a resumed run
    objective: a module from samples, uint8 B×3×H×W, to (the loss, its figures [n]), whose attribute ``figures`` names
               them, ``loss``, ``bpp`` and ``distortion`` among them
    groups:    the parameters that are trained
    """

    model: nn.Module
    decided: Mapping[str, Any]
    objective: nn.Module
    groups: Sequence[ParameterGroup]


@dataclass(frozen=True)
class Outcome:
    """How a run ended: ``status`` is ``complete``, ``time limit`` or ``interrupted``; seconds of all runs together."""

    status: str
    steps: int
    seconds: float

    def told(self, recipe: FinetuneRecipe, facts: Mapping[str, Any]) -> dict[str, Any]:
        """What the artifact says of its making; facts: all that decides it beside the recipe."""
        return {**recipe.to_mapping(), **facts, "steps": self.steps}


@dataclass(frozen=True, eq=False)
class Finetuned:
    """A network after its training, and what it was lowered to."""

    artifact: Artifact
    quantized: QuantizedModel
    outcome: Outcome


def static_task(quantized: QuantizedModel, statistics: Statistics, recipe: FinetuneRecipe) -> Task:
    """A model of fixed widths with its grids and weights made trainable; statistics: that it was calibrated from."""
    grids = learn_grids(quantized, recipe.grids, recipe.rounding, statistics, recipe.crop)
    groups = groups_of(recipe, *weights_and_biases(quantized), grids)
    decided = quantized.plan.to_json()
    return Task(quantized, decided, QuantizedObjective(quantized, recipe.lmbda, recipe.metric), groups)


def groups_of(
    recipe: FinetuneRecipe,
    weights: Sequence[nn.Parameter],
    biases: Sequence[nn.Parameter],
    grids: Sequence[nn.Parameter],
) -> list[ParameterGroup]:
    """Offsets as ``natural.py`` and ``quantizers.py`` give them, each kind at its rate."""
    kinds = ((weights, recipe.learning_rate), (biases, recipe.bias_rate), (grids, recipe.grid_rate))
    return [{"params": list(kind), "share": rate / recipe.learning_rate} for kind, rate in kinds if kind]


def decided_before(training: Training) -> dict[str, Any] | None:
    """``Task.decided`` of the interrupted run that is to be resumed; None if there is none."""
    saved = _saved(training)
    return None if saved is None else json.loads(saved.trainer[_DECIDED])


def forget_state(training: Training) -> None:
    """Delete what an interrupted run would be resumed from; all processes wait for that."""
    if training.fabric.is_global_zero:
        training.options.companion(STATE).unlink(missing_ok=True)
    training.fabric.barrier()


def finetune(task: Task, training: Training, clock: Clock | None = None) -> Outcome:
    """Train ``task.model`` in place: afterwards it is on the CPU, has the averaged weights, and can be lowered.

    A saved state of a run of another identity is refused.
    Raises ``DataError`` for images that cannot be used, ``TrainingError`` for all else that keeps the run from
    starting or going on.
    """
    recipe, options, fabric = training.recipe, training.options, training.fabric
    console, clock = plain_console(stderr=True), clock or Clock(options.max_minutes)
    saved = _saved(training)
    crops = open_crops(fabric, recipe, options, console)
    with only_trained(task.objective, chain.from_iterable(group["params"] for group in task.groups)):
        finetuner = Finetuner(fabric, recipe, task)
        loop = Loop(finetuner, crops, training.identity, options, clock, console)
        if saved is not None:
            loop.continue_from(saved)
        status = loop.train()
        if fabric.is_global_zero:
            loop.journal.draw(options.companion(PICTURE), f"{recipe.model} λ={recipe.lmbda:g} {recipe.quantizer}")
        finetuner.finish()
    return Outcome(status, finetuner.step, loop.seconds)


def _saved(training: Training) -> resume.Saved | None:
    options = training.options
    return resume.load_state(options.companion(STATE), training.identity) if options.resume else None


class Finetuner(Stepper):
    """The steps of a task: one optimizer, convolutions whose gradients are bfloat16 where that is faster.

    On a GPU they run in PyTorch's default, TF32: exact for integers of up to 11 bits.
    """

    def __init__(self, fabric: Fabric, recipe: FinetuneRecipe, task: Task) -> None:
        optimizer = torch.optim.Adam(task.groups, lr=recipe.learning_rate, betas=(0.9, 0.99), fused=True)
        super().__init__(fabric, recipe, task.model, task.objective, {SCHEDULED: optimizer})
        self.task = task

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """Within it ``advance`` may be called: convolutions have bfloat16 gradients where the CPU has them."""
        with Bfloat16Gradients():
            yield

    def stored(self) -> Iterable[Tensor]:
        """With the buffers: where the offsets start from."""
        return chain(self.model.parameters(), self.model.buffers())

    def state(self) -> dict[str, Any]:
        """The stepper's, with what the task decided before its first step."""
        return super().state() | {_DECIDED: json.dumps(dict(self.task.decided))}

    @torch.no_grad()
    def finish(self) -> None:
        """Put the averaged parameters into the model, in plain form."""
        for parameter, averaged in zip(self.model.parameters(), self.average.values, strict=True):
            parameter.copy_(averaged)
        self.task.objective.cpu()
        settle(self.model)
