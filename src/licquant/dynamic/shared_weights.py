"""Weights that several widths share, moved before the training to where the widths that are wanted round them best.

The integers that are stored have the widest width; those of fewer bits are made of them, by rounding half up. Of a
weight w in units of the stored ones that gives, with t = 0 and one bit less,

    2 · ⌊(⌊w - t + ½⌋ + 1) / 2⌋    which is on average w + ½ - t:  half of the stored integers are ties, all go up

and as much with any other number of bits less. At t = ½ fewer bits have no such bias: they are what rounding w itself
gives. The widest then has one of -½. All weights of a layer err alike, so what they put out errs by that bias times
the sum of the inputs, which is more than what rounding does otherwise. The loss is its square's: with fewer bits in a
share p of the images t = p / 2 is best. Adam finds that in thousands of steps, as each weight sees little of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import torch
from torch import Tensor

from licquant.dynamic.network import DynamicModel
from licquant.dynamic.objective import StageCost, bit_costs
from licquant.dynamic.selector_fit import best_choices, measure_stages, price_of
from licquant.dynamic.settings import DynamicSettings
from licquant.models.graph import INPUT, NORMALIZATION, Step
from licquant.quant.calibrate import Statistics
from licquant.quant.in_training.finetune_settings import FinetuneRecipe
from licquant.quant.network import QuantizedPart
from licquant.quant.ranges import mean_output, moments

_MOST = 0.5  # steps of the stored integers, where only fewer bits are wanted
_EVERY = 4  # of the crops: shares need not be exact
_ROUNDS = 2  # the first makes fewer bits better, so that more images want them


def centre_weights(
    nested: Callable[[], DynamicModel],
    statistics: Statistics,
    crops: Tensor,
    recipe: FinetuneRecipe,
    dynamic: DynamicSettings,
    cost: StageCost,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[DynamicModel, dict[str, float]]:
    """Move the weights of a wide network's convolutions in place.

    Returned: the dynamic network with these weights, and stage → the width that a crop wants, on average over those
    looked at. The norms of GDNs, whose weights must not be negative, keep theirs.

    nested: makes the dynamic network inside the wide one as it is;  statistics: what that was calibrated from
    crops:  [B, 3, H, W] in [0, 1], sides in 64s;  on_progress: called with (crops done, in all)
    """
    model, moved, crops = nested(), defaultdict[str, float](float), crops[::_EVERY]
    for _ in range(_ROUNDS):
        wanted = _wanted_widths(model, crops, recipe, dynamic, cost, on_progress)
        for network in model.networks.values():
            for stage in network.adaptive:
                share = float((wanted[stage.name] < stage.widths[-1]).float().mean())
                distance = _MOST * share - moved[stage.name]
                moved[stage.name] += distance
                for step in network.wide.graph:
                    if step.name in stage.widest.layers and step.has_weights and step.kind != NORMALIZATION:
                        move_weights(network.wide, step, statistics, distance)
        model = nested()
    return model, {stage: float(widths.mean()) for stage, widths in wanted.items()}


def _wanted_widths(
    model: DynamicModel,
    crops: Tensor,
    recipe: FinetuneRecipe,
    dynamic: DynamicSettings,
    cost: StageCost,
    on_progress: Callable[[int, int], None],
) -> dict[str, Tensor]:
    """Adaptive stage → the width, float[crops], that is best for each crop at the price of a bit."""
    found = measure_stages(model, crops, recipe.lmbda, recipe.metric, on_progress)
    costs = bit_costs(model, cost)
    best = best_choices(found, costs, price_of(found, costs, dynamic))
    return {
        stage.name: torch.tensor(stage.widths, dtype=torch.float32)[chosen]
        for name, network in model.networks.items()
        for stage, chosen in zip(network.adaptive, best[name].unbind(1), strict=True)
    }


@torch.no_grad()
def move_weights(part: QuantizedPart, step: Step, statistics: Statistics, distance: float) -> None:
    """Move a layer's weights down by ``distance`` steps of its grid; its bias keeps the mean of what it puts out."""
    layer, scale = part.layers[step.name], part.weight_scale(step).detach()
    mean, _ = moments(statistics[step.inputs[0] if step.inputs[0] != INPUT else f"{part.graph.name}.{INPUT}"])
    before = layer.integer_weight(scale)
    layer.weight.sub_(distance * layer.rows() / layer.columns(scale))
    layer.bias.add_(mean_output(layer, (before - layer.integer_weight(scale)) * layer.rows(), mean / scale))
