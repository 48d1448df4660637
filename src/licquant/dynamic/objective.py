"""Training of a dynamic network together with its selectors: R + λ·D + γ·L_bits (equation 8 of DynaQuant).

L_bits is Σ over the stages of E[cost of the stage's width], with the selector's probabilities (equation 9 for
``layer_average``). It is counted in bits: whatever the cost, the widest widths everywhere cost as many as they have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from licquant.allocate.costs import Costs
from licquant.dynamic.nested import NestedLayer, NestedTensor
from licquant.dynamic.network import DynamicModel, StagePart, one_hot
from licquant.dynamic.selector import BitWidthSelector, make_selectors
from licquant.dynamic.settings import DynamicSettings
from licquant.quant.calibrate import Statistics
from licquant.quant.dataflow import Coded, code
from licquant.quant.gradients import Estimator
from licquant.quant.in_training.finetune import Task, groups_of
from licquant.quant.in_training.finetune_settings import FinetuneRecipe
from licquant.quant.in_training.quantizers import learn_grids
from licquant.quant.natural import bias_offset, weights_and_biases
from licquant.quant.rd import entropy_models, rate_distortion
from licquant.train import seeds

# The paper does not say its schedule: from mixtures to nearly one-hot ones, since a mix of widths
# loses less than any of them (their rounding errors differ), which at inference is not to be had.
FIRST_TEMPERATURE, LAST_TEMPERATURE = 0.5, 0.1
# The share of the training in which widths are sampled. Then they are chosen as at inference, so that the weights are
# trained for the widths that they will have.
SAMPLING = 0.1
_SELECTOR_RATE = 0.02  # of the selectors, over that of the network: thousands of weights move each logit
# Of the probabilities' entropy, over γ. Without it they come to 0 and 1 at once, where their gradient vanishes, and all
# images keep the width that is the best for most.
ENTROPY = 0.2

_TINY = 1e-9
ROUNDING = 1e-5  # of sums of bits, in float32

# The quantized layers of a stage, and its width → what that costs, in any unit.
StageCost = Callable[[Sequence[str], int], float]
# Part → what the widths of its stages cost, float[stages, widths], in bits: the widest cost as many as they are.
BitCosts = Mapping[str, Tensor]


class AdaptiveModel(nn.Module):
    """A dynamic network with its selectors.

    network, selectors: the selector of each dynamic part, by name
    steps: how many were trained;  price: γ, of a bit: both part of what a resumed run continues with
    """

    steps: Tensor
    price: Tensor

    def __init__(self, network: DynamicModel, selectors: Mapping[str, BitWidthSelector]) -> None:
        super().__init__()
        self.network, self.selectors = network, nn.ModuleDict(selectors)
        self.register_buffer("steps", torch.zeros(()))
        self.register_buffer("price", torch.zeros((), dtype=torch.float64))

    @classmethod
    def around(cls, network: DynamicModel, statistics: Statistics) -> AdaptiveModel:
        """With untrained selectors; statistics: what the network was calibrated from."""
        return cls(network, make_selectors(network, statistics))

    @property
    def by_part(self) -> dict[str, BitWidthSelector]:
        """Part name → its selector."""
        return {name: selector for name, selector in self.selectors.items() if isinstance(selector, BitWidthSelector)}

    def cool(self, progress: float) -> None:
        """Set the temperature of the Gumbel-Softmax for the share of the sampling that is done: geometric.

        From 1 on nothing is sampled, and the selectors have no gradient.
        """
        temperature = FIRST_TEMPERATURE * (LAST_TEMPERATURE / FIRST_TEMPERATURE) ** min(progress, 1.0)
        for selector in self.selectors.values():
            selector.temperature = temperature
            selector.train(progress < 1)

    def widths(self, x: Tensor) -> list[dict[str, int]]:
        """Stage → width chosen, for each image x [B, 3, H, W] in [0, 1], exactly as the codec chooses; in eval mode."""
        probabilities = self.run(x)[1]
        found: list[dict[str, int]] = [{} for _ in x]
        for name, network in self.network.networks.items():
            for of_image, chosen in zip(found, probabilities[name].argmax(2).tolist(), strict=True):
                of_image |= {s.name: s.widths[k] for s, k in zip(network.adaptive, chosen, strict=True)}
        return found

    def run(self, x: Tensor) -> tuple[Coded, dict[str, Tensor]]:
        """(what coding the images x [B, 3, H, W] in [0, 1] gives, part → probabilities [B, stages, widths])."""
        probabilities: dict[str, Tensor] = {}

        def run_part(name: str, value: Tensor) -> Tensor:
            def select(q: Tensor) -> Tensor:
                weights, probabilities[name] = self.selectors[name](q)
                return weights

            return self.network.run(name, value, select)

        return code(self.network.wide.traced, run_part, x), probabilities


class DynamicObjective(nn.Module):
    """An adaptive model with its loss; in training mode the temperature falls with every call.

    target: average bits below which they cost nothing; None: they always cost γ, the model's price
    costs:  what the widths cost;  steps: in which they are sampled
    """

    figures = ("loss", "bpp", "distortion", "bits")

    def __init__(
        self, model: AdaptiveModel, lmbda: float, metric: str, target: float | None, costs: BitCosts, steps: int
    ) -> None:
        """metric: as in ``train.settings.BaseRecipe``"""
        super().__init__()
        self.model, self.lmbda, self.metric, self.target, self.steps = model, lmbda, metric, target, steps
        self.entropy_models = entropy_models(model.network.wide)
        for name, table in costs.items():
            self.register_buffer(f"cost_{name}", table)

    def forward(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 B×3×H×W, sides in 64s → (the loss, [4] with the values of ``figures``)."""
        if self.training:
            self.model.cool(float(self.model.steps) / self.steps)
            self.model.steps += 1
        x = samples.float() / 255
        coded, probabilities = self.model.run(x)
        found = rate_distortion(coded, x, self.lmbda, self.metric)
        bits = self._bits(probabilities)
        chosen = self._bits({name: one_hot(p.argmax(2), p.shape[2]) for name, p in probabilities.items()})
        if self.target is not None and chosen <= self.target + ROUNDING:
            bits = bits.detach()
        loss = found[0] + self.model.price * bits
        figures = torch.stack([loss, found[1], found[2], bits]).detach()
        if self.training:
            entropy = -sum((p * p.clamp(min=_TINY).log()).sum((1, 2)).mean() for p in probabilities.values())
            loss = loss - ENTROPY * self.model.price * entropy
            # A width that no image wanted has a gradient too: in distributed training all must have one.
            loss = loss + 0 * sum(p.sum() for p in self.model.parameters() if p.requires_grad)
        return loss, figures

    def _bits(self, probabilities: Mapping[str, Tensor]) -> Tensor:
        shares = [(p * self.get_buffer(f"cost_{name}")).sum((1, 2)).mean() for name, p in probabilities.items()]
        return torch.stack(shares).sum()


