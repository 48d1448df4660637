"""Rounding with a gradient."""

from typing import Any

import torch
from torch import Tensor


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.floor(x + 0.5)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


def round_half_up(x: Tensor) -> Tensor:
    """floor(x + 1/2); its gradient is passed straight through (Bengio 2013), as if it were the identity."""
    return _StraightThrough.apply(x)
