"""Exponential moving average of the weights: what is exported, since it is better than any single step's."""

from collections.abc import Iterable

import torch
from torch import Tensor


class Average:
    """average ← d·average + (1 - d)·weights with d = min(decay, (1 + n)/(10 + n)) after n updates.

    The early, smaller d lets the average forget the initial weights, which matters for short runs.
    """

    def __init__(self, parameters: Iterable[Tensor], decay: float) -> None:
        self.parameters = list[Tensor](parameters)
        self.values = [parameter.detach().clone() for parameter in self.parameters]
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self) -> None:
        """Take in the parameters' present values."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(self.values, self.parameters, 1 - decay)
        self.updates += 1

    @torch.no_grad()
    def restore(self, values: Iterable[Tensor], updates: int) -> None:
        """Go on from saved values."""
        for mine, saved in zip(self.values, values, strict=True):
            mine.copy_(saved)
        self.updates = updates
