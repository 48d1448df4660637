"""Training of a CompressAI model: two optimizers, and noise in place of rounding."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import nn

from licquant.models.kernels import LAYOUT, channels_innermost, multiplies_bfloat16
from licquant.train.card import describe_hardware
from licquant.train.objective import Noise, Objective, float32_entropy_models
from licquant.train.settings import AUTO, BFLOAT16, FLOAT32, Recipe
from licquant.train.stepper import SCHEDULED, Stepper


class Trainer(Stepper):
    """A model, its two optimizers and its moving average, on the devices of a Fabric."""

    def __init__(self, fabric: Fabric, model: Any, recipe: Recipe) -> None:
        """``model``: a CompressAI image model; it is moved to the device and trained in place.

        ``precision``  that the recipe asks for, or what ``auto`` comes to on this device
        ``made_on``    device, precision and memory layout of this run, after those of the runs that it continues
        """
        model.train()
        channels_innermost(model)
        weights, quantiles = _split(model)
        optimizers = {
            # The fused kernel does in one pass over the weights what the plain one does in a dozen.
            SCHEDULED: torch.optim.Adam(weights, lr=recipe.learning_rate, fused=True),
            "auxiliary": torch.optim.Adam(quantiles, lr=recipe.aux_learning_rate),
        }
        self.precision = recipe.precision
        if recipe.precision == AUTO:
            self.precision = BFLOAT16 if multiplies_bfloat16(fabric.device) else FLOAT32
        objective = Objective(model, recipe.lmbda, recipe.metric, self.precision == BFLOAT16)
        super().__init__(fabric, recipe, model, objective, optimizers)
        self.noise = Noise(recipe.seed, fabric.device)
        self.made_on = [f"{describe_hardware(fabric.device, fabric.world_size)}, {self.precision}, {LAYOUT}"]

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """Within it ``advance`` may be called: the entropy models compute as ``entropy`` says."""
        with float32_entropy_models(self.model, self.noise):
            yield

    def begin(self, first_sample: int) -> None:
        """The noise of a step depends on the step and the place in the joint batch, not on the process."""
        self.noise.begin(self.step, first_sample)

    def state(self) -> dict[str, Any]:
        """The stepper's, with the devices that it was trained on."""
        return super().state() | {"made_on": self.made_on}

    def restore(self, state: dict[str, Any]) -> None:
        """The stepper's; devices of this run follow those of the runs before."""
        super().restore(state)
        self.made_on = list(dict.fromkeys([*state.get("made_on", []), *self.made_on]))


def _split(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """(weights, quantiles): what the rate-distortion loss trains, and what the auxiliary loss trains."""
    named = dict(model.named_parameters())
    quantiles = [value for name, value in named.items() if name.endswith(".quantiles")]
    return [value for name, value in named.items() if not name.endswith(".quantiles")], quantiles
