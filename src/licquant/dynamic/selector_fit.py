"""Selectors fitted to measured losses: the widths that these speak for, image by image.

    J_n(b) of calibration crops, stage n at width b, all others at the widest
      ──price γ of a bit──> Σ_n E[J_n(b) + γ · cost_n(b)], with a selector's probabilities ──steps of Adam──> selectors

That is the training's objective to first order (FMPQ's change of the loss, by image and stage), without the noise of
sampled widths. The paper trains random selectors, for millions of steps. A finetuning of hundreds or thousands ends
before they tell images apart, and trains the weights for widths that are not chosen: so they are fitted before it,
and at its end again, to what the network has become. The average is kept by their choices for whole images: crops are
busier or flatter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from licquant.dynamic.network import DynamicModel, one_hot
from licquant.dynamic.objective import ENTROPY, ROUNDING, AdaptiveModel, BitCosts, StageCost, bit_costs
from licquant.dynamic.selector import BitWidthSelector, features_of
from licquant.dynamic.settings import DynamicSettings
from licquant.errors import BudgetError
from licquant.evaluate.rd import MS_SSIM, MSE
from licquant.models.graph import INPUT
from licquant.quant.dataflow import code
from licquant.quant.in_training.finetune_settings import FinetuneRecipe
from licquant.quant.rd import rate_distortion
from licquant.train import seeds
from licquant.train.settings import MS_SSIM_CROP

SELECTOR_CROPS = 64
# Of the crops, in pixels, by metric; those of 256 take three times as long (ELIC) and led to no smaller loss.
SELECTOR_SIDES = {MSE: 128, MS_SSIM: MS_SSIM_CROP}
_STEPS, _DECAY = 400, 0.05
_RATES = 0.0003, 0.01  # of the hidden layer, whose thousands of weights move every logit, and of the logits' own
_LEAST_TEMPERATURE = 1e-6  # where bits cost nothing
_HIGHEST_RATIO, _HALVINGS = 1e3, 30  # of prices, where another is looked for


def fit_to_losses(
    model: AdaptiveModel,
    crops: Tensor,
    photographs: Sequence[Tensor],
    recipe: FinetuneRecipe,
    dynamic: DynamicSettings,
    cost: StageCost,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Measure, set the model's price of a bit unless ``dynamic`` says it, and fit the selectors, in place.

    crops: [B, 3, H, W] in [0, 1], sides in 64s, whose losses are measured;  on_progress: called with (done, in all)
    photographs: [1, 3, H, W] each, whose choices keep the average
    """
    device = model.price.device
    found = measure_stages(model.network, crops.to(device), recipe.lmbda, recipe.metric, on_progress)
    costs = {name: table.to(device) for name, table in bit_costs(model.network, cost).items()}
    model.price.fill_(price_of(found, costs, dynamic))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds.mix(seeds.WEIGHTS, recipe.seed))
        fit_selectors(model.by_part, found, costs, float(model.price))
    if dynamic.target is not None:
        seen = features_of_images(model.network, [x.to(device) for x in photographs], recipe.lmbda, recipe.metric)
        model.price.fill_(keep_average(model.by_part, seen, costs, float(model.price), dynamic.target))


@dataclass(frozen=True, eq=False)
class StageLosses:
    """What the adaptive stages of a dynamic part do to the loss, crop by crop.

    losses: float[crops, stages, widths], R + λ·D with one stage at that width and all others of both parts at
        the widest, less that with all at the widest
    features: what the part's selector reads of every crop, int64 [crops, C, 5, 5], ``selector.features_of``
    """

    losses: Tensor
    features: Tensor


@torch.no_grad()
def measure_stages(
    model: DynamicModel,
    crops: Tensor,
    lmbda: float,
    metric: str,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, StageLosses]:
    """Part → its losses on the crops [B, 3, H, W] in [0, 1], sides in 64s.

    metric: as in ``train.settings.BaseRecipe``;  on_progress: called with (crops done, in all)
    """
    features: dict[str, list[Tensor]] = {name: [] for name in model.networks}
    losses: dict[str, list[Tensor]] = {name: [] for name in model.networks}
    for index, x in enumerate(crops.split(1)):
        on_progress(index, len(crops))
        pixels = _Pixels(model, x, lmbda, metric)
        base = pixels.loss_at_widest()
        for name, network in model.networks.items():
            features[name].append(pixels.features[name])
            stages, widths = network.shape
            of_part = torch.zeros(network.shape, device=x.device)
            for stage, k in product(range(stages), range(widths - 1)):
                of_part[stage, k] = pixels.loss_with(name, stage, k) - base
            losses[name].append(of_part)
    on_progress(len(crops), len(crops))
    return {name: StageLosses(torch.stack(losses[name]), torch.cat(features[name])) for name in model.networks}


