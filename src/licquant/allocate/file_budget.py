"""Budgets of a file, ``size=`` and ``bytes=``: held to the bytes that are written, not to those that were predicted.

budget ──allocate──> plan ──make──> artifact: larger than the budget? by how much its file has grown over what the
table says the next plan is chosen
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from licquant.allocate.methods import allocate
from licquant.allocate.search import Search
from licquant.codec.files.artifact import Artifact
from licquant.config import FILE_BUDGETS, Budget, Plan
from licquant.errors import BudgetError

# After a miss, what the next plan's file may have grown more than the last one's.
_LEAST_MARGIN = 0.0005


@dataclass(frozen=True)
class FileSize:
    """Bytes: what the file may have, what was expected of its plan, and what it has."""

    budget: int
    predicted: int
    written: int


class Made(Protocol):
    """What came of a plan."""

    @property
    def artifact(self) -> Artifact:
        """What the model was lowered to: its file's bytes are what counts."""


MadeT = TypeVar("MadeT", bound=Made)


def make_within(
    search: Search,
    method: str,
    budget: Budget,
    make: Callable[[Plan], MadeT],
    margin: float = 0.0,
    first: Plan | None = None,
    once_more: Callable[[MadeT], bool] = lambda _: True,
) -> tuple[MadeT, FileSize | None]:
    """What is made of a plan of the method, its file no larger than a ``size=`` or ``bytes=`` budget allows.

    make:      plan → what came of it; called again with smaller plans as long as the file is too large
    margin:    by how much of its bytes making may enlarge a file: it costs that much of the budget, and a miss all
               that ``make`` takes
    first:     the plan to begin with, in place of the method's
    once_more: whether another plan may be tried after this one missed

    None in place of sizes under a budget of another kind. Raises as ``allocate``, and ``BudgetError`` with the
    smallest bytes that are reached if no plan's file is small enough.
    """
    if budget.kind not in FILE_BUDGETS:
        return make(first or allocate(search, method, budget)), None
    limit, growth, missed = math.floor(search.bytes_of(budget)), 1.0, dict[str, int]()
    plan = first or _smaller_plan(search, method, limit, 1 + margin, missed)
    while True:
        rounded = search.file_bytes.total(plan)
        made = make(plan)
        written = len(made.artifact.to_bytes())
        if written <= limit:
            return made, FileSize(limit, round(rounded * growth), written)
        if not once_more(made):
            raise BudgetError(f"the file would have {written:,} bytes, more than the budget of {limit:,}", written)
        missed[plan.hash], growth, margin = written, written / rounded, max(margin, _LEAST_MARGIN)
        plan = _smaller_plan(search, method, limit, growth * (1 + margin), missed)


def check_fixed(search: Search, plan: Plan, budget: Budget, margin: float) -> None:
    """``BudgetError`` if a plan that was given cannot be made within a budget of a file; before the long work."""
    if budget.kind in FILE_BUDGETS:
        rounded, limit = search.rounded_bytes(plan), math.floor(search.bytes_of(budget))
        if rounded * (1 - margin) > limit:
            raise BudgetError(f"this plan takes {rounded:,} bytes, more than the budget of {limit:,}", rounded)


def _smaller_plan(search: Search, method: str, limit: int, growth: float, missed: Mapping[str, int]) -> Plan:
    """The method's plan whose bytes by the table, so many times as many, are within the limit.

    Where no plan's are, the smallest one, unless that has missed, or is too large even if its file does not grow.
    """
    try:
        return allocate(search, method, Budget("bytes", limit / growth))
    except BudgetError as error:
        if error.least is None:
            raise
        least = error.least
    smallest = allocate(search, method, Budget("bytes", least))
    rounded = search.rounded_bytes(smallest)  # of its file: the table's sum may be some bytes off
    if smallest.hash in missed or rounded > limit:
        reached = missed.get(smallest.hash, math.ceil(rounded * growth))
        raise BudgetError(f"the budget cannot be met: the smallest this method reaches is {reached:,} bytes", reached)
    return smallest
