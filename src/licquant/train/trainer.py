"""Training of a CompressAI model: two optimizers, and noise in place of rounding."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import nn

from licquant.models.convolutions import channels_innermost
from licquant.train.entropy import Noise, float32_entropy_models
from licquant.train.objective import Objective
from licquant.train.settings import Recipe
from licquant.train.stepper import SCHEDULED, Stepper


class Trainer(Stepper):
    """A model, its two optimizers and its moving average, on the devices of a Fabric."""

    def __init__(self, fabric: Fabric, model: Any, recipe: Recipe) -> None:
        """``model``: a CompressAI image model; it is moved to the device and trained in place."""
        model.train()
        channels_innermost(model)
        weights, quantiles = _split(model)
        optimizers = {
            # The fused kernel does in one pass over the weights what the plain one does in a dozen.
            SCHEDULED: torch.optim.Adam(weights, lr=recipe.learning_rate, fused=True),
            "auxiliary": torch.optim.Adam(quantiles, lr=recipe.aux_learning_rate),
        }
        objective = Objective(model, recipe.lmbda, recipe.metric, recipe.precision)
        super().__init__(fabric, recipe, model, objective, optimizers)
        self.noise = Noise(recipe.seed, fabric.device)

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """Within it ``advance`` may be called: the entropy models compute as ``entropy`` says."""
        with float32_entropy_models(self.model, self.noise):
            yield

    def begin(self, first_sample: int) -> None:
        self.noise.begin(self.step, first_sample)


def _split(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """(weights, quantiles): what the rate-distortion loss trains, and what the auxiliary loss trains."""
    named = dict(model.named_parameters())
    quantiles = [value for name, value in named.items() if name.endswith(".quantiles")]
    return [value for name, value in named.items() if not name.endswith(".quantiles")], quantiles