@torch.no_grad()
def features_of_images(model: DynamicModel, images: Sequence[Tensor], lmbda: float, metric: str) -> dict[str, Tensor]:
    """Part → ``selector.features_of`` what its selector reads of every image [1, 3, H, W]: int64 [images, C, 5, 5]."""
    features: dict[str, list[Tensor]] = {name: [] for name in model.networks}
    for x in images:
        pixels = _Pixels(model, x, lmbda, metric)
        pixels.loss_at_widest()
        for name, of_part in pixels.features.items():
            features[name].append(of_part)
    return {name: torch.cat(of_part) for name, of_part in features.items()}


class _Pixels:
    """Pixels x [1, 3, H, W] in a dynamic model: what it does to them at the widest widths, and with one narrower.

    features: part → what its selector reads;  read: part → what each of its adaptive stages reads;  put_out: by all
        parts in their order. All of them at the widest widths, so that a narrow stage runs, and what follows it.
    """

    def __init__(self, model: DynamicModel, x: Tensor, lmbda: float, metric: str) -> None:
        self.model, self.x, self.lmbda, self.metric = model, x, lmbda, metric
        self.features: dict[str, Tensor] = {}
        self.read: dict[str, list[Tensor]] = {}
        self.put_out: list[Tensor] = []

    def loss_at_widest(self) -> Tensor:
        """Fills all of the above."""

        def run(name: str, value: Tensor) -> Tensor:
            out = self._wide(name, value) if name in self.model.networks else self.model.wide.run(name, value)
            self.put_out.append(out)
            return out

        return self._loss(run)

    def loss_with(self, narrow: str, stage: int, width: int) -> Tensor:
        """Of one stage of a part at the width of that index."""
        reached, known = False, iter(self.put_out)

        def run(name: str, value: Tensor) -> Tensor:
            nonlocal reached
            if name == narrow:
                reached = True
                return self._narrow(name, stage, width)
            if not reached:
                return next(known)
            return self.model.run(name, value, lambda _: self._weights(name))

        return self._loss(run)

    def _wide(self, name: str, value: Tensor) -> Tensor:
        network = self.model.networks[name]
        q = network.read(value)
        first = network.stages[0].widest(q)
        self.features[name] = features_of(q if network.selected == INPUT else first)
        *self.read[name], last = first, *network.writing(first, self._weights(name))
        return network.real(last)

    def _narrow(self, name: str, stage: int, width: int) -> Tensor:
        network = self.model.networks[name]
        *_, last = network.writing(self.read[name][stage], self._weights(name, (stage, width)), stage)
        return network.real(last)

    def _weights(self, name: str, narrow: tuple[int, int] | None = None) -> Tensor:
        """Of the widest width for every stage but the narrow one: (stage, index of its width)."""
        stages, widths = self.model.networks[name].shape
        chosen = torch.full((1, stages), widths - 1, device=self.x.device)
        if narrow is not None:
            chosen[:, narrow[0]] = narrow[1]
        return one_hot(chosen, widths)

    def _loss(self, run: Callable[[str, Tensor], Tensor]) -> Tensor:
        return rate_distortion(code(self.model.wide.traced, run, self.x), self.x, self.lmbda, self.metric)[0]


def price_of(found: Mapping[str, StageLosses], costs: BitCosts, dynamic: DynamicSettings) -> float:
    """γ, as the settings say it, or for the average that they ask for. Raises as ``price_for``."""
    if dynamic.target is not None:
        return price_for(found, costs, dynamic.target)
    assert dynamic.gamma is not None
    return dynamic.gamma


def price_for(found: Mapping[str, StageLosses], costs: BitCosts, average: float) -> float:
    """The lowest price γ of a bit at which the crops' own best widths cost at most ``average`` bits.

    Raises ``BudgetError`` where even the cheapest widths cost more, as in latency widths may cost alike.
    """
    low, high = 1e-6, 1e6  # of a loss that is about 1
    least = _mean_cost(found, costs, high)
    if least > average + ROUNDING:
        raise BudgetError(f"the average of {average:g} bits cannot be met: these widths cost at least {least:.2f}")
    for _ in range(60):
        middle = math.sqrt(low * high)
        if _mean_cost(found, costs, middle) > average:
            low = middle
        else:
            high = middle
    return high


def _mean_cost(found: Mapping[str, StageLosses], costs: BitCosts, price: float) -> float:
    return _cost_of(best_choices(found, costs, price), costs)


def best_choices(found: Mapping[str, StageLosses], costs: BitCosts, price: float) -> dict[str, Tensor]:
    """Part → the index of the width that is best for each crop at that price of a bit, [crops, stages]."""
    return {name: (of.losses + price * costs[name]).argmin(2) for name, of in found.items()}


def _cost_of(chosen: Mapping[str, Tensor], costs: BitCosts) -> float:
    """The mean over the images of what widths cost; chosen: part → their index [images, stages]."""
    return sum(
        float((one_hot(of, costs[name].shape[1]) * costs[name]).sum((1, 2)).mean()) for name, of in chosen.items()
    )


def _temperature(price: float) -> float:
    """T, what the entropy of a choice counts."""
    return max(ENTROPY * price, _LEAST_TEMPERATURE)


