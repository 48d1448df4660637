"""The solver where numbers are far apart, as those of a real table are, and the repair of a planted interaction.

That it equals enumeration on instances of every kind: ``tests/property/test_allocation.py``.
"""

import itertools
import re

import numpy as np
import pytest

from benchmarks.latency_plan import least_cost
from licquant.allocate.choices import Choices, LayerChoices
from licquant.allocate.costs import Costs
from licquant.allocate.optimal import least_loss, repair
from licquant.config import LayerBits, Plan
from licquant.errors import BudgetError

WIDTHS = range(2, 7)


def table_like(seed: int, layers: int = 5) -> tuple[Choices, Costs]:
    """ζ from above 1000 % at 2 bits to below 0.1 % at 6; layers from some hundred bytes to half a million."""
    rng = np.random.default_rng(seed)
    names = [f"g_a.{n}" for n in range(layers)]
    scale, size = np.exp(rng.normal(1, 2, layers)), 10 ** rng.uniform(2, 5.7, layers)
    losses = scale[:, None] * 9.0 ** -np.arange(5.0) * np.exp(rng.normal(0, 0.3, (layers, 5)))
    bits = np.arange(2, 17)[:, None] * np.ones(15)
    choices, costs = {}, {}
    for name, row, weights in zip(names, losses, size, strict=True):
        choices[name] = LayerChoices(dict(zip(WIDTHS, row, strict=True)), {8: 0.001})
        costs[name] = np.floor(weights * bits / 8 * rng.uniform(0.95, 1.05, (15, 1)))
    return Choices(choices), Costs("bytes", costs, 1000.0)


def plans(choices: Choices) -> list[Plan]:
    found = itertools.product(WIDTHS, repeat=len(choices.layers))
    return [choices.plan(dict(zip(choices.layers, ((w, 8) for w in ws), strict=True))) for ws in found]


@pytest.mark.parametrize("seed", range(3))
def test_exact_where_losses_and_costs_are_orders_of_magnitude_apart(seed):
    choices, costs = table_like(seed, layers=4)
    every = plans(choices)
    total, loss = np.array([costs.total(p) for p in every]), np.array([choices.loss(p) for p in every])
    for limit in np.quantile(total, np.linspace(0.02, 0.98, 9)):
        found = least_loss(choices, costs, limit)
        assert costs.total(found) <= limit
        assert choices.loss(found) == pytest.approx(loss[total <= limit].min(), rel=1e-9)
    for limit in np.quantile(loss, np.linspace(0.01, 0.6, 9)):
        found = least_cost(choices, costs, limit)
        assert choices.loss(found) <= limit
        assert costs.total(found) == total[loss <= limit].min()


def test_many_layers_whose_widths_mostly_cost_the_same():
    """As milliseconds do, which only know classes of widths; the optimum is that of a sum over layers, one by one."""
    rng = np.random.default_rng(0)
    widths, layers = range(2, 13), [f"g_a.{n}" for n in range(20)]
    by_layer, of_layer = {}, {}
    cost = np.where(np.arange(17)[:, None] > 8, 3, 1) + np.where(np.arange(17) > 8, 2, 0)
    for name in layers:
        rows = [dict(zip(widths, 4.0 ** -np.sort(rng.uniform(0, 8, 11)), strict=True)) for _ in range(2)]
        by_layer[name], of_layer[name] = LayerChoices(*rows), cost[:, :15] * float(rng.integers(1, 6))
    choices, costs = Choices(by_layer), Costs("ms", of_layer, 0.0)
    best = {0.0: 0.0}  # cost → least loss of the layers so far
    for name in layers:
        pairs = [
            (costs.of(name, w, a), x + y)
            for w, x in by_layer[name].weights.items()
            for a, y in by_layer[name].activations.items()
        ]
        new: dict[float, float] = {}
        for spent, loss in best.items():
            for more, added in pairs:
                new[spent + more] = min(new.get(spent + more, np.inf), loss + added)
        best = new
    spent, losses = (np.array(list(column)) for column in zip(*best.items(), strict=True))
    for limit in np.quantile(spent, [0.1, 0.4, 0.8]):
        assert choices.loss(least_loss(choices, costs, limit)) == pytest.approx(losses[spent <= limit].min(), rel=1e-9)
    for limit in np.quantile(losses, [0.02, 0.2]):
        assert costs.total(least_cost(choices, costs, limit)) == spent[losses <= limit].min()


