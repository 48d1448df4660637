"""READ FIRST. The whole flow, one call a step: a trained FP32 model in, a quantized codec file out.

    model ──trace_model──> graphs ──collect_statistics──> ranges
        graphs + ranges + budget ──allocate──> plan: the widths of every layer
        graphs + plan + ranges ──insert_quantizers──> quantized graph ──reconstruct──> the same, fitted
        [finetune: the same through its simulation ──steps──> trained grids and weights;
         finetune_dynamic: every stage in several widths, and selectors of them, too]
    quantized graph ──lower_model──> integer program ──+ coding tables──> Artifact ──save──> model.licq

From there ``licquant.load("model.licq")`` encodes and decodes without PyTorch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from lightning.fabric import Fabric
from torch import Tensor, nn

from licquant import __version__
from licquant.allocate.candidates import widths_in_use
from licquant.allocate.dynamic_objective import (
    AdaptiveModel,
    StageCost,
    cost_weighted,
    dynamic_task,
    layer_average,
    sampling_steps,
)
from licquant.allocate.dynamic_settings import LAYERS, DynamicSettings
from licquant.allocate.file_budget import FileSize, check_fixed, make_within
from licquant.allocate.methods import METHODS
from licquant.allocate.search import Search
from licquant.allocate.selector_fit import SELECTOR_CROPS, SELECTOR_SIDE, fit_to_losses
from licquant.allocate.sensitivity import Sensitivity, draw_crops
from licquant.allocate.shared_weights import centre_weights
from licquant.codec.artifact import Artifact
from licquant.config import Budget, LayerBits, Plan, check_lmbda
from licquant.errors import BudgetError, ModelError
from licquant.evaluate.latency import LatencyTable
from licquant.evaluate.rd import DISTORTION_WEIGHTS, MSE, check_loss
from licquant.images import RGB
from licquant.lower import latent_tables, lower_model
from licquant.lower.dynamic import lower_dynamic
from licquant.models.trace import TracedModel, trace_model
from licquant.program.dynamic import DynamicPart
from licquant.program.part import Program
from licquant.quant.calibrate import Statistics, collect_statistics, evenly, to_tensor
from licquant.quant.dynamic import DynamicModel, insert_widest, make_dynamic
from licquant.quant.finetune import Outcome, Refit, decided_before, static_task
from licquant.quant.finetune import finetune as train_quantized
from licquant.quant.finetune_settings import FinetuneRecipe
from licquant.quant.insert import QuantizerSettings, insert_quantizers
from licquant.quant.network import QuantizedModel
from licquant.quant.ranges import min_max
from licquant.quant.rdo_ptq import all_blocks, rdo_ptq
from licquant.quant.reconstruct import reconstruct
from licquant.quant.stages import Candidates, same_candidates, stage_statistics
from licquant.train.command import make_fabric
from licquant.train.progress import COMPLETE, Clock
from licquant.train.resume import identity
from licquant.train.settings import STATE, RunOptions

__all__ = ["METHODS", "Outcome", "Result", "Settings", "finetune", "finetune_dynamic", "quantize"]

OnProgress = Callable[[str, int, int], None]  # what is being done, steps done, steps in all
_MEASURED = 64  # images that ranges are measured on: more show no larger values that matter
# Reconstruction and training hardly ever make weights compress worse by more than this.
_MARGIN, _TRAINED_MARGIN = 0.005, 0.01


@dataclass(frozen=True, eq=False)
class Result:
    """A finished quantization.

    artifact:    save it with ``artifact.save("model.licq")``
    quantized:   the simulated network it was lowered from
    statistics:  of the float network on the calibration images, which its ranges were chosen from
    sensitivity: the table that its widths were chosen from; None for a method that looks at none
    size:        of the file, beside its budget; None under a budget of another kind
    """

    artifact: Artifact
    quantized: QuantizedModel
    statistics: Statistics
    sensitivity: Sensitivity | None = None
    size: FileSize | None = None

    @property
    def plan(self) -> Plan:
        return self.quantized.plan


@dataclass(frozen=True)
class Settings:
    """Everything about a quantization but the model, the images and the budget.

    activation_bits:      width of every activation, 2..16, the widest where the budget chooses them too
    max_bits:             widest weights that a search considers, 2..16
    quantizer:            how activation ranges are chosen
    reconstruction_steps: of post-training reconstruction; 0 rounds every weight to nearest instead
    lmbda:                of the loss to minimise, the λ that the model was trained with
    metric:               of its distortion, what the model was trained for: ``mse`` or ``ms-ssim``
    plan:                 widths to use instead of a method's
    cache:                folder for measured tables, which the next quantization of the same model finds there;
                          None: they are not kept
    latency:              the table of this machine that ``latency=`` budgets are counted with
    licence:              of the weights, as their owner states it; stored in the artifact
    """

    activation_bits: int = 8
    max_bits: int = 8
    quantizer: QuantizerSettings = field(default_factory=QuantizerSettings)
    reconstruction_steps: int = 0
    lmbda: float | None = None
    metric: str = MSE
    plan: Plan | None = None
    cache: Path | None = None
    latency: LatencyTable | None = None
    licence: str = "not stated"

    def __post_init__(self) -> None:
        """``PlanError`` for widths, ``ModelError`` for steps or a λ that cannot be."""
        LayerBits(self.max_bits, self.activation_bits)
        if self.reconstruction_steps < 0:
            raise ModelError(f"{self.reconstruction_steps} steps of reconstruction: must not be negative")
        if self.metric not in DISTORTION_WEIGHTS:
            raise ModelError(f"unknown metric {self.metric!r}: choose one of {', '.join(DISTORTION_WEIGHTS)}")
        if self.lmbda is not None:
            check_loss(check_lmbda(self.lmbda), self.metric)


def quantize(
    model: nn.Module,
    images: Sequence[RGB],
    method: str = "uniform",
    budget: Budget | None = None,
    settings: Settings | None = None,
    provenance: Mapping[str, Any] | None = None,
    on_progress: OnProgress = lambda *_: None,
) -> Result:
    """Quantize a trained model after training.

    model:  a CompressAI model of a supported family, or one with the same parts, trained, in eval mode
    images: calibration images, uint8 H×W×3; 16 to 64 photographs will do, reconstruction gains from hundreds
    method: who chooses the widths, see ``allocate/methods.py``
    budget: what they may cost, see ``config.Budget``; ``Budget("bits", 8)`` by default

    Raises ``ModelError`` for an unsupported model, ``DataError`` for unusable images, ``BudgetError`` for a
    budget that cannot be met, ``PlanError`` for a plan that does not fit the model.
    """
    chosen, budget = settings or Settings(), budget or Budget("bits", 8)
    if chosen.reconstruction_steps and not chosen.lmbda:
        raise ModelError("reconstruction needs the λ that the model was trained with; 0 steps need none")
    chosen = _of_method(method, chosen)
    search = _search(model, images, method, chosen, provenance or {}, on_progress)

    def make(plan: Plan) -> Result:
        quantized = insert_quantizers(search.traced, plan, search.statistics, chosen.quantizer)
        _fit(quantized, images, method, chosen, on_progress)
        on_progress("lowering", 0, 1)
        artifact = search.to_artifact(quantized)
        on_progress("lowering", 1, 1)
        return Result(artifact, quantized, search.statistics)

    margin = _MARGIN if chosen.reconstruction_steps else 0.0
    if chosen.plan:
        check_fixed(search, chosen.plan, budget, margin)
    result, size = make_within(search, method, budget, make, margin, chosen.plan, lambda _: chosen.plan is None)
    return replace(result, sensitivity=search.measured_table, size=size)


def finetune(
    model: nn.Module,
    images: Sequence[RGB],
    recipe: FinetuneRecipe,
    options: RunOptions,
    method: str = "uniform",
    budget: Budget | None = None,
    settings: Settings | None = None,
    provenance: Mapping[str, Any] | None = None,
    on_progress: OnProgress = lambda *_: None,
    fabric: Fabric | None = None,
) -> tuple[Result, Outcome]:
    """Quantize a trained model, then train the quantized one: as ``quantize``, with further

    recipe:     how it is trained, and with which quantizer;  options: on which images, for how long, on what
    provenance: also decides whether a saved run may be resumed, whose widths are then used again
    fabric:     launched already, ``train.command.make_fabric(options)``

    Raises also ``TrainingError`` for all that keeps the training from starting or going on.
    """
    facts = dict(provenance or {})
    mine, chosen = identity(recipe, options, **facts), _of_method(method, _starting(recipe, settings or Settings()))
    decided = decided_before(options, mine)
    first = chosen.plan if decided is None else Plan.from_json(decided)
    fabric, budget = fabric or make_fabric(options), budget or Budget("bits", 8)
    clock, known = Clock(options.max_minutes), {**recipe.to_mapping(), **facts}
    search = _search(model, images, method, chosen, known, on_progress)

    def make(plan: Plan) -> _Finetuned:
        quantized = insert_quantizers(search.traced, plan, search.statistics, chosen.quantizer)
        if plan.to_json() != decided:  # the state that is resumed replaces what reconstruction would learn
            _fit(quantized, images, method, chosen, on_progress)
        task = static_task(quantized, search.statistics, recipe)
        outcome = train_quantized(task, recipe, options, mine, fabric, clock=clock)
        return _Finetuned(lowered(quantized, _made(recipe, facts, outcome), chosen.licence), quantized, outcome)

    def once_more(made: _Finetuned) -> bool:
        again = chosen.plan is None and made.outcome.status == COMPLETE
        if again:  # from the start, with a smaller plan
            _forget_state(options, fabric)
        return again

    margin = _TRAINED_MARGIN
    if chosen.plan and decided is None:
        check_fixed(search, chosen.plan, budget, margin)
    made, size = make_within(search, method, budget, make, margin, first, once_more)
    result = Result(made.artifact, made.quantized, search.statistics, search.measured_table, size)
    return result, made.outcome


@dataclass(frozen=True, eq=False)
class _Finetuned:
    artifact: Artifact
    quantized: QuantizedModel
    outcome: Outcome


def _forget_state(options: RunOptions, fabric: Fabric) -> None:
    if fabric.is_global_zero:
        options.companion(STATE).unlink(missing_ok=True)
    fabric.barrier()


def finetune_dynamic(
    model: nn.Module,
    images: Sequence[RGB],
    recipe: FinetuneRecipe,
    options: RunOptions,
    dynamic: DynamicSettings,
    settings: Settings | None = None,
    provenance: Mapping[str, Any] | None = None,
    on_progress: OnProgress = lambda *_: None,
    fabric: Fabric | None = None,
) -> tuple[Result, Outcome]:
    """Train a model whose widths are chosen for every image, together with what chooses them: as ``finetune``, but

    dynamic: the candidates, and what bits cost or how many there may be; stages about which the images agree keep one.
             The first stages and all other parts have 8 bits; reconstruction is that of the network at the widest
             widths in use: ``quantized`` of the result

    Raises also ``ModelError`` for a model whose g_a or g_s is not a chain of modules, and ``BudgetError`` if the
    latency of the widths is to count and ``settings.latency`` is missing, or if they cannot cost as little as asked.
    """
    facts = dict(provenance or {}) | dynamic.to_mapping()
    mine, chosen = identity(recipe, options, **facts), _starting(recipe, settings or Settings())
    decided = decided_before(options, mine)
    fabric = fabric or make_fabric(options)
    traced, statistics = _calibrated(model, images, recipe.metric, on_progress)
    cost = _stage_cost(dynamic, traced, statistics, images, chosen, on_progress)
    statistics = stage_statistics(traced, statistics)
    crops, measuring = draw_crops(images, SELECTOR_CROPS, SELECTOR_SIDE), partial(on_progress, "measuring stages")

    def quantized_for(candidates: Candidates) -> QuantizedModel:
        return insert_widest(traced, candidates, statistics, chosen.quantizer)

    def centred(wide: QuantizedModel, candidates: Candidates) -> tuple[DynamicModel, dict[str, Tensor]]:
        nested = partial(make_dynamic, wide, candidates, statistics, chosen.quantizer)
        return centre_weights(nested, statistics, crops, recipe, dynamic, cost, measuring)

    if decided is not None:  # the saved state has all else that would be found
        candidates = {stage: tuple(widths) for stage, widths in decided.items()}
        wide, typical_bits = quantized_for(candidates), {}
        network = make_dynamic(wide, candidates, statistics, chosen.quantizer)
    else:
        candidates = same_candidates(traced, dynamic.widths)
        candidates = widths_in_use(*centred(quantized_for(candidates), candidates), dynamic, cost)
        wide = quantized_for(candidates)
        _fit(wide, images, "uniform", chosen, on_progress)
        network, wanted = centred(wide, candidates)
        typical_bits = {stage: float(widths.mean()) for stage, widths in wanted.items()}
    task = dynamic_task(network, statistics, recipe, dynamic, cost, typical_bits)
    adaptive = task.model
    assert isinstance(adaptive, AdaptiveModel)
    photographs = [to_tensor(rgb) for rgb in evenly(images, _MEASURED)]
    fit = partial(fit_to_losses, adaptive, crops, photographs, recipe, dynamic, cost, measuring)
    if decided is None:
        fit()
    task = replace(task, refit=Refit(sampling_steps(recipe), fit, list(adaptive.selectors.parameters())))
    outcome = train_quantized(task, recipe, options, mine, fabric)
    fit()
    made = _made(recipe, facts | {"gamma": float(adaptive.price)}, outcome)
    return Result(lowered_dynamic(adaptive, made, chosen.licence), wide, statistics), outcome


def _of_method(method: str, settings: Settings) -> Settings:
    """RAQ's ranges are the extremes, and it learns nothing: that is what the method is."""
    if method != "raq":
        return settings
    return replace(settings, quantizer=replace(settings.quantizer, range_method=min_max), reconstruction_steps=0)


