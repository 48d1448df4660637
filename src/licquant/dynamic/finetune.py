"""Training of a model whose widths are chosen for every image, together with what chooses them (DynaQuant, Bao 2026).

traced model ──insert_widest──> widest network ──fit──> the same ──make_dynamic──> stages that share its weights
    ──centre_weights, fit_to_losses──> selectors ──steps──> trained network ──lower_dynamic──> model.licq
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor, nn

from licquant.allocate.result import Result
from licquant.allocate.search import Search
from licquant.allocate.sensitivity import draw_crops
from licquant.codec.files.artifact import Artifact
from licquant.config import Budget, OnProgress, silent
from licquant.dynamic.lowering import lower_dynamic
from licquant.dynamic.network import insert_widest, make_dynamic
from licquant.dynamic.objective import (
    AdaptiveModel,
    StageCost,
    cost_weighted,
    dynamic_task,
    layer_average,
)
from licquant.dynamic.selector_fit import SELECTOR_CROPS, SELECTOR_SIDES, fit_to_losses
from licquant.dynamic.settings import LAYERS, DynamicSettings
from licquant.dynamic.shared_weights import centre_weights
from licquant.dynamic.stages import stage_statistics
from licquant.images import RGB, evenly
from licquant.lower.artifact import artifact_of
from licquant.quant.after_training.fit import fit
from licquant.quant.calibrate import MEASURED, Calibrated, calibrate, to_tensor
from licquant.quant.in_training.finetune import Outcome, decided_before
from licquant.quant.in_training.finetune import finetune as train_quantized
from licquant.quant.in_training.finetune_settings import Training
from licquant.quant.settings import Settings
from licquant.train.process import kept_threads

_FIRST_EVERY = 2  # of the crops, for the fit before the training, which the one after it replaces


@kept_threads()
def finetune_dynamic(
    model: nn.Module | Calibrated,
    images: Sequence[RGB],
    training: Training,
    dynamic: DynamicSettings,
    settings: Settings | None = None,
    on_progress: OnProgress = silent,
) -> tuple[Result, Outcome]:
    """Train a model whose widths are chosen for every image, and what chooses them: as ``pipeline.finetune``, but

    dynamic: the candidates, and what bits cost or how many there may be. The first stages and all other parts have 8
             bits; reconstruction is that of the network at the widest width: ``quantized`` of the result

    Raises also ``ModelError`` for a model whose g_a or g_s is not a chain of modules, and ``BudgetError`` if the
    latency of the widths is to count and ``settings.latency`` is missing, or if they cannot cost as little as asked.
    """
    training, recipe = training.also(dynamic.to_mapping()), training.recipe
    chosen, resumed = recipe.starting(settings or Settings()), decided_before(training) is not None
    traced, statistics = calibrate(model, images, recipe.metric, on_progress)
    search = Search(traced, images, statistics, replace(chosen, max_bits=max(dynamic.widths)), on_progress=on_progress)
    cost = stage_cost(dynamic, search)
    statistics = stage_statistics(traced, statistics)
    crops = draw_crops(images, SELECTOR_CROPS, SELECTOR_SIDES[recipe.metric])
    measuring = partial(on_progress, "measuring stages")

    wide = insert_widest(traced, dynamic.widths[-1], statistics, chosen.quantizer)
    nested = partial(make_dynamic, wide, dynamic.widths, statistics, chosen.quantizer)
    if resumed:  # the saved state has all else that would be found
        network, typical_bits = nested(), dict[str, float]()
    else:
        fit(wide, images, "uniform", chosen, on_progress)
        network, typical_bits = centre_weights(nested, statistics, crops, recipe, dynamic, cost, measuring)
    task = dynamic_task(network, statistics, recipe, dynamic, cost, typical_bits)
    adaptive = task.model
    assert isinstance(adaptive, AdaptiveModel)
    photographs = [to_tensor(rgb) for rgb in evenly(images, MEASURED)]

    def fit_selectors(measured: Tensor) -> None:
        fit_to_losses(adaptive, measured, photographs, recipe, dynamic, cost, measuring)

    if not resumed:
        fit_selectors(crops[::_FIRST_EVERY])
    outcome = train_quantized(task, training)
    fit_selectors(crops)  # the weights have become others
    made = outcome.told(recipe, {**training.facts, "gamma": float(adaptive.price)})
    return Result(lowered_dynamic(adaptive, made, chosen.licence), wide, statistics), outcome


def stage_cost(dynamic: DynamicSettings, search: Search) -> StageCost:
    """What a width of a stage costs, by its name in the settings."""
    if dynamic.bit_cost == LAYERS:
        return layer_average
    costs, _ = search.costs(Budget(dynamic.bit_cost, 1.0))
    return cost_weighted(costs)


def lowered_dynamic(adaptive: AdaptiveModel, provenance: Mapping[str, Any], licence: str) -> Artifact:
    """The artifact of a dynamic network with its selectors."""
    adaptive.eval()
    program, dynamic = lower_dynamic(adaptive.network, adaptive.by_part)
    return artifact_of(adaptive.network.wide, program, dynamic, provenance, licence)
