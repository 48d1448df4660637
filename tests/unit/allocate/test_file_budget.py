"""The file that is written is never larger than its budget, whatever making it does to its bytes."""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from licquant import pipeline
from licquant.allocate.file_budget import FileSize, make_within
from licquant.allocate.search import Search
from licquant.codec.files.artifact import Artifact
from licquant.config import Budget, Plan
from licquant.errors import BudgetError
from licquant.models.trace import trace_model
from licquant.quant.calibrate import calibrate
from licquant.quant.network import QuantizedModel, uniform_plan
from licquant.quant.synthetic import dead_leaves
from tests.models_for_tests import small_hyperprior

IMAGES = dead_leaves(2, 64)
SETTINGS = pipeline.Settings(lmbda=0.01, max_bits=6)
SLOW = [pytest.param(method, marks=pytest.mark.slow) for method in ("hessian", "optimal")]
METHODS = pytest.mark.parametrize("method", ["uniform", "fmpq", *SLOW])
Fit = Callable[[QuantizedModel], None]


@dataclass
class Made:
    artifact: Artifact


@pytest.fixture(scope="module")
def search() -> Search:
    traced, statistics = calibrate(small_hyperprior(), IMAGES)
    return Search(traced, IMAGES, statistics, SETTINGS, "optimal")


@pytest.fixture(scope="module")
def ends(search: Search) -> tuple[int, int]:
    """Bytes of the files of the narrowest and of the widest plan."""
    return tuple(search.rounded_bytes(uniform_plan(search.traced, bits, 8)) for bits in (2, 6))


def rounded(quantized: QuantizedModel) -> None:
    """Nothing is learned."""


def rougher(quantized: QuantizedModel) -> None:
    """In place of reconstruction: weights that are spread over their grid, which takes bytes that no table knows of."""
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for part in quantized.parts.values():
            for step in part.graph:
                if step.has_weights:
                    weight = part.layers[step.name].weight
                    weight.copy_(weight.abs().max() * (2 * torch.rand(weight.shape, generator=noise) - 1))


def within(folder: Path, search: Search, method: str, budget: Budget, fit: Fit = rounded) -> tuple[FileSize, int]:
    """Sizes, and how often something was made; asserts that the file on disk keeps the budget."""
    tries = 0

    def make(plan: Plan) -> Made:
        nonlocal tries
        tries += 1
        quantized = search.quantized(plan)
        fit(quantized)
        return Made(search.lowered(quantized))

    made, size = make_within(search, method, budget, make)
    made.artifact.save(folder / "model.licq")
    limit = budget.value * (search.traced.fp32_bytes if budget.kind == "size" else 1)
    on_disk = (folder / "model.licq").stat().st_size
    assert on_disk <= limit
    assert (size.written, size.budget) == (on_disk, int(limit))
    return size, tries


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("fit", [rounded, rougher])
@METHODS
def test_random_budgets_are_kept_by_the_bytes_on_disk(method, fit, search, ends, tmp_path):
    random_, tried = random.Random(method), []
    for number in range(20 if (method, fit) == ("fmpq", rounded) else 5):
        share = random_.uniform(ends[0] * 1.02, ends[1] * 1.1) / search.traced.fp32_bytes
        budget = Budget("size", share) if number % 2 else Budget("bytes", share * search.traced.fp32_bytes)
        try:
            tried.append(within(tmp_path, search, method, budget, fit)[1])
        except BudgetError as error:  # not all reach as far down
            assert error.least > share * search.traced.fp32_bytes
    assert max(tried) <= 5


class Grown:
    """In place of an artifact: a file that making has enlarged by 3 tenths."""

    def __init__(self, rounded: float) -> None:
        self.size = int(rounded * 1.3)

    def to_bytes(self) -> bytes:
        return bytes(self.size)


def test_after_one_miss_the_search_knows_by_how_much_making_enlarges(search, ends):
    tried: list[float] = []

    def make(plan: Plan) -> Made:
        tried.append(search.file_bytes.total(plan))
        assert len(tried) <= 2
        return Made(Grown(tried[-1]))  # type: ignore[arg-type]

    _, size = make_within(search, "fmpq", Budget("bytes", ends[1]), make)
    assert tried[1] * 1.25 < ends[1] < tried[0] * 1.3  # not by trying a little less each time
    assert size.predicted == pytest.approx(size.written, rel=0.001)


@pytest.mark.slow
@METHODS
@pytest.mark.parametrize("fit", [rounded, rougher])
def test_the_smallest_that_is_named_is_reached_and_no_less(method, fit, search, tmp_path):
    least, named = 100, []
    while len(named) < 3:
        try:
            size, _ = within(tmp_path, search, method, Budget("bytes", least), fit)
        except BudgetError as error:
            assert re.search(r"smallest this method reaches is [\d,]+ bytes$", str(error))
            named.append(error.least)
            assert least < error.least
            least = error.least
        else:
            break
    assert size.written <= least
    # What making adds is known after a try, and one is not made for a budget that is out of sight.
    assert len(named) == (1 if fit is rounded else 2)


def test_a_plan_that_was_given_is_refused_before_the_long_work(ends, monkeypatch):
    monkeypatch.setattr(pipeline, "fit", lambda *_: pytest.fail("the long work has begun"))
    model = small_hyperprior()
    settings = replace(SETTINGS, plan=uniform_plan(trace_model(model), 6, 8))
    with pytest.raises(BudgetError, match="this plan takes"):
        pipeline.quantize(model, IMAGES, "uniform", Budget("bytes", ends[0]), settings)


@pytest.mark.slow
def test_a_plan_that_was_given_is_refused_where_only_its_file_is_too_large(ends, monkeypatch):
    monkeypatch.setattr(pipeline, "fit", lambda quantized, *_: rougher(quantized))
    model = small_hyperprior()
    settings = replace(SETTINGS, plan=uniform_plan(trace_model(model), 6, 8))
    with pytest.raises(BudgetError, match=r"would have [\d,]+ bytes, more than the budget of"):
        pipeline.quantize(model, IMAGES, "uniform", Budget("bytes", ends[1] + 20), settings)


def test_a_budget_of_another_kind_measures_no_bytes(monkeypatch):
    monkeypatch.setattr(Search, "file_bytes", property(lambda _: pytest.fail("sizes were measured")))
    assert pipeline.quantize(small_hyperprior(), IMAGES, "uniform", Budget("bits", 4), SETTINGS).size is None