def _search(
    model: nn.Module,
    images: Sequence[RGB],
    method: str,
    settings: Settings,
    provenance: Mapping[str, Any],
    on_progress: OnProgress,
) -> Search:
    """What an allocation may need to know of the model, calibrated; ``BudgetError`` for an unknown method."""
    if method not in METHODS:
        raise BudgetError(f"unknown method {method!r}: choose one of {', '.join(METHODS)}")
    traced, statistics = _calibrated(model, images, settings.metric, on_progress)

    def fit(quantized: QuantizedModel, photographs: Sequence[RGB]) -> None:
        _fit(quantized, photographs, method, settings, on_progress)

    return Search(
        traced, images, statistics, settings.quantizer, settings.lmbda, settings.activation_bits, settings.max_bits,
        lambda quantized: lowered(quantized, provenance, settings.licence), settings.cache, settings.latency, fit,
        on_progress, _header_bytes(provenance, settings.licence),
    )  # fmt: skip


def _calibrated(
    model: nn.Module, images: Sequence[RGB], metric: str, on_progress: OnProgress
) -> tuple[TracedModel, Statistics]:
    traced, photographs = trace_model(model, metric), evenly(images, _MEASURED)
    count = 2 * len(photographs)
    done = iter(range(1, count + 1))
    return traced, collect_statistics(traced, photographs, lambda: on_progress("calibrating", next(done), count))


