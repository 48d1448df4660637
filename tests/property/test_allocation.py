"""The solver, FMPQ's search and the repair against enumeration, over small instances of every kind.

Costs and losses are multiples of 1/64, so that every sum is exact and ties are ties.
"""

import itertools
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.latency_plan import least_cost
from licquant.allocate.choices import Choices, LayerChoices
from licquant.allocate.costs import Costs
from licquant.allocate.fmpq import adaptive_search, plan_for_tolerance
from licquant.allocate.optimal import EXCHANGES, least_loss, repair
from licquant.config import LayerBits, Plan
from licquant.errors import BudgetError

LOSSES = st.integers(-64, 512).map(lambda n: n / 64) | st.sampled_from([0.0, 0.5, 1.0])


@dataclass(frozen=True)
class Instance:
    choices: Choices
    costs: Costs

    def plans(self) -> list[Plan]:
        options = [
            [LayerBits(w, a) for w in of.weights or [None] for a in of.activations]
            for of in self.choices.layers.values()
        ]
        return [Plan(dict(zip(self.choices.layers, bits, strict=True))) for bits in itertools.product(*options)]


@st.composite
def instances(draw: st.DrawFn) -> Instance:
    """Up to three layers, some without weights; costs rise with the widths, losses do what they like."""
    layers: dict[str, LayerChoices] = {}
    table = {}
    for name in "abc"[: draw(st.integers(1, 3))]:
        weights = draw(st.dictionaries(st.integers(2, 8), LOSSES, max_size=4))
        activations = draw(st.dictionaries(st.integers(2, 8), LOSSES, min_size=1, max_size=2))
        layers[name] = LayerChoices(weights, activations)
        steps = draw(st.lists(st.integers(0, 40), min_size=30, max_size=30))
        table[name] = np.add.outer(np.cumsum(steps[:15]), np.cumsum(steps[15:])) / 4
    return Instance(Choices(layers), Costs("units", table, draw(st.integers(0, 50)) / 2))


@settings(max_examples=60, deadline=None)
@given(instances(), st.data())
def test_the_least_loss_is_the_enumerated_one(instance, data):
    plans, costs = instance.plans(), instance.costs
    limit = data.draw(st.sampled_from(sorted({costs.total(plan) for plan in plans})))
    found = least_loss(instance.choices, costs, limit)
    assert costs.total(found) <= limit
    assert instance.choices.loss(found) == min(instance.choices.loss(p) for p in plans if costs.total(p) <= limit)


@settings(max_examples=60, deadline=None)
@given(instances(), st.data())
def test_the_least_cost_is_the_enumerated_one(instance, data):
    plans, loss = instance.plans(), instance.choices.loss
    limit = data.draw(st.sampled_from(sorted({loss(plan) for plan in plans})))
    found = least_cost(instance.choices, instance.costs, limit)
    assert loss(found) <= limit
    assert instance.costs.total(found) == min(instance.costs.total(p) for p in plans if loss(p) <= limit)


@settings(max_examples=30, deadline=None)
@given(instances())
def test_less_than_the_least_is_refused_and_the_least_named(instance):
    least = min(instance.costs.total(plan) for plan in instance.plans())
    with pytest.raises(BudgetError) as error:
        least_loss(instance.choices, instance.costs, least - 0.25)
    assert f"smallest possible is {least:,g} units" in str(error.value)
    lowest = min(instance.choices.loss(plan) for plan in instance.plans())
    with pytest.raises(BudgetError) as error:
        least_cost(instance.choices, instance.costs, lowest - 1 / 64)
    named = float(str(error.value).split()[-2].replace(",", "")) / 100
    assert 0 <= named - lowest <= 1e-3 * max(abs(lowest), 1e-3)


def transcribed(choices: Choices, cost, limit: float) -> Plan | None:
    """Algorithms 1 and 2 word for word: β rises from 0 through every interval in which the plan stays the same."""
    values = sorted({z for of in choices.layers.values() for z in (*of.weights.values(), *of.activations.values())})
    values = [z for z in values if z >= 0]
    between = [(a + b) / 2 for a, b in itertools.pairwise(values)]
    for beta in [0.0, *between, *(z + 1 for z in values[-1:])]:
        layers = {}
        for name, of in choices.layers.items():
            widths = []
            for zeta in (of.weights, of.activations):
                chosen = None
                for bits in sorted(zeta):
                    chosen = bits
                    if zeta[bits] < beta:
                        break
                widths.append(chosen)
            layers[name] = LayerBits(*widths)
        if cost(Plan(layers)) <= limit:
            return Plan(layers)
    return None


@settings(max_examples=100, deadline=None)
@given(instances(), st.data())
def test_adaptive_search_is_the_transcription(instance, data):
    cost = instance.costs.total
    limit = data.draw(st.sampled_from(sorted({cost(plan) for plan in instance.plans()})))
    expected = transcribed(instance.choices, cost, limit)
    if expected is None:
        with pytest.raises(BudgetError):
            adaptive_search(instance.choices, cost, limit)
    else:
        assert adaptive_search(instance.choices, cost, limit).layers == expected.layers


@settings(max_examples=50, deadline=None)
@given(instances())
def test_a_larger_tolerance_costs_no_more(instance):
    costs = [instance.costs.total(plan_for_tolerance(instance.choices, beta)) for beta in np.arange(-1.5, 9, 0.25)]
    assert costs == sorted(costs, reverse=True)


@settings(max_examples=50, deadline=None)
@given(instances(), st.data(), st.integers(0, 2**32 - 1))
def test_repair_never_makes_it_worse(instance, data, seed):
    """Whatever the whole model does: measured losses that have nothing to do with the table."""
    costs, plans = instance.costs, instance.plans()
    plan = data.draw(st.sampled_from(plans))
    measured = dict(zip((p.hash for p in plans), np.random.default_rng(seed).random(len(plans)), strict=True))
    calls: list[str] = []

    def measure(p: Plan) -> float:
        calls.append(p.hash)
        return measured[p.hash]

    told: list[int] = []
    found = repair(instance.choices, costs, costs.total(plan), plan, measure, told.append)
    assert told == [*range(len(told) - 1), EXCHANGES]
    assert measured[found.hash] <= measured[plan.hash]
    assert measured[found.hash] == min(measured[name] for name in calls)
    assert costs.total(found) <= costs.total(plan)
    assert len(calls) == len(set(calls)) <= 1 + EXCHANGES
