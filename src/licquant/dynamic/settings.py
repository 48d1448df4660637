"""What the training of a dynamic network is told beside its recipe."""

import math
from dataclasses import dataclass
from typing import Any

from licquant.dynamic.stages import check_widths
from licquant.errors import TrainingError

LAYERS, LATENCY = "layers", "latency"
BIT_COSTS = (LAYERS, "bytes", "bops", LATENCY)


@dataclass(frozen=True)
class DynamicSettings:
    """What a dynamic network is trained for; decides its result together with the recipe.

    widths:   the candidates of every stage but the first of g_a and g_s: at least two different ones from 2 to 16
    gamma:    γ, what a bit of the average width may cost: of the loss R + λ·D, per bit; finite, not negative
    average_bits: instead of γ, the average to reach: a γ for it is measured, and bits cost nothing below it; between
        the narrowest and the widest; default: the mean of the widths
    bit_cost: what the average counts: ``layers`` alike, or their ``bytes``, ``bops`` or ``latency``

    Raises ``ModelError`` for widths and ``TrainingError`` for all else that cannot be used.
    """

    widths: tuple[int, ...]
    gamma: float | None = None
    average_bits: float | None = None
    bit_cost: str = LAYERS

    def __post_init__(self) -> None:
        check_widths(self.widths)
        object.__setattr__(self, "widths", tuple(sorted(set(self.widths))))
        if self.gamma is not None and self.average_bits is not None:
            raise TrainingError("gamma and average_bits: give one of them")
        if self.gamma is not None and not (math.isfinite(self.gamma) and self.gamma >= 0):
            raise TrainingError(f"gamma = {self.gamma!r}: must be a finite number, not negative")
        if self.average_bits is not None and not self.widths[0] <= self.average_bits <= self.widths[-1]:
            raise TrainingError(f"average_bits = {self.average_bits!r}: must lie among the widths")
        if self.bit_cost not in BIT_COSTS:
            raise TrainingError(f"bit_cost = {self.bit_cost!r}: choose one of {', '.join(BIT_COSTS)}")

    @property
    def target(self) -> float | None:
        """The average to reach; None where a price is given instead."""
        if self.gamma is not None:
            return None
        return sum(self.widths) / len(self.widths) if self.average_bits is None else self.average_bits

    def to_mapping(self) -> dict[str, Any]:
        """As in JSON."""
        return {
            "widths": list(self.widths),
            "gamma": self.gamma,
            "average_bits": self.average_bits,
            "bit_cost": self.bit_cost,
        }
