"""Everything about a quantization but the model, the images and the budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from licquant.config import LayerBits, Plan, check_lmbda
from licquant.errors import ModelError
from licquant.evaluate.latency import LatencyTable
from licquant.evaluate.rd import DISTORTION_WEIGHTS, MSE, check_loss
from licquant.quant.insert import QuantizerSettings
from licquant.quant.ranges import min_max


@dataclass(frozen=True)
class Settings:
    """How a model is quantized.

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
    spread:               who measures the table of ``allocate.sensitivity``, as it declares it; None: this process
    licence:              of the weights, as their owner states it; stored in the artifact

    Raises ``PlanError`` for widths, ``ModelError`` for steps or a λ that cannot be.
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
    spread: Callable[..., Any] | None = None
    licence: str = "not stated"

    def __post_init__(self) -> None:
        LayerBits(self.max_bits, self.activation_bits)
        if self.reconstruction_steps < 0:
            raise ModelError(f"{self.reconstruction_steps} steps of reconstruction: must not be negative")
        if self.metric not in DISTORTION_WEIGHTS:
            raise ModelError(f"unknown metric {self.metric!r}: choose one of {', '.join(DISTORTION_WEIGHTS)}")
        if self.lmbda is not None:
            check_loss(check_lmbda(self.lmbda), self.metric)

    def of_method(self, method: str) -> Settings:
        """RAQ's ranges are the extremes, and it learns nothing: that is what the method is."""
        if method != "raq":
            return self
        return replace(self, quantizer=replace(self.quantizer, range_method=min_max), reconstruction_steps=0)