def fit_selectors(
    selectors: Mapping[str, BitWidthSelector],
    found: Mapping[str, StageLosses],
    costs: BitCosts,
    price: float,
) -> None:
    """Train the selectors on the measured losses, in place and from the start: sampled widths teach them little.

    What is minimised is E[J + γ · cost] - T · entropy, T = 0.2 γ. In cross-validation on 64 crops T = 0.1 γ and
    0.3 γ saved twice as much as T = 0. What a width costs hardly depends on where in the image something is: the
    cells of every crop are shuffled in every step, or else the few crops are learned by heart. Magnitudes have no sign:
    a hidden unit reads thousands of them, all about 1, so that a step would turn it on or off for all crops alike, and
    off is for ever. So its bias makes up for what its weights' steps do to the usual crop.
    """
    temperature = _temperature(price)
    for name, of in found.items():
        selector, total = selectors[name].train(), (of.losses + price * costs[name]) / temperature
        selector.restart()
        usual = of.features.float().mean((0, 2, 3)) * selector.unit
        hidden, logits = selector.network.layers.values()
        groups = [{"params": layer.parameters(), "lr": r} for layer, r in zip((hidden, logits), _RATES, strict=True)]
        optimizer = torch.optim.AdamW(groups, weight_decay=_DECAY)
        for _ in range(_STEPS):
            optimizer.zero_grad()
            log = selector.logits(_shuffled(of.features)).log_softmax(2)
            (log.exp() * (total + log)).sum((1, 2)).mean().backward()
            before = hidden.weight.detach().clone()
            optimizer.step()
            with torch.no_grad():
                hidden.bias.sub_(((hidden.weight - before) * usual.view(-1, 1, 1)).sum((1, 2, 3)))


def _shuffled(features: Tensor) -> Tensor:
    """Every crop's cells in an order of its own: [B, C, 5, 5]."""
    cells = features.flatten(2)
    order = torch.rand(len(cells), 1, cells.shape[2], device=cells.device).argsort(2)
    return cells.gather(2, order.expand_as(cells)).view_as(features)


@torch.no_grad()
def keep_average(
    selectors: Mapping[str, BitWidthSelector],
    seen: Mapping[str, Tensor],
    costs: BitCosts,
    price: float,
    average: float,
) -> float:
    """Have fitted selectors choose for another price: the lowest at which images cost at most ``average`` bits.

    They know less of an image than its losses say, so that at the price for which these keep the average they may not:
    they may even choose the same for all. Where fitted for γ, logits are about -(J + γ · cost) / T, so for another
    price their biases move by the difference times -cost / T. Of the images that are told apart, those that gain most
    get what bits there are. Where they are alike, the next lower price would give all of them some stage's next width,
    and bits are left over: these go to one stage after another, by a price of its own.

    seen: part → ``selector.features_of`` every image;  price: that they were fitted for;  returned: the common other
    """
    choosing = {name: selector.eval() for name, selector in selectors.items()}
    biases = {name: list(selector.network.layers.values())[-1].bias for name, selector in selectors.items()}
    fitted = {name: bias.clone() for name, bias in biases.items()}
    further = {name: torch.zeros(len(of), 1, device=of.device, dtype=of.dtype) for name, of in costs.items()}

    def is_kept() -> bool:
        """With the prices of the stages higher by ``further``, in place."""
        for name, bias in biases.items():
            bias.copy_(fitted[name] - (further[name] / _temperature(price) * costs[name]).flatten())
        chosen = {name: choosing[name].choice_for(of) for name, of in seen.items()}
        return _cost_of(chosen, costs) <= average + ROUNDING

    everywhere = list(further.values())
    common = _lowest_price(everywhere, -price, _HIGHEST_RATIO * price, is_kept)
    for name, stage in _nearest_to_wider(choosing, seen, costs):
        _lowest_price([further[name][stage]], -price, common, is_kept)
    is_kept()
    return price + common


def _lowest_price(prices: Sequence[Tensor], low: float, high: float, is_kept: Callable[[], bool]) -> float:
    """The lowest that all of these may be set to, in place: ``is_kept`` at the highest."""
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        for price in prices:
            price.fill_(middle)
        if is_kept():
            high = middle
        else:
            low = middle
    for price in prices:
        price.fill_(high)
    return high


def _nearest_to_wider(
    selectors: Mapping[str, BitWidthSelector], seen: Mapping[str, Tensor], costs: BitCosts
) -> list[tuple[str, int]]:
    """(part, stage), those first whose images would gain most of a bit, by the selectors' logits."""
    gains: dict[tuple[str, int], float] = {}
    for name, selector in selectors.items():
        logits = selector.logits(seen[name]).mean(0)
        for stage, (of, cost) in enumerate(zip(logits, costs[name], strict=True)):
            chosen = int(of.argmax())
            wider = [float((of[k] - of[chosen]) / (cost[k] - cost[chosen])) for k in range(chosen + 1, len(cost))]
            gains[name, stage] = max(wider, default=-math.inf)
    return sorted(gains, key=lambda of: -gains[of])
