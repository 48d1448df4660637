"""One training step, and what a resumed run needs to take the next one as if nothing had happened."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from licquant.errors import TrainingError
from licquant.train import schedule, seeds
from licquant.train.averaging import Average
from licquant.train.entropy import Noise, float32_entropy_models
from licquant.train.objective import LOSS, Objective
from licquant.train.settings import Recipe

# The columns of what a step reports, beyond those of ``Objective``: norm of the gradient before clipping.
GRADIENT = 4


class Trainer:
    """A model, its two optimizers and its moving average, on the devices of a Fabric.

    ``step``  how many steps were taken
    ``sums``  of the five figures of ``advance`` since ``take_means``; float64
    """

    def __init__(self, fabric: Fabric, model: Any, recipe: Recipe) -> None:
        """``model``: a CompressAI image model; it is moved to the device and trained in place."""
        self.fabric, self.recipe, self.model = fabric, recipe, model
        model.train()
        model.to(memory_format=torch.channels_last)
        weights, quantiles = _split(model)
        # The fused kernel does in one pass over the weights what the plain one does in a dozen.
        optimizer = torch.optim.Adam(weights, lr=recipe.learning_rate, fused=True)
        auxiliary = torch.optim.Adam(quantiles, lr=recipe.aux_learning_rate)
        objective = Objective(model, recipe.lmbda, recipe.metric, recipe.precision)
        self.objective, self.optimizer, self.auxiliary = fabric.setup(objective, optimizer, auxiliary)
        self.weights = weights
        self.average = Average(model.parameters(), recipe.average)
        self.noise = Noise(recipe.seed, fabric.device)
        self.step = 0
        self.sums = torch.zeros(GRADIENT + 1, dtype=torch.float64, device=fabric.device)
        self.summed = 0

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """Within it ``advance`` may be called: the entropy models compute as ``entropy`` says."""
        with float32_entropy_models(self.model, self.noise):
            yield

    def advance(self, samples: Tensor, first_sample: int) -> None:
        """Take one step on this process's share, uint8 B×3×H×W, of the batch, from ``first_sample`` on."""
        rate = schedule.learning_rate(self.recipe, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.noise.begin(self.step, first_sample)
        # Some models draw noise elsewhere too: from here on, at least, in the same way in every run.
        torch.manual_seed(seeds.mix(seeds.STEP, self.recipe.seed, self.step, first_sample))
        self.optimizer.zero_grad()
        self.auxiliary.zero_grad()
        figures = self.objective(self.fabric.to_device(samples))
        self.fabric.backward(figures[LOSS] + figures[-1])
        norm = torch.nn.utils.clip_grad_norm_(self.weights, self.recipe.clip)
        self.optimizer.step()
        self.auxiliary.step()
        self.average.update()
        self.step += 1
        means: Any = self.fabric.all_reduce(figures.detach(), reduce_op="mean")
        self.sums += torch.cat([means, norm.detach()[None]]).double()
        self.summed += 1

    def check_finite(self) -> None:
        """Raise ``TrainingError`` if a figure since the last ``take_means`` was not finite."""
        if not torch.isfinite(self.sums).all():
            raise TrainingError(
                f"the loss or its gradient became infinite or not a number before step {self.step}; "
                "lower the learning rate. The last checkpoint before it is kept"
            )

    def take_means(self) -> list[float]:
        """Means of loss, bpp, distortion, auxiliary loss and gradient norm since the last call."""
        self.check_finite()
        means = (self.sums / max(1, self.summed)).tolist()
        self.sums.zero_()
        self.summed = 0
        return means

    def averaged_state(self) -> dict[str, Tensor]:
        """The moving average under the names of the model's parameters, on the CPU."""
        names = [name for name, _ in self.model.named_parameters()]
        return {name: value.cpu() for name, value in zip(names, self.average.values, strict=True)}

    def state(self) -> dict[str, Any]:
        """Everything that ``restore`` needs; finite, else ``TrainingError``."""
        self.check_finite()
        return {
            "step": self.step,
            "parameters": [parameter.detach() for parameter in self.model.parameters()],
            "optimizer": self.optimizer.state_dict(),
            "auxiliary": self.auxiliary.state_dict(),
            "average": self.average.values,
            "average_updates": self.average.updates,
            "sums": self.sums,
            "summed": self.summed,
        }

    @torch.no_grad()
    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what ``state`` returned; ``TrainingError`` if it does not fit."""
        try:
            for parameter, saved in zip(self.model.parameters(), state["parameters"], strict=True):
                parameter.copy_(saved)
            self.optimizer.load_state_dict(state["optimizer"])
            self.auxiliary.load_state_dict(state["auxiliary"])
            self.average.restore(state["average"], state["average_updates"])
            self.sums.copy_(state["sums"])
            self.step, self.summed = int(state["step"]), int(state["summed"])
        except (KeyError, ValueError, RuntimeError) as error:
            raise TrainingError(f"the saved state does not fit the model: {error}") from error


def _split(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """(weights, quantiles): what the rate-distortion loss trains, and what the auxiliary loss trains."""
    named = dict(model.named_parameters())
    quantiles = [value for name, value in named.items() if name.endswith(".quantiles")]
    return [value for name, value in named.items() if not name.endswith(".quantiles")], quantiles
