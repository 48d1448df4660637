"""What the widths of a plan cost, in the unit of each budget: additive over the layers, plus a constant.

bits      weight_bits_cost    average bits per weight, weighted by how many a layer has
bytes     file_bytes_cost     of the artifact: weights as they are entropy-coded, with all that stands beside them
bops      bops_cost           bit operations per pixel: MACs · weight bits · activation bits
latency   latency_cost        milliseconds of one encode and one decode, from a measured table
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from licquant.codec.files.artifact import Artifact
from licquant.codec.files.contents import layer_contents
from licquant.config import MAX_BITS, MIN_BITS, Plan
from licquant.errors import BudgetError, PlanError
from licquant.evaluate.latency import LatencyTable
from licquant.models.geometry import geometry_hash, layer_geometry
from licquant.models.trace import TracedModel
from licquant.program.arithmetic import Floats
from licquant.quant.calibrate import Statistics
from licquant.quant.insert import QuantizerSettings, insert_quantizers
from licquant.quant.network import QuantizedModel, layer_names, uniform_plan

WIDTHS = range(MIN_BITS, MAX_BITS + 1)
ToArtifact = Callable[[QuantizedModel], Artifact]


class Widths(NamedTuple):
    """Those that one layer may have."""

    weights: tuple[int, ...]
    activations: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Costs:
    """Cost of a plan = ``constant`` + Σ over the layers of ``of(layer, weight bits, activation bits)``.

    unit:  of all numbers here;  constant: what does not depend on the plan
    table: layer → float64 [15, 15], by weight bits - 2 and activation bits - 2; NaN where nothing is known
    """

    unit: str
    table: Mapping[str, Floats]
    constant: float = 0.0

    @property
    def layers(self) -> list[str]:
        """The layers of the plan, in order."""
        return list(self.table)

    def of(self, layer: str, weight_bits: int | None, activation_bits: int) -> float:
        """The layer's share; ``weight_bits`` is None for products. ``PlanError`` for widths that have no cost."""
        if layer not in self.table:
            raise PlanError(f"no cost is known for the layer {layer}")
        bits = (MIN_BITS if weight_bits is None else weight_bits, activation_bits)
        cost = float(self.table[layer][bits[0] - MIN_BITS, bits[1] - MIN_BITS]) if set(bits) <= set(WIDTHS) else np.nan
        if np.isnan(cost):
            raise PlanError(
                f"no cost is known for {layer} with {weight_bits}-bit weights and {activation_bits}-bit input"
            )
        return cost

    def distinct(self, weights: Sequence[int], activations: Sequence[int]) -> dict[str, Widths]:
        """Layer → its widths without those that cost what the next wider one does, whatever the other width is.

        All ascending, so that the widest are always among them.
        """
        found = {}
        for layer, table in self.table.items():
            costs = table[np.ix_([w - MIN_BITS for w in weights], [a - MIN_BITS for a in activations])]
            found[layer] = Widths(_distinct(weights, costs), _distinct(activations, costs.T))
        return found

    def total(self, plan: Plan) -> float:
        """The cost of a plan; ``PlanError`` unless it covers exactly these layers."""
        plan.check(self.table)
        return self.constant + sum(self.of(name, bits.weight, bits.activation) for name, bits in plan.items())


def _distinct(widths: Sequence[int], costs: Floats) -> tuple[int, ...]:
    """costs: a row for each width."""
    same = [np.array_equal(row, wider) for row, wider in pairwise(costs)]
    return tuple(bits for bits, is_same in zip(widths, [*same, False], strict=True) if not is_same)


def weight_bits_cost(traced: TracedModel) -> Costs:
    """Parameter-weighted average of the weight bits, biases not counted.

    All weights count, as in the papers, those too that a file leaves out since they read nothing but zeros.
    """
    weights = _weights(traced)
    share = {name: count / sum(weights.values()) for name, count in weights.items()}
    return _costs("bits", traced, lambda name, w, a: share[name] * w)


def bops_cost(traced: TracedModel) -> Costs:
    """Bit operations per pixel: MACs · weight bits · bits of the layer's input; products of tensors have none."""
    macs = {layer.name: layer.macs for layer in layer_geometry(traced)}
    return _costs("bit operations per pixel", traced, lambda name, w, a: macs[name] * w * a)


def latency_cost(traced: TracedModel, table: LatencyTable) -> Costs:
    """Milliseconds of one encode and one decode of an image of the table's size.

    Raises ``ModelError`` for a table of another model, ``DataError`` for one of another machine.
    """
    table.check_fits(geometry_hash(traced))
    return _costs("ms", traced, lambda name, w, a: table.layers[name].at(w, a), table.rest_ms)


def run_cost(traced: TracedModel, kind: str, latency: LatencyTable | None) -> Costs:
    """What a budget of running counts; ``BudgetError`` for latency without a table, and as ``latency_cost`` raises."""
    if kind == "bops":
        return bops_cost(traced)
    if latency is None:
        raise BudgetError("the budget latency needs a table of this machine: make one with licquant profile")
    return latency_cost(traced, latency)


def file_bytes_cost(
    traced: TracedModel,
    statistics: Statistics,
    to_artifact: ToArtifact,
    settings: QuantizerSettings | None = None,
    widths: Sequence[int] = WIDTHS,
    activation_bits: int = 8,
    on_width: Callable[[], None] = lambda: None,
) -> Costs:
    """Bytes of the artifact file: every layer as the file stores it at each width, measured.

    The model is quantized, lowered and stored once for each of the ``widths`` of weights, by ``to_artifact``
    (what will make the final artifact: its header is the constant). The activations have ``activation_bits`` then;
    other widths change what is stored by a per cent or two, and count as free.
    """
    found: dict[int, dict[str, int]] = {}
    constant = 0
    for width in widths:
        plan = uniform_plan(traced, width, activation_bits)
        artifact = to_artifact(insert_quantizers(traced, plan, statistics, settings))
        data = artifact.to_bytes()
        found[width] = {
            layer.name: layer.bytes for layer in layer_contents(data, artifact) if layer.name in plan.layers
        }
        constant = constant or len(data) - sum(found[width].values())
        on_width()
    return _costs("bytes", traced, lambda name, w, a: found.get(w, {}).get(name, np.nan), constant)


def _weights(traced: TracedModel) -> dict[str, int]:
    return {layer.name: layer.weights for layer in layer_geometry(traced)}


def _costs(unit: str, traced: TracedModel, cost: Callable[[str, int, int], float], constant: float = 0.0) -> Costs:
    table = {name: np.array([[cost(name, w, a) for a in WIDTHS] for w in WIDTHS]) for name in layer_names(traced)}
    return Costs(unit, table, constant)