def _starting(recipe: FinetuneRecipe, settings: Settings) -> Settings:
    """How the network is quantized that a finetuning starts from."""
    grids = replace(
        settings.quantizer, per_channel=recipe.grids.per_channel, free_zero_points=recipe.grids.free_zero_points
    )
    return replace(settings, quantizer=grids, lmbda=recipe.lmbda, metric=recipe.metric)


def _made(recipe: FinetuneRecipe, facts: Mapping[str, Any], outcome: Outcome) -> dict[str, Any]:
    """What the artifact says of its making."""
    return {**recipe.to_mapping(), **facts, "steps": outcome.steps}


def _stage_cost(
    dynamic: DynamicSettings,
    traced: TracedModel,
    statistics: Statistics,
    images: Sequence[RGB],
    settings: Settings,
    on_progress: OnProgress,
) -> StageCost:
    """What a width of a stage costs, by its name in the settings."""
    if dynamic.bit_cost == LAYERS:
        return layer_average
    search = Search(
        traced, images, statistics, settings.quantizer, settings.lmbda, settings.activation_bits,
        max(dynamic.widths), lambda quantized: lowered(quantized, {}, settings.licence), settings.cache,
        settings.latency, on_progress=on_progress, header_bytes=_header_bytes({}, settings.licence),
    )  # fmt: skip
    costs, _ = search.costs(Budget(dynamic.bit_cost, 1.0))
    return cost_weighted(costs)


