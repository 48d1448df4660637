"""FMPQ by hand, and against its own brute-force reference."""

import math

import pytest

from benchmarks.allocation import brute_force_search
from licquant.allocate.choices import Choices, LayerChoices
from licquant.allocate.fmpq import adaptive_search, plan_for_tolerance
from licquant.config import Plan
from licquant.errors import BudgetError

CHOICES = Choices(
    {
        "a": LayerChoices({2: 0.5, 3: 0.1, 4: 0.02}, {8: 0.3}),
        "b": LayerChoices({2: 0.05, 3: 0.06, 4: -0.01}, {6: 0.2, 8: 0.0}),
        "sum": LayerChoices({}, {6: 0.1, 8: 0.01}),
    }
)


def widths(plan: Plan) -> list[tuple[int | None, int]]:
    return [(bits.weight, bits.activation) for bits in plan.values()]


def total(plan: Plan) -> int:
    """Grows with every width."""
    return sum((bits.weight or 0) + bits.activation for bits in plan.values())


def test_the_lowest_width_below_the_tolerance():
    assert widths(plan_for_tolerance(CHOICES, 0.11)) == [(3, 8), (2, 8), (None, 6)]
    assert widths(plan_for_tolerance(CHOICES, 0.6)) == [(2, 8), (2, 6), (None, 6)]


def test_below_means_below():
    assert plan_for_tolerance(CHOICES, 0.1)["a"].weight == 4
    assert plan_for_tolerance(CHOICES, math.nextafter(0.1, 1))["a"].weight == 3


def test_the_lowest_may_be_where_a_wider_one_is_worse():
    assert plan_for_tolerance(CHOICES, 0.055)["b"].weight == 2


def test_the_widest_where_none_is_below():
    assert widths(plan_for_tolerance(CHOICES, 0.005)) == [(4, 8), (4, 8), (None, 8)]
    assert widths(plan_for_tolerance(CHOICES, -1.0)) == [(4, 8), (4, 8), (None, 8)]


@pytest.mark.parametrize("limit", range(26, 33))
def test_the_smallest_tolerance_that_fits(limit):
    plan = adaptive_search(CHOICES, total, limit)
    assert total(plan) <= limit
    # Every smaller β gives a plan that does not fit; a scan in steps of 1/1000 sees each of them.
    scanned = next(p for p in (plan_for_tolerance(CHOICES, n / 1000 + 1e-9) for n in range(1000)) if total(p) <= limit)
    assert widths(plan) == widths(scanned)


def test_a_limit_out_of_reach_names_the_least():
    with pytest.raises(BudgetError, match=r"smallest this method reaches is 24$"):
        adaptive_search(CHOICES, total, 23)
    with pytest.raises(BudgetError, match="any of the tolerances"):
        brute_force_search(measured, CHOICES, total, 23, [0.0, 1.0])


def measured(layer: str, kind: str, bits: int) -> float:
    return getattr(CHOICES.layers[layer], kind)[bits]


def test_brute_force_measures_everything_for_every_tolerance():
    calls = []

    def evaluate(layer: str, kind: str, bits: int) -> float:
        calls.append((layer, kind, bits))
        return measured(layer, kind, bits)

    betas = [0.001, 0.015, 0.03, 0.06, 0.11, 0.25, 0.4, 0.6]
    found = brute_force_search(evaluate, CHOICES, total, 28, betas)
    entries = sum(len(of.weights) + len(of.activations) for of in CHOICES.layers.values())
    assert found.layers == adaptive_search(CHOICES, total, 28).layers
    reached = next(n for n, beta in enumerate(betas, 1) if total(plan_for_tolerance(CHOICES, beta)) <= 28)
    assert 1 < reached < len(betas)
    assert len(calls) == entries * reached
