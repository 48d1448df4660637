"""FMPQ (Hossain, Duan, Zhu, ICME 2024, arXiv 2506.01221): one tolerance gives every layer its width.

Algorithm 1: each layer, on its own, takes the lowest width whose ζ is below the tolerance β; the widest if none is.
Algorithm 2, the adaptive search, moves β until the model is as large as it may be. Its update rule is not published in
what we could read; with ζ in a table only the values of ζ themselves can change the plan, so the search here is a
bisection over those, and exact. Unlike the paper's, the losses it gets are those that can be believed of few crops
(``Choices.believable``): a narrow width whose ζ happens to be negative would be below every tolerance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from licquant.allocate.choices import Choices, rounded_up
from licquant.config import Plan
from licquant.errors import BudgetError

Cost = Callable[[Plan], float]


def plan_for_tolerance(choices: Choices, beta: float) -> Plan:
    """Algorithm 1: the lowest width with ζ < β for weights and activations of every layer, apart."""

    def lowest(zeta: Mapping[int, float]) -> int:
        return next((bits for bits in sorted(zeta) if zeta[bits] < beta), max(zeta))

    return choices.plan(
        {
            layer: (lowest(of.weights) if of.weights else None, lowest(of.activations))
            for layer, of in choices.layers.items()
        }
    )


def adaptive_search(choices: Choices, cost: Cost, limit: float) -> Plan:
    """Algorithm 2: the plan of the smallest β whose cost is within ``limit``.

    The cost must not rise when widths fall. ``BudgetError`` with the smallest cost if even the largest β misses it.
    """
    tolerances = _tolerances(choices)
    first, last = 0, len(tolerances) - 1
    least = cost(plan_for_tolerance(choices, tolerances[last]))
    if least > limit:
        message = f"the budget cannot be met: the smallest this method reaches is {rounded_up(least, 7)}"
        raise BudgetError(message, least)
    while first < last:
        middle = (first + last) // 2
        if cost(plan_for_tolerance(choices, tolerances[middle])) <= limit:
            last = middle
        else:
            first = middle + 1
    return plan_for_tolerance(choices, tolerances[last])


def _tolerances(choices: Choices) -> list[float]:
    """Every β at which the plan can change, ascending: just above each value of ζ, and 0."""
    values = {z for of in choices.layers.values() for zeta in (of.weights, of.activations) for z in zeta.values()}
    return sorted({0.0, *(math.nextafter(z, math.inf) for z in values if z >= 0)})