def test_every_budget_of_one_instance():
    choices = Choices(
        {
            "a": LayerChoices({2: 0.5, 3: 0.25, 4: -0.125}, {4: 0.25, 8: 0.0}),
            "b": LayerChoices({2: 0.25, 3: 0.25, 4: 0.0}, {4: 1.0, 8: 0.125}),
            "sum": LayerChoices({}, {4: 0.5, 8: -0.25}),
        }
    )
    bits = np.arange(2.0, 17.0)
    costs = Costs("bits", {"a": np.outer(bits, bits), "b": 3 * np.outer(bits, bits), "sum": 0 * bits[:, None] + bits})
    every = [
        choices.plan({"a": (w, a), "b": (v, b), "sum": (None, c)})
        for w, v in itertools.product((2, 3, 4), repeat=2)
        for a, b, c in itertools.product((4, 8), repeat=3)
    ]
    budgets = sorted({costs.total(plan) for plan in every})
    assert len(budgets) > 20
    for limit in budgets:
        found = least_loss(choices, costs, limit)
        assert costs.total(found) <= limit
        assert choices.loss(found) == min(choices.loss(p) for p in every if costs.total(p) <= limit)


def test_the_least_value_that_an_error_names_can_be_met():
    choices, costs = table_like(0)
    for solve, limit in ((least_loss, 1.0), (least_cost, 1e-9)):
        with pytest.raises(BudgetError) as error:
            solve(choices, costs, limit)
        found = re.search(r"smallest possible is ([\d,.]+) (bytes|%)", str(error.value))
        assert found is not None
        named = float(found[1].replace(",", "")) / (100 if found[2] == "%" else 1)
        plan = solve(choices, costs, named)
        value = costs.total(plan) if solve is least_loss else choices.loss(plan)
        assert value <= named <= 1.001 * value


def test_repair_undoes_a_planted_interaction():
    """Both layers at 3 bits are best by the table, but together they cost 1 more than it says."""
    zeta = {2: 0.3, 3: 0.1, 4: 0.05}
    choices = Choices({name: LayerChoices(zeta, {8: 0.0}) for name in "ab"})
    costs = Costs("bits", {name: np.arange(2.0, 17.0)[:, None] * np.ones(15) for name in "ab"})
    plan = least_loss(choices, costs, 6)
    assert [bits.weight for bits in plan.values()] == [3, 3]

    def measure(found: Plan) -> float:
        return choices.loss(found) + all(bits.weight == 3 for bits in found.values())

    repaired = repair(choices, costs, 6, plan, measure)
    assert sorted(bits.weight for bits in repaired.values()) == [2, 4]
    assert measure(repaired) < measure(plan)
    assert repair(choices, costs, 6, plan, choices.loss).layers == plan.layers  # nothing to repair


def test_repair_uses_what_the_budget_leaves():
    choices = Choices({name: LayerChoices({2: 0.3, 3: 0.1}, {8: 0.0}) for name in "ab"})
    costs = Costs("bits", {name: np.arange(2.0, 17.0)[:, None] * np.ones(15) for name in "ab"})
    plan = Plan({name: LayerBits(2, 8) for name in "ab"})
    assert [b.weight for b in repair(choices, costs, 6, plan, choices.loss).values()] == [3, 3]
    assert sorted(b.weight for b in repair(choices, costs, 5, plan, choices.loss).values()) == [2, 3]