def layer_average(layers: Sequence[str], bits: int) -> float:
    """Every layer counts alike, as in the paper."""
    return len(layers) * float(bits)


def cost_weighted(costs: Costs) -> StageCost:
    """As much as a stage's layers cost at that width of weights and activations: bytes, bit operations, time."""
    return lambda layers, bits: sum(costs.of(layer, bits, bits) for layer in layers)


def bit_costs(model: DynamicModel, cost: StageCost) -> BitCosts:
    """The costs in the units of ``cost`` brought to bits."""
    stages = [stage for network in model.networks.values() for stage in network.adaptive]
    unit = stages[0].widths[-1] / sum(cost(stage.layers, stage.widths[-1]) for stage in stages)
    return {
        name: torch.tensor([[unit * cost(stage.layers, bits) for bits in stage.widths] for stage in network.adaptive])
        for name, network in model.networks.items()
    }


def dynamic_task(
    network: DynamicModel,
    statistics: Statistics,
    recipe: FinetuneRecipe,
    dynamic: DynamicSettings,
    cost: StageCost = layer_average,
    typical_bits: Mapping[str, float] | None = None,
) -> Task:
    """A dynamic network and its selectors made trainable; statistics: what it was calibrated from.

    typical_bits: stage → the width in whose grid's steps its weights move; the mean of its candidates by default
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds.mix(seeds.WEIGHTS, recipe.seed))
        model = AdaptiveModel.around(network, statistics)
    model.price.fill_(dynamic.gamma or 0.0)
    grids = learn_grids(network.wide, recipe.grids, recipe.rounding, statistics, recipe.crop)
    adaptive = [stage for part in network.networks.values() for stage in part.adaptive]
    typical = {stage.name: sum(stage.widths) / len(stage.widths) for stage in adaptive} | dict(typical_bits or {})
    steps_of = {layer: typical[stage.name] for stage in adaptive for layer in stage.layers}
    weights, biases = weights_and_biases(network.wide, steps_of)
    for stage in (stage for part in network.networks.values() for stage in part.stages):
        for part in stage.parts.values():
            _learn_nested(part, recipe.rounding, biases, grids)
    selectors = [p for p in model.selectors.parameters() if p.requires_grad]
    groups = [*groups_of(recipe, weights, biases, grids), {"params": selectors, "share": _SELECTOR_RATE}]
    sampled, costs = max(1, round(SAMPLING * recipe.steps)), bit_costs(network, cost)
    objective = DynamicObjective(model, recipe.lmbda, recipe.metric, dynamic.target, costs, sampled)
    return Task(model, network.candidates, objective, groups)


def _learn_nested(part: StagePart, rounding: Estimator, biases: list[nn.Parameter], grids: list[nn.Parameter]) -> None:
    """Make trainable what a stage has of its own in fewer bits: its biases, and the factors of learned grids."""
    for tensor in part.tensors.values():
        if isinstance(tensor, NestedTensor):
            tensor.rounding, tensor.bounds_only = rounding, tensor.wider.bounds_only
            if parametrize.is_parametrized(tensor.wider, "log_scale") and tensor.log_factor.requires_grad:
                grids.append(tensor.log_factor)
    for name, layer in part.layers.items():
        if isinstance(layer, NestedLayer):
            layer.rounding = rounding
            biases.append(bias_offset(layer, part.tensors[name]))
