"""READ FIRST. The whole flow, one call a step: a trained FP32 model in, a quantized codec file out.

    model ──trace_model──> graphs ──collect_statistics──> ranges                       (``calibrate``)
        graphs + ranges + budget ──allocate──> plan: the widths of every layer         (``make_within``)
        graphs + plan + ranges ──insert_quantizers──> quantized graph ──fit──> the same, fitted
        [finetune: the same through its simulation ──steps──> trained grids and weights]
    quantized graph ──lower_to_artifact──> integer program + coding tables ──save──> model.licq

From there ``licquant.load("model.licq")`` encodes and decodes without PyTorch. Widths that depend on the image are
trained by ``dynamic.finetune.finetune_dynamic``, the same steps with selectors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from licquant.allocate.costs import run_cost
from licquant.allocate.file_budget import check_fixed, make_within
from licquant.allocate.methods import METHODS, check_method
from licquant.allocate.result import Result
from licquant.allocate.search import Search
from licquant.config import Budget, OnProgress, Plan, silent
from licquant.errors import ModelError
from licquant.images import RGB
from licquant.lower import lower_to_artifact
from licquant.models.trace import trace_model
from licquant.quant.after_training.fit import fit
from licquant.quant.calibrate import Calibrated, calibrate
from licquant.quant.in_training.finetune import Finetuned, Outcome, decided_before, forget_state, static_task
from licquant.quant.in_training.finetune import finetune as train_quantized
from licquant.quant.in_training.finetune_settings import Training
from licquant.quant.insert import QuantizerSettings, insert_quantizers
from licquant.quant.network import layer_names
from licquant.quant.settings import Settings
from licquant.train.process import kept_threads
from licquant.train.progress import COMPLETE, Clock

__all__ = ["METHODS", "Outcome", "QuantizerSettings", "Result", "Settings", "Training", "finetune", "quantize"]

# Reconstruction and training hardly ever make weights compress worse by more than this.
_MARGIN, _TRAINED_MARGIN = 0.005, 0.01


def quantize(
    model: nn.Module | Calibrated,
    images: Sequence[RGB],
    method: str = "uniform",
    budget: Budget | None = None,
    settings: Settings | None = None,
    provenance: Mapping[str, Any] | None = None,
    on_progress: OnProgress = silent,
) -> Result:
    """Quantize a trained model after training.

    model:  a CompressAI model of a supported family, or one with the same parts, trained, in eval mode; or what
            ``calibrate`` made of it with these images
    images: calibration images, uint8 H×W×3; 16 to 64 photographs will do, reconstruction gains from hundreds
    method: who chooses the widths, see ``allocate/methods.py``
    budget: what they may cost, see ``config.Budget``; ``Budget("bits", 8)`` by default

    Raises ``ModelError`` for an unsupported model, ``DataError`` for unusable images, ``BudgetError`` for a
    budget that cannot be met, ``PlanError`` for a plan that does not fit the model.
    """
    chosen, budget = (settings or Settings()).of_method(check_method(method)), budget or Budget("bits", 8)
    if chosen.reconstruction_steps and not chosen.lmbda:
        raise ModelError("reconstruction needs the λ that the model was trained with; 0 steps need none")
    check_asked(model, budget, chosen)
    traced, statistics = calibrate(model, images, chosen.metric, on_progress)
    search = Search(traced, images, statistics, chosen, method, provenance or {}, on_progress)

    def make(plan: Plan) -> Result:
        quantized = insert_quantizers(traced, plan, statistics, chosen.quantizer)
        fit(quantized, images, method, chosen, on_progress)
        on_progress("lowering", 0, 1)
        artifact = lower_to_artifact(quantized, provenance or {}, chosen.licence)
        on_progress("lowering", 1, 1)
        return Result(artifact, quantized, statistics)

    margin = _MARGIN if chosen.reconstruction_steps else 0.0
    if chosen.plan:
        check_fixed(search, chosen.plan, budget, margin)
    result, size = make_within(search, method, budget, make, margin, chosen.plan, lambda _: chosen.plan is None)
    return replace(result, sensitivity=search.measured_table, size=size)


@kept_threads()
def finetune(
    model: nn.Module | Calibrated,
    images: Sequence[RGB],
    training: Training,
    method: str = "uniform",
    budget: Budget | None = None,
    settings: Settings | None = None,
    on_progress: OnProgress = silent,
) -> tuple[Result, Outcome]:
    """Quantize a trained model, then train the quantized one: as ``quantize``, with further

    training: recipe and options, and in place of the provenance its facts; they also decide whether a saved run may
              be resumed, whose widths are then used again

    Raises also ``TrainingError`` for all that keeps the training from starting or going on.
    """
    recipe, facts, clock = training.recipe, dict(training.facts), Clock(training.options.max_minutes)
    chosen = recipe.starting(settings or Settings()).of_method(check_method(method))
    decided, budget = decided_before(training), budget or Budget("bits", 8)
    first = chosen.plan if decided is None else Plan.from_json(decided)
    check_asked(model, budget, replace(chosen, plan=first))
    traced, statistics = calibrate(model, images, chosen.metric, on_progress)
    search = Search(traced, images, statistics, chosen, method, recipe.to_mapping() | facts, on_progress)

    def make(plan: Plan) -> Finetuned:
        quantized = insert_quantizers(traced, plan, statistics, chosen.quantizer)
        if plan.to_json() != decided:  # the state that is resumed replaces what reconstruction would learn
            fit(quantized, images, method, chosen, on_progress)
        task = static_task(quantized, statistics, recipe)
        outcome = train_quantized(task, training, clock)
        artifact = lower_to_artifact(quantized, outcome.told(recipe, facts), chosen.licence)
        return Finetuned(artifact, quantized, outcome)

    def once_more(made: Finetuned) -> bool:
        again = chosen.plan is None and made.outcome.status == COMPLETE
        if again:  # from the start, with a smaller plan
            forget_state(training)
        return again

    if chosen.plan and decided is None:
        check_fixed(search, chosen.plan, budget, _TRAINED_MARGIN)
    made, size = make_within(search, method, budget, make, _TRAINED_MARGIN, first, once_more)
    return Result(made.artifact, made.quantized, statistics, search.measured_table, size), made.outcome


def check_asked(model: nn.Module | Calibrated, budget: Budget, settings: Settings) -> None:
    """Whether what is asked for fits the model, before minutes of calibration.

    Raises ``PlanError`` for a plan of another model; of a budget of latency ``BudgetError`` without a table of it,
    ``ModelError`` for the table of another model, ``DataError`` for that of another machine.
    """
    if settings.plan is None and budget.kind != "latency":
        return
    traced = model.traced if isinstance(model, Calibrated) else trace_model(model)
    if budget.kind == "latency":
        run_cost(traced, budget.kind, settings.latency)
    if settings.plan is not None:
        settings.plan.check(layer_names(traced))
