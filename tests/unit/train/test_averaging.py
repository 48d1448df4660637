"""The moving average by hand."""

import pytest
import torch

from licquant.train.stepper import Average


def test_it_follows_its_formula() -> None:
    weight = torch.nn.Parameter(torch.tensor([0.0]))
    average = Average([weight], decay=0.15)
    values = []
    for value in (1.0, 2.0, 3.0):
        weight.data.fill_(value)
        average.update()
        values.append(average.values[0].item())
    first = 0.9  # d = 1/10
    second = 0.15 * first + 0.85 * 2  # d = min(0.15, 2/11)
    assert values == pytest.approx([first, second, 0.15 * second + 0.85 * 3])


def test_it_goes_on_from_saved_values() -> None:
    weight = torch.nn.Parameter(torch.tensor([4.0]))
    average = Average([weight], decay=0.5)
    average.restore([torch.tensor([2.0])], updates=100)
    average.update()
    assert average.values[0].item() == 3
    assert weight.item() == 4