def lowered(quantized: QuantizedModel, provenance: Mapping[str, Any], licence: str) -> Artifact:
    """The artifact of a quantized model, with what it says of its making."""
    return _artifact(quantized, lower_model(quantized), {}, provenance, licence)


def _header_bytes(provenance: Mapping[str, Any], licence: str) -> int:
    """What these take of an artifact's header."""
    text = json.dumps([dict(provenance), licence], separators=(",", ":"), ensure_ascii=False)
    return len(text.encode(errors="backslashreplace"))  # names that are not UTF-8


def lowered_dynamic(adaptive: AdaptiveModel, provenance: Mapping[str, Any], licence: str) -> Artifact:
    """The artifact of a dynamic network with its selectors."""
    adaptive.eval()
    program, dynamic = lower_dynamic(adaptive.network, adaptive.by_part)
    return _artifact(adaptive.network.wide, program, dynamic, provenance, licence)


def _artifact(
    quantized: QuantizedModel,
    program: Program,
    dynamic: Mapping[str, DynamicPart],
    provenance: Mapping[str, Any],
    licence: str,
) -> Artifact:
    traced = quantized.traced
    facts = {**provenance, "licquant": __version__, "fp32_bytes": traced.fp32_bytes}
    return Artifact(traced.family, program, latent_tables(traced), quantized.plan, facts, licence, dynamic)


def _fit(
    quantized: QuantizedModel, images: Sequence[RGB], method: str, settings: Settings, on_progress: OnProgress
) -> None:
    """Learn what rounding to nearest gets wrong."""
    steps = settings.reconstruction_steps
    if not steps or not settings.lmbda:
        return
    if method == "rdo-ptq":  # as many steps, one block after another
        blocks = len(all_blocks(quantized))
        per_block = max(1, steps // blocks)
        total = per_block * blocks
        rdo_ptq(quantized, images, settings.lmbda, per_block, lambda done: on_progress("reconstructing", done, total))
    else:
        reconstruct(quantized, images, settings.lmbda, steps, lambda done: on_progress("reconstructing", done, steps))
