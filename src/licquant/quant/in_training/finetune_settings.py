"""What a finetuning run is told, and what its names stand for."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from lightning.fabric import Fabric

from licquant.quant.gradients import DistanceAware, Estimator, straight_through
from licquant.quant.in_training.quantizers import QUANTIZERS, Quantizer
from licquant.quant.settings import Settings
from licquant.train import resume
from licquant.train.command import make_fabric
from licquant.train.settings import BaseRecipe, RunOptions

STRAIGHT_THROUGH, DISTANCE_AWARE = "ste", "dgm"
ESTIMATORS = (STRAIGHT_THROUGH, DISTANCE_AWARE)


@dataclass(frozen=True)
class FinetuneRecipe(BaseRecipe):
    """Everything that decides a finetuned model, given the quantized one that it starts from.

    learning_rate    of the weights, in steps of their grids
    bias_rate        of the biases, in 255ths of their output's range; of a GDN's, in its logarithm
    grid_rate        of the logarithms of scales and units, and of zero points in halves of the range
    quantizer        one of ``quantizers.QUANTIZERS``
    estimator, beta  ``ste``, or ``dgm`` with its beta (see ``quant/gradients.py``)
    """

    steps: int = 3000
    learning_rate: float = 0.005
    warmup: int = 50
    average: float = 0.998
    bias_rate: float = 0.0003
    grid_rate: float = 0.0005
    quantizer: str = "dpa"
    estimator: str = DISTANCE_AWARE
    beta: float = 2.0

    def complaints(self) -> Iterator[tuple[str, str]]:
        """Those of every recipe, and about the rates, β, the quantizer and the estimator."""
        yield from super().complaints()
        positive = ("bias_rate", "grid_rate", "beta")
        yield from ((name, "must be above 0") for name in positive if not 0 < getattr(self, name) < float("inf"))
        choices: Mapping[str, tuple[str, ...]] = {"quantizer": tuple(QUANTIZERS), "estimator": ESTIMATORS}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                yield name, f"choose one of {', '.join(known)}"

    def starting(self, settings: Settings) -> Settings:
        """How the network is quantized that a finetuning starts from."""
        grids = replace(
            settings.quantizer, per_channel=self.grids.per_channel, free_zero_points=self.grids.free_zero_points
        )
        return replace(settings, quantizer=grids, lmbda=self.lmbda, metric=self.metric)

    @property
    def grids(self) -> Quantizer:
        """Which parameters of the grids are trained."""
        return QUANTIZERS[self.quantizer]

    @property
    def rounding(self) -> Estimator:
        """The gradient of rounding."""
        return DistanceAware(self.beta) if self.estimator == DISTANCE_AWARE else straight_through


@dataclass(frozen=True, eq=False)
class Training:
    """One finetuning.

    recipe:   how it trains, and with which quantizer;  options: on which images, for how long, on what
    facts:    what decides the artifact beside them; they are written into it
    launched: what ``fabric`` is, where that has been launched already
    """

    recipe: FinetuneRecipe
    options: RunOptions
    facts: Mapping[str, Any] = field(default_factory=dict)
    launched: Fabric | None = None

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What must be the same for a saved run to be resumed; reads the images to hash them."""
        return resume.identity(self.recipe, self.options, **self.facts)

    @cached_property
    def fabric(self) -> Fabric:
        """The devices and processes, launched when first asked for."""
        return self.launched or make_fabric(self.options)

    def also(self, facts: Mapping[str, Any]) -> "Training":
        """The same with further facts, on the same devices."""
        return replace(self, facts={**self.facts, **facts}, launched=self.fabric)
