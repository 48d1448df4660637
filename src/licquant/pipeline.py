"""READ FIRST. The whole flow, one call a step: a trained FP32 model in, a quantized codec file out.

    model ──trace_model──> graphs ──collect_statistics──> ranges
        graphs + plan + ranges ──insert_quantizers──> quantized graph ──reconstruct──> the same, fitted
        quantized graph ──lower_model──> integer program ──+ coding tables──> Artifact ──save──> model.licq

From there ``licquant.load("model.licq")`` encodes and decodes without PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from licquant import __version__
from licquant.codec.artifact import Artifact
from licquant.config import Budget, Plan
from licquant.errors import BudgetError, ModelError
from licquant.images import RGB
from licquant.lower import hyperprior_tables, lower_model
from licquant.models.trace import TracedModel, trace_model
from licquant.quant.calibrate import collect_statistics
from licquant.quant.insert import QuantizerSettings, insert_quantizers
from licquant.quant.network import QuantizedModel, uniform_plan
from licquant.quant.reconstruct import reconstruct

METHODS = ("uniform",)

OnProgress = Callable[[str, int, int], None]  # what is being done, steps done, steps in all


@dataclass(frozen=True, eq=False)
class Result:
    """A finished quantization.

    artifact:  save it with ``artifact.save("model.licq")``
    quantized: the simulated network it was lowered from
    """

    artifact: Artifact
    quantized: QuantizedModel

    @property
    def plan(self) -> Plan:
        return self.quantized.plan


@dataclass(frozen=True)
class Settings:
    """Everything about a quantization but the model, the images and the budget.

    activation_bits:      width of every activation, 2..16
    quantizer:            how activation ranges are chosen
    reconstruction_steps: of post-training reconstruction; 0 rounds every weight to nearest instead
    lmbda:                of the loss that reconstruction minimises, the λ that the model was trained with
    """

    activation_bits: int = 8
    quantizer: QuantizerSettings = field(default_factory=QuantizerSettings)
    reconstruction_steps: int = 0
    lmbda: float | None = None


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

    model:  a CompressAI scale hyperprior model, or one with the same parts, trained, in eval mode
    images: calibration images, uint8 H×W×3; 16 to 64 photographs will do
    budget: ``Budget("bits", b)`` for ``uniform``: weights of b bits everywhere; 8 by default

    Raises ``ModelError`` for an unsupported model, ``DataError`` for unusable images, ``BudgetError`` for a
    budget that the method does not take.
    """
    chosen = settings or Settings()
    if chosen.reconstruction_steps and not chosen.lmbda:
        raise ModelError("reconstruction needs the λ that the model was trained with; 0 steps need none")
    traced = trace_model(model)
    plan = make_plan(traced, method, budget or Budget("bits", 8), chosen)
    count = 2 * len(images)
    done = iter(range(1, count + 1))
    statistics = collect_statistics(traced, images, lambda: on_progress("calibrating", next(done), count))
    quantized = insert_quantizers(traced, plan, statistics, chosen.quantizer)
    steps = chosen.reconstruction_steps
    if steps and chosen.lmbda:
        reconstruct(quantized, images, chosen.lmbda, steps, lambda done: on_progress("reconstructing", done, steps))
    on_progress("lowering", 0, 1)
    artifact = Artifact(
        family=traced.family,
        program=lower_model(quantized),
        tables=hyperprior_tables(traced),
        plan=plan,
        provenance={**(provenance or {}), "licquant": __version__, "fp32_bytes": traced.fp32_bytes},
    )
    on_progress("lowering", 1, 1)
    return Result(artifact, quantized)


def make_plan(traced: TracedModel, method: str, budget: Budget, settings: Settings) -> Plan:
    """The widths of every layer that the method gives under the budget."""
    if method not in METHODS:
        raise BudgetError(f"unknown method {method!r}: choose one of {', '.join(METHODS)}")
    if budget.kind != "bits" or budget.value != int(budget.value):
        raise BudgetError("the method uniform takes a budget of whole bits, for instance bits=8")
    return uniform_plan(traced, int(budget.value), settings.activation_bits)
