"""What an allocation may choose from: the widths of every layer, each with the loss it costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Context, Decimal
from itertools import pairwise

from licquant.allocate.costs import Widths
from licquant.allocate.sensitivity import ACTIVATIONS, WEIGHTS, Sensitivity
from licquant.config import LayerBits, Plan

_RATIO = 0.25  # of the error's power with a bit more


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
        """All of these widths for every layer, with ζ for this λ; 0 for the only one that activations may have.

        That is in every plan, and so tells none from another: ``Search`` does not have it measured.
        """

        def zeta(layer: str, kind: str, widths: Sequence[int]) -> dict[int, float]:
            if kind == ACTIVATIONS and len(widths) == 1:
                return dict.fromkeys(widths, 0.0)
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

    def only(self, widths: Mapping[str, Widths]) -> Choices:
        """Those alone of each layer's."""
        return Choices(
            {
                layer: LayerChoices(
                    {bits: zeta for bits, zeta in of.weights.items() if bits in widths[layer].weights},
                    {bits: zeta for bits, zeta in of.activations.items() if bits in widths[layer].activations},
                )
                for layer, of in self.layers.items()
            }
        )

    def believable(self) -> Choices:
        """The same widths with what each can be expected to cost, where ζ is a mean over few crops.

        Roundings of the latents fall one way or the other, so that the ζ of what costs nothing is as often below 0 as
        above, and the least sum of many such would be one of the luckiest. Noise shows where quantizing seems to
        improve a model, or a wider width to cost more: the largest of these, of a width and all wider ones, is what
        its ζ must exceed. From the first width on that does not, a bit more costs a quarter, as the power of the
        error does.
        """
        return Choices(
            {
                layer: LayerChoices(_believable(of.weights), _believable(of.activations))
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


def _believable(zeta: Mapping[int, float]) -> dict[int, float]:
    found: dict[int, float] = {}
    widths, stands_out = sorted(zeta), True
    for index, bits in enumerate(widths):
        values = [zeta[wider] for wider in widths[index:]]
        noise = max(0.0, -min(values), *(after - before for before, after in pairwise(values)))
        stands_out = stands_out and zeta[bits] > noise
        if not found:
            found[bits] = zeta[bits] if stands_out else noise
            continue
        last = widths[index - 1]
        found[bits] = min(zeta[bits], found[last]) if stands_out else found[last] * _RATIO ** (bits - last)
    return found


def rounded_up(value: float, digits: int) -> str:
    """A value for people, with so many significant digits, that can be met where it is given as a budget."""
    exact = Decimal(f"{value:.12g}")  # what lies beyond are errors of summation
    return f"{Context(digits, ROUND_CEILING).create_decimal(exact).normalize():,f}"
