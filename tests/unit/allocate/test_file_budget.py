"""The file that is written is never larger than its budget, whatever making it does to its bytes."""

import random
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from licquant import pipeline
from licquant.allocate.search import Search
from licquant.config import Budget
from licquant.errors import BudgetError
from licquant.quant.network import uniform_plan
from licquant.quant.synthetic import dead_leaves
from tests.models_for_tests import small_hyperprior

IMAGES = dead_leaves(2, 64)
METHODS = ["uniform", "fmpq", "optimal", "hessian"]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> pipeline.Settings:
    return pipeline.Settings(lmbda=0.01, max_bits=8, cache=tmp_path_factory.mktemp("tables"))


@pytest.fixture(scope="module")
def ends(settings: pipeline.Settings) -> tuple[int, int]:
    """Bytes of the files of the narrowest and of the widest plan."""
    made = [pipeline.quantize(small_hyperprior(), IMAGES, budget=Budget("bits", n), settings=settings) for n in (2, 8)]
    return len(made[0].artifact.to_bytes()), len(made[1].artifact.to_bytes())


def within(folder: Path, method: str, budget: Budget, settings: pipeline.Settings) -> pipeline.Result:
    """The result under the budget, of which this asserts that the file on disk keeps it."""
    result = pipeline.quantize(small_hyperprior(), IMAGES, method, budget, settings)
    path = folder / "model.licq"
    result.artifact.save(path)
    limit = budget.value * (result.quantized.traced.fp32_bytes if budget.kind == "size" else 1)
    assert path.stat().st_size <= limit
    assert result.size is not None
    assert (result.size.written, result.size.budget) == (path.stat().st_size, int(limit))
    return result


@pytest.mark.parametrize("method", METHODS)
def test_random_budgets_are_kept_by_the_bytes_on_disk(method, ends, settings, tmp_path):
    random_ = random.Random(method)
    for number in range(20):
        size = random_.uniform(ends[0], ends[1] * 1.05)
        budget = Budget("bytes", size)
        if number % 2:
            fp32 = 4 * sum(p.numel() for p in small_hyperprior().parameters())
            budget = Budget("size", size / fp32)
        try:
            within(tmp_path, method, budget, settings)
        except BudgetError as error:  # not all methods reach as far down
            least = error.least
            assert least is not None and least > size
            within(tmp_path, method, Budget("bytes", least), settings)


def rougher(factor: float):
    """In place of reconstruction: noise on the weights, in steps of the grid, which no table knows of."""

    def fit(quantized, images, method, settings, on_progress) -> None:
        noise = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for part in quantized.parts.values():
                for step in part.graph:
                    if step.has_weights:
                        weight = part.layers[step.name].weight
                        spread = weight.abs().mean() * factor
                        weight += spread * torch.randn(weight.shape, generator=noise)

    return fit


@pytest.mark.parametrize("method", ["uniform", "fmpq", "optimal"])
@pytest.mark.parametrize("steps", [0, 1])
def test_what_making_adds_is_learned_and_the_search_goes_on(method, steps, ends, settings, tmp_path, monkeypatch):
    """Tries that missed are few: what one has taught holds for the next."""
    made = []
    fit = rougher(0.5)
    monkeypatch.setattr(pipeline, "_fit", lambda *arguments: (made.append(None), fit(*arguments)))
    settings = replace(settings, reconstruction_steps=steps)
    tries = []
    for share in (0.3, 0.45, 0.6, 0.75, 0.9):
        made.clear()
        within(tmp_path, method, Budget("bytes", ends[0] + share * (ends[1] - ends[0])), settings)
        tries.append(len(made))
    assert max(tries) > 1, "nothing was missed, so nothing was tested"
    assert max(tries) <= 4


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("factor", [0.0, 0.5])
def test_the_smallest_that_is_named_is_reached(method, factor, settings, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "_fit", rougher(factor))
    with pytest.raises(BudgetError, match="smallest this method reaches is") as caught:
        pipeline.quantize(small_hyperprior(), IMAGES, method, Budget("bytes", 100), settings)
    assert re.search(r"is [\d,]+ bytes$", str(caught.value))
    least = caught.value.least
    for _ in range(2):  # what making adds is not known before the first try
        try:
            within(tmp_path, method, Budget("bytes", least), settings)
        except BudgetError as error:
            assert factor and error.least > least
            least = error.least
        else:
            break
    else:
        raise AssertionError("not reached")
    with pytest.raises(BudgetError):
        pipeline.quantize(small_hyperprior(), IMAGES, method, Budget("bytes", least - 1), settings)


def test_a_plan_that_was_given_is_refused_before_the_long_work(ends, settings, monkeypatch):
    monkeypatch.setattr(pipeline, "_fit", lambda *_: pytest.fail("the long work has begun"))
    plan = uniform_plan(pipeline.trace_model(small_hyperprior()), 6, 8)
    with pytest.raises(BudgetError, match="this plan takes"):
        pipeline.quantize(small_hyperprior(), IMAGES, "uniform", Budget("bytes", ends[0]), replace(settings, plan=plan))


def test_a_budget_of_another_kind_measures_no_bytes(settings, monkeypatch):
    monkeypatch.setattr(Search, "file_bytes", property(lambda _: pytest.fail("sizes were measured")))
    result = pipeline.quantize(small_hyperprior(), IMAGES, "uniform", Budget("bits", 4), settings)
    assert result.size is None
