"""What an allocation may choose from: the widths of every layer, each with the loss it costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Context, Decimal

from licquant.allocate.sensitivity import ACTIVATIONS, WEIGHTS, Sensitivity
from licquant.config import LayerBits, Plan


@dataclass(frozen=True)
class LayerChoices:
    """bits → ζ for the weights (empty for a product) and for the activations of one layer."""

    weights: Mapping[int, float]
    activations: Mapping[int, float]


@dataclass(frozen=True)
class Choices:
    """The candidates of every layer, in the order of the plan."""

    layers: Mapping[str, LayerChoices]

    @classmethod
    def of(
        cls, table: Sensitivity, lmbda: float, weight_bits: Sequence[int], activation_bits: Sequence[int]
    ) -> Choices:
        """All of these widths for every layer, with ζ for this λ."""

        def zeta(layer: str, kind: str, widths: Sequence[int]) -> dict[int, float]:
            known = table.widths(layer, kind)
            return {bits: table.zeta(layer, kind, bits, lmbda) for bits in sorted(widths) if bits in known}

        return cls(
            {
                layer: LayerChoices(zeta(layer, WEIGHTS, weight_bits), zeta(layer, ACTIVATIONS, activation_bits))
                for layer in table.layers
            }
        )

    def map(self, zeta: Callable[[str, str, int], float]) -> Choices:
        """The same widths with other losses: (layer, kind, bits) → ζ."""
        return Choices(
            {
                layer: LayerChoices(
                    {bits: zeta(layer, WEIGHTS, bits) for bits in of.weights},
                    {bits: zeta(layer, ACTIVATIONS, bits) for bits in of.activations},
                )
                for layer, of in self.layers.items()
            }
        )

    def loss(self, plan: Plan) -> float:
        """Σ ζ of a plan: the relative increase of the loss if layers did not interact."""
        return sum(
            (0.0 if bits.weight is None else self.layers[layer].weights[bits.weight])
            + self.layers[layer].activations[bits.activation]
            for layer, bits in plan.items()
        )

    @staticmethod
    def plan(widths: Mapping[str, tuple[int | None, int]]) -> Plan:
        """The plan of layer → (weight bits, None for a layer without weights; activation bits)."""
        return Plan({layer: LayerBits(weight, activation) for layer, (weight, activation) in widths.items()})


def rounded_up(value: float, digits: int) -> str:
    """A value for people, with so many significant digits, that can be met where it is given as a budget."""
    exact = Decimal(f"{value:.12g}")  # what lies beyond are errors of summation
    return f"{Context(digits, ROUND_CEILING).create_decimal(exact).normalize():,f}"
