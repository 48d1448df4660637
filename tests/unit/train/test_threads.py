"""PyTorch's number of threads after licquant's calls is what it was before them."""

import pytest
import torch

from licquant import pipeline
from licquant.commands.evaluate import References, Running, measure
from licquant.dynamic.finetune import finetune_dynamic
from licquant.errors import TrainingError
from licquant.train.command import run_training
from licquant.train.plan import run_plan
from licquant.train.process import kept_threads


@pytest.mark.parametrize("call", [run_training, run_plan, pipeline.finetune, finetune_dynamic, measure])
def test_every_call_that_sets_them_puts_them_back(call) -> None:
    assert getattr(call, "__wrapped__", None), "is not decorated"
    code = kept_threads()(lambda: None).__code__
    assert call.__code__ is code, "is decorated by something else"


@kept_threads()
def failing(threads: int) -> None:
    torch.set_num_threads(threads)
    raise TrainingError("as on a machine without what was asked for")


def test_they_are_put_back_after_errors_too() -> None:
    before = torch.get_num_threads()
    with pytest.raises(TrainingError):
        failing(before + 1)
    assert torch.get_num_threads() == before


def test_measuring() -> None:
    before = torch.get_num_threads()
    measure([], References([], None), [], Running(before + 1))
    assert torch.get_num_threads() == before
