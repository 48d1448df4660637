"""Every way to choose a plan, by name, under any budget.

uniform   the widest width for all weights that the budget allows (8 bits: the papers' FPQ)
fmpq      one tolerance for the sensitivity of every layer
optimal   the least loss that the budget allows, solved exactly, checked on the whole model
hessian   the same program with HAMP-LIC's importance instead of the measured loss
rdo-ptq   uniform widths; its rounding is learned block by block (``quant/after_training/rdo_ptq.py``)
raq       a fixed-point decoder with wide activations (Hong 2020)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress

from licquant.allocate.choices import Choices, LayerChoices, rounded_up
from licquant.allocate.fmpq import adaptive_search
from licquant.allocate.hessian import omega
from licquant.allocate.optimal import EXCHANGES, least_loss, repair
from licquant.allocate.search import Search
from licquant.allocate.sensitivity import WEIGHTS
from licquant.config import MAX_BITS, MIN_BITS, Budget, LayerBits, Plan
from licquant.errors import BudgetError
from licquant.quant.network import uniform_plan

_REFERENCE_BITS = 8
_ENCODER = ("g_a", "h_a")
_STEPS = 7  # of a bisection for a loss: the size is found to 1 %
_SLACK = 1 + 1e-9  # a sum of shares may exceed a whole by rounding


def check_method(method: str) -> str:
    """The method's name; ``BudgetError`` for an unknown one."""
    if method not in METHODS:
        raise BudgetError(f"unknown method {method!r}: choose one of {', '.join(METHODS)}")
    return method


def allocate(search: Search, method: str, budget: Budget) -> Plan:
    """The plan that a method chooses under a budget.

    Raises ``BudgetError`` for an unknown method, and for a budget that cannot be met, with the smallest value that
    can; ``ModelError`` if the method needs λ and there is none.
    """
    choose = METHODS[check_method(method)]
    if budget.kind == "loss":
        return _smallest_within(search, method, budget.value)
    return choose(search, budget)


def _uniform(search: Search, budget: Budget) -> Plan:
    costs, limit = search.costs(budget)
    counted = budget.kind in ("size", "bytes")  # sizes are measured, and only for the widths considered
    for bits in reversed(search.weight_bits if counted else range(MIN_BITS, MAX_BITS + 1)):
        plan = uniform_plan(search.traced, bits, search.settings.activation_bits)
        cost = costs.total(plan)
        if cost <= limit * _SLACK:
            return plan
    least = rounded_up(cost, 7)
    raise BudgetError(f"the budget cannot be met: the smallest this method reaches is {least} {costs.unit}", cost)


def _fmpq(search: Search, budget: Budget) -> Plan:
    costs, limit = search.costs(budget)
    return adaptive_search(search.choices(budget).believable(), costs.total, limit * _SLACK)


def _optimal(search: Search, budget: Budget) -> Plan:
    """Starts from FMPQ's plan instead where the whole model, measured, says that it is better."""
    costs, limit = search.costs(budget)
    choices, limit = search.choices(budget).believable(), limit * _SLACK
    starts = [least_loss(choices, costs, limit)]
    with suppress(BudgetError):  # one tolerance for all reaches less far
        starts.append(adaptive_search(choices, costs.total, limit))
    best = min(starts, key=search.joint_loss)

    def on_step(done: int) -> None:
        search.on_progress("exchanging widths", done, EXCHANGES)

    return repair(choices, costs, limit, best, search.joint_loss, on_step)


def _hessian(search: Search, budget: Budget) -> Plan:
    costs, limit = search.costs(budget)
    choices = search.choices(budget)
    widest = search.settings.activation_bits  # the importance is one of weights; activations keep one width
    narrow = {layer: LayerChoices(_narrow(of.weights), {widest: 0.0}) for layer, of in choices.layers.items()}

    def importance(layer: str, kind: str, bits: int) -> float:
        if kind != WEIGHTS:
            return 0.0
        zeta = choices.layers[layer].weights
        return omega(search.traces[layer], 1 + zeta[bits], 1 + zeta[max(narrow[layer].weights)])

    return least_loss(Choices(narrow).map(importance), costs, limit * _SLACK)


def _narrow(weights: Mapping[int, float]) -> dict[int, float]:
    """Those of 8 bits at most; the narrowest where all are wider."""
    least = max(_REFERENCE_BITS, min(weights, default=0))
    return {bits: zeta for bits, zeta in weights.items() if bits <= least}


def _raq(search: Search, budget: Budget) -> Plan:
    """8-bit weights, wide activations in the decoder; the encoder, which RAQ leaves in float, as wide as it goes."""
    allowed = search.settings.max_bits
    if allowed < _REFERENCE_BITS:
        raise BudgetError(f"raq has weights of {_REFERENCE_BITS} bits; at most {allowed} are allowed here")
    costs, limit = search.costs(budget)
    plan = Plan(
        {
            name: LayerBits(bits.weight and _REFERENCE_BITS, MAX_BITS if _of_encoder(name) else bits.activation)
            for name, bits in uniform_plan(search.traced, _REFERENCE_BITS, search.settings.activation_bits).items()
        }
    )
    if costs.total(plan) > limit * _SLACK:
        cost = costs.total(plan)
        raise BudgetError(f"raq has one plan only, which takes {rounded_up(cost, 7)} {costs.unit}", cost)
    return plan


def _of_encoder(layer: str) -> bool:
    return layer.startswith(tuple(f"{part}." for part in _ENCODER))


# Those that ask for the table of sensitivities.
TABLED = frozenset({"fmpq", "optimal", "hessian"})

METHODS: dict[str, Callable[[Search, Budget], Plan]] = {
    "uniform": _uniform,
    "fmpq": _fmpq,
    "optimal": _optimal,
    "hessian": _hessian,
    "rdo-ptq": _uniform,
    "raq": _raq,
}


def _smallest_within(search: Search, method: str, loss: float) -> Plan:
    """Bisection over the bytes: the smallest artifact whose measured loss, once fitted, is within ``loss``."""
    low, high = (
        search.file_bytes.total(uniform_plan(search.traced, bits, search.settings.activation_bits))
        for bits in (MIN_BITS, search.settings.max_bits)
    )
    best = METHODS[method](search, Budget("bytes", high))
    reached = search.fitted_loss(best)
    if reached > loss:
        least = rounded_up(100 * reached, 4)
        raise BudgetError(f"the loss cannot be met: the smallest this method reaches is {least} %")
    for step in range(_STEPS):
        search.on_progress("searching for the smallest model", step, _STEPS)
        middle = (low + high) / 2
        try:
            plan = METHODS[method](search, Budget("bytes", middle))
            fits = search.fitted_loss(plan) <= loss
        except BudgetError:
            fits = False
        if fits:
            best, high = plan, middle
        else:
            low = middle
    search.on_progress("searching for the smallest model", _STEPS, _STEPS)
    return best
