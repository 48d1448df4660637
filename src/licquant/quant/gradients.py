"""Rounding with a gradient: floor(v + 1/2) forward, an estimator's slope backward.

Every place that rounds is handed its estimator, so that a network trained with one holds no trace of another.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from licquant.errors import TrainingError


class Estimator:
    """The straight-through estimator (Bengio 2013): rounding counts as the identity in the backward pass.

    Called with v, any shape: floor(v + 1/2), whose gradient is the incoming one times ``slope(v)``.
    is_identity: the slope is 1 everywhere, so that v need not be kept for the backward pass
    """

    is_identity = True

    def slope(self, v: Tensor) -> Tensor:
        """What stands for d round(v) / dv, shaped like v."""
        return torch.ones_like(v)

    def __call__(self, v: Tensor) -> Tensor:
        """floor(v + 1/2), differentiable."""
        rounded: Tensor = _Round.apply(v, self)
        return rounded


@dataclass(frozen=True)
class DistanceAware(Estimator):
    """Distance-aware gradient modulation (DynaQuant, equations 5 and 6): the nearer v lies to a decision boundary,
    the larger its gradient. With f = v - floor(v), so that 1/2 is the boundary between two integers:

        g(v)  = 1/2 · tanh(beta · (f - 1/2)) / tanh(beta / 2) + 1/2 + floor(v)
        g'(v) = beta · sech²(beta · (f - 1/2)) / (2 · tanh(beta / 2))

    g joins the integers, so g' is positive and has mean 1 over every cell: beta → 0 is the straight-through estimator,
    a large beta trains little but what lies beside a boundary. This is not equation 6 as printed,
    tanh(beta · f - 1/2) / tanh(1/2), which is continuous, and has its peak at the boundary, only for beta = 1.

    beta: > 0 and finite; else ``TrainingError``
    """

    is_identity = False
    beta: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.beta) and self.beta > 0):
            raise TrainingError(f"beta = {self.beta!r}: must be a finite number above 0")

    def proxy(self, v: Tensor) -> Tensor:
        """g(v): what rounding is taken for."""
        whole = torch.floor(v)
        return 0.5 * torch.tanh(self.beta * (v - whole - 0.5)) / math.tanh(self.beta / 2) + 0.5 + whole

    def slope(self, v: Tensor) -> Tensor:
        """g'(v)."""
        squashed = torch.sub(v, torch.floor(v)).sub_(0.5).mul_(self.beta).tanh_()
        return squashed.square_().neg_().add_(1).mul_(self.beta / (2 * math.tanh(self.beta / 2)))


straight_through = Estimator()
# The roundings that are the codec's own, of latents and pixels: no quantizer chooses their gradient.
round_half_up = straight_through


class _Round(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, v: Tensor, estimator: Estimator) -> Tensor:
        ctx.estimator = estimator
        ctx.save_for_backward(None if estimator.is_identity else v)
        return torch.add(v, 0.5).floor_()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (v,) = ctx.saved_tensors
        return gradients[0] if v is None else gradients[0] * ctx.estimator.slope(v), None
