"""Phases and learning rate, by hand-computed values."""

import pytest

from licquant.train.settings import Phase, learning_rate, phase_at, phases
from tests.unit.train.small import recipe


def test_the_last_quarter_takes_large_crops() -> None:
    mine = recipe(steps=100)
    assert phases(mine) == (Phase(0, 75, 64, 4), Phase(75, 100, 128, 2))
    assert [phase_at(mine, step).crop for step in (0, 74, 75, 99)] == [64, 64, 128, 128]


@pytest.mark.parametrize(("share", "crop"), [(0.0, 128), (1.0, 64)])
def test_a_phase_without_steps_does_not_exist(share: float, crop: int) -> None:
    assert [phase.crop for phase in phases(recipe(large_from=share))] == [crop]


def test_warm_up_then_half_a_cosine() -> None:
    mine = recipe(steps=100, warmup=10, learning_rate=1.0, final_rate=0.2)
    # 0.2 + 0.8·(1 + cos(π·step/100))/2, times (step + 1)/10 while that is below 1
    assert learning_rate(mine, 0) == pytest.approx(0.1)
    assert learning_rate(mine, 4) == pytest.approx(0.5 * (0.2 + 0.8 * 0.99605735))
    assert learning_rate(mine, 50) == pytest.approx(0.6)
    assert learning_rate(mine, 99) == pytest.approx(0.2 + 0.8 * 0.00024672)
