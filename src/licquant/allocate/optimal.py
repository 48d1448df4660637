"""Optimal allocation: a multiple-choice knapsack, solved exactly, then checked against what the model really does.

Every layer takes one pair of widths (weights, activations). The sum of ζ is least under a budget: an integer linear
program, solved by HiGHS (Huangfu & Hall 2018) through SciPy, of what can be believed of a ζ (``Choices.believable``).
What the table cannot know, how layers interact, ``repair`` finds out by measuring the whole plan.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_matrix

from licquant.allocate.choices import Choices, rounded_up
from licquant.allocate.costs import Costs
from licquant.config import LayerBits, Plan
from licquant.errors import BudgetError
from licquant.program.arithmetic import Floats, Ints

EXCHANGES = 12  # that are measured in search of a better plan
_NO_GAP = {"mip_rel_gap": 0.0}
_STDOUT = 1


@dataclass(frozen=True)
class Option:
    """One pair of widths of one layer: its ζ, and its cost in the unit of the budget."""

    layer: str
    bits: LayerBits
    loss: float
    cost: float


def least_loss(choices: Choices, costs: Costs, limit: float) -> Plan:
    """The plan with the least Σ ζ whose cost is within ``limit``; ``BudgetError`` with the smallest cost if none is."""
    options = list(options_of(choices, costs))
    plan = solve(options, [o.loss for o in options], [o.cost for o in options], limit - costs.constant)
    if plan is None:
        least = costs.total(cheapest(options, lambda o: o.cost))
        message = f"the budget cannot be met: the smallest possible is {rounded_up(least, 7)} {costs.unit}"
        raise BudgetError(message, least)
    return plan


def repair(
    choices: Choices,
    costs: Costs,
    limit: float,
    plan: Plan,
    measure: Callable[[Plan], float],
    on_step: Callable[[int], None] = lambda _: None,
) -> Plan:
    """Exchange widths between layers as long as the measured loss of the whole plan falls.

    measure: plan → its measured loss;  at most ``EXCHANGES`` of them
    on_step: called with how many have been tried, with all of them when no other is left
    Exchanges are one layer's weights a width wider, another's a width narrower (or none), within the limit, tried in
    the order of what the table promises; the plan returned is never worse than the one given.
    """
    best = measure(plan)
    tried = {plan.hash}
    for step in range(EXCHANGES):
        on_step(step)
        found = next((p for p in _exchanges(choices, costs, limit, plan) if p.hash not in tried), None)
        if found is None:
            break
        tried.add(found.hash)
        loss = measure(found)
        if loss < best:
            plan, best = found, loss
    on_step(EXCHANGES)
    return plan


def options_of(choices: Choices, costs: Costs) -> Iterator[Option]:
    """Every pair of widths of every layer."""
    for layer, of in choices.layers.items():
        for weight, of_weight in of.weights.items() or [(None, 0.0)]:
            for activation, of_activation in of.activations.items():
                bits = LayerBits(weight, activation)
                yield Option(layer, bits, of_weight + of_activation, costs.of(layer, weight, activation))


def cheapest(options: list[Option], value: Callable[[Option], float]) -> Plan:
    """The plan with the least of each layer."""
    chosen: dict[str, Option] = {}
    for option in options:
        if option.layer not in chosen or value(option) < value(chosen[option.layer]):
            chosen[option.layer] = option
    return Plan({layer: option.bits for layer, option in chosen.items()})


def solve(options: list[Option], objective: list[float], weight: list[float], limit: float) -> Plan | None:
    """min Σ objective · x with one option a layer and Σ weight · x <= limit, x binary; None if impossible.

    HiGHS's tolerances are absolute, 1e-6, while a layer at 2 bits may lose 10000 times what the best plan does. So
    values are counted from the least of their layer, options that no solution can contain are left out, and the rest
    is scaled by what a solution may have in all. The objective of one solution bounds the next, until none is better.
    """
    options, objective, weight = _undominated(options, objective, weight)
    names, layers = np.unique([option.layer for option in options], return_inverse=True)
    values = np.array([objective, weight])
    least = np.array([[row[layers == n].min() for n in range(len(names))] for row in values])
    above, weights = values - least[:, layers]
    room, bound = limit - least[1].sum(), np.inf
    plan = None
    while room >= 0:
        kept = np.flatnonzero((weights <= room) & (above <= bound))
        taken = kept[_choose(layers[kept], above[kept], weights[kept] / (room or 1.0))]
        if above[taken].sum() >= bound:
            break
        bound = above[taken].sum()
        plan = Plan({options[n].layer: options[n].bits for n in taken})
    return plan


def _undominated(
    options: list[Option], objective: list[float], weight: list[float]
) -> tuple[list[Option], list[float], list[float]]:
    """What is left without options that another of their layer equals or beats in both values.

    Many widths take the same time, and a search among equals is long.
    """
    kept, least, layer = [], np.inf, None
    for n in sorted(range(len(options)), key=lambda n: (options[n].layer, objective[n], weight[n])):
        if options[n].layer != layer:
            layer, least = options[n].layer, np.inf
        if weight[n] < least:
            least = weight[n]
            kept.append(n)
    return [options[n] for n in kept], [objective[n] for n in kept], [weight[n] for n in kept]


def _choose(layers: Ints, objective: Floats, weight: Floats) -> NDArray[np.bool_]:
    """Which options: the least Σ objective with one of each layer and Σ weight <= 1, values from 0; one must exist."""
    count = len(objective)
    once = csr_matrix((np.ones(count), (layers, range(count))))
    with _no_stdout():
        found = milp(
            objective / (objective.max() or 1.0),
            constraints=[LinearConstraint(once, 1, 1), LinearConstraint(weight[None], -np.inf, 1)],
            integrality=np.ones(count),
            bounds=Bounds(0, 1),
            options=_NO_GAP,
        )
    chosen: NDArray[np.bool_] = found.x > 0.5
    return chosen


@contextmanager
def _no_stdout() -> Iterator[None]:
    """HiGHS leaves a line for its own developers there, whatever it is told; it would be in the midst of ``--json``."""
    try:
        kept = os.dup(_STDOUT)
    except OSError:  # there is none
        yield
        return
    library = ctypes.CDLL(None if os.name == "posix" else "ucrtbase")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    library.fflush(None)
    os.dup2(nowhere, _STDOUT)
    try:
        yield
    finally:
        library.fflush(None)  # what C has written and kept
        os.dup2(kept, _STDOUT)
        os.close(nowhere)
        os.close(kept)


def _exchanges(choices: Choices, costs: Costs, limit: float, plan: Plan) -> list[Plan]:
    """Neighbours of a plan within the limit, the one with the least Σ ζ first."""
    found = []
    for up in plan:
        wider = _moved(choices, plan, up, 1)
        if wider is None:
            continue
        candidates = [wider, *(_moved(choices, wider, down, -1) for down in plan if down != up)]
        found += [p for p in candidates if p is not None and costs.total(p) <= limit]
    return sorted(found, key=choices.loss)


def _moved(choices: Choices, plan: Plan, layer: str, by: int) -> Plan | None:
    """The plan with the layer's weights one candidate wider or narrower; None where there is none."""
    widths = sorted(choices.layers[layer].weights)
    weight = plan[layer].weight
    if weight is None or weight not in widths:
        return None
    position = widths.index(weight) + by
    if not 0 <= position < len(widths):
        return None
    return Plan({**plan.layers, layer: LayerBits(widths[position], plan[layer].activation)})
