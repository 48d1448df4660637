"""One optimizer step, the moving average of the weights, which is what is exported, and what a resumed run needs to
take the next step as if nothing had happened.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from licquant.errors import TrainingError
from licquant.train import seeds
from licquant.train.settings import BaseRecipe, learning_rate

# The optimizer whose learning rate follows the schedule; the others keep theirs.
SCHEDULED = "optimizer"


class Stepper:
    """A model, its objective, its optimizers and its moving average, on the devices of a Fabric.

    ``figures``  names of what a step reports: those of the objective, and the gradient's norm before clipping
    ``step``     how many steps were taken
    ``sums``     of the figures of ``advance`` since ``take_means``; float64
    """

    def __init__(
        self,
        fabric: Fabric,
        recipe: BaseRecipe,
        model: nn.Module,
        objective: nn.Module,
        optimizers: Mapping[str, torch.optim.Optimizer],
    ) -> None:
        """Trains ``model`` in place, on the device that it is moved to.

        objective:  samples, uint8 B×3×H×W → (the loss to minimise, its figures [n], whose first is the loss that
                    is reported); the figures' names are its attribute ``figures``
        optimizers: ``SCHEDULED`` and others; a group of the first may have a ``share`` of the schedule's rate
        """
        self.fabric, self.recipe, self.model = fabric, recipe, model
        self.figures: Sequence[str] = (*objective.figures, "gradient")  # type: ignore[misc]
        self.objective, *prepared = fabric.setup(objective, *optimizers.values())
        self.optimizers = dict(zip(optimizers, prepared, strict=True))
        self._share_buffers()
        self.clipped = [value for group in self.optimizers[SCHEDULED].param_groups for value in group["params"]]
        self.average = Average(model.parameters(), recipe.average)
        self.step = 0
        self.sums = torch.zeros(len(self.figures), dtype=torch.float64, device=fabric.device)
        self.summed = 0

    @torch.no_grad()
    def _share_buffers(self) -> None:
        """Give every process the first one's buffers: offsets start from them, and distributed training, which sees
        to parameters, leaves them alone."""
        if self.fabric.world_size > 1:
            for buffer in self.model.buffers():
                buffer.copy_(self.fabric.broadcast(buffer))

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """Within it ``advance`` may be called."""
        yield

    def begin(self, first_sample: int) -> None:
        """Called before each step with the place in the joint batch of this process's first sample."""

    def advance(self, samples: Tensor, first_sample: int) -> None:
        """Take one step on this process's share, uint8 B×3×H×W, of the batch, from ``first_sample`` on."""
        rate = learning_rate(self.recipe, self.step)
        for group in self.optimizers[SCHEDULED].param_groups:
            group["lr"] = rate * group.get("share", 1.0)
        self.begin(first_sample)
        # Some models draw noise of their own: at least in the same way in every run.
        torch.manual_seed(seeds.mix(seeds.STEP, self.recipe.seed, self.step, first_sample))
        for optimizer in self.optimizers.values():
            optimizer.zero_grad()
        loss, figures = self.objective(self.fabric.to_device(samples))
        self.fabric.backward(loss)
        norm = torch.nn.utils.clip_grad_norm_(self.clipped, self.recipe.clip)
        for optimizer in self.optimizers.values():
            optimizer.step()
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
        """Means of the figures since the last call."""
        self.check_finite()
        means = (self.sums / max(1, self.summed)).tolist()
        self.sums.zero_()
        self.summed = 0
        return means

    def averaged_state(self) -> dict[str, Tensor]:
        """The moving average under the names of the model's parameters, on the CPU."""
        names = [name for name, _ in self.model.named_parameters()]
        return {name: value.cpu() for name, value in zip(names, self.average.values, strict=True)}

    def stored(self) -> Iterable[Tensor]:
        """The model's tensors that a resumed run must have again."""
        return self.model.parameters()

    def state(self) -> dict[str, Any]:
        """Everything that ``restore`` needs; finite, else ``TrainingError``."""
        self.check_finite()
        return {
            "step": self.step,
            "parameters": [tensor.detach() for tensor in self.stored()],
            **{name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "average": self.average.values,
            "average_updates": self.average.updates,
            "sums": self.sums,
            "summed": self.summed,
        }

    @torch.no_grad()
    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what ``state`` returned; ``TrainingError`` if it does not fit."""
        try:
            for tensor, saved in zip(self.stored(), state["parameters"], strict=True):
                tensor.copy_(saved)
            for name, optimizer in self.optimizers.items():
                optimizer.load_state_dict(state[name])
            self.average.restore(state["average"], state["average_updates"])
            self.sums.copy_(state["sums"])
            self.step, self.summed = int(state["step"]), int(state["summed"])
        except (KeyError, ValueError, RuntimeError) as error:
            raise TrainingError(f"the saved state does not fit the model: {error}") from error


class Average:
    """average ← d·average + (1 - d)·weights with d = min(decay, (1 + n)/(10 + n)) after n updates.

    The early, smaller d lets the average forget the initial weights, which matters for short runs.
    """

    def __init__(self, parameters: Iterable[Tensor], decay: float) -> None:
        self.parameters = list[Tensor](parameters)
        self.values = [parameter.detach().clone() for parameter in self.parameters]
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self) -> None:
        """Take in the parameters' present values."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(self.values, self.parameters, 1 - decay)
        self.updates += 1

    @torch.no_grad()
    def restore(self, values: Iterable[Tensor], updates: int) -> None:
        """Go on from saved values."""
        for mine, saved in zip(self.values, values, strict=True):
            mine.copy_(saved)
        self.updates = updates
