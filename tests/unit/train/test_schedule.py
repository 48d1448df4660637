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


def test_a_short_run_does_not_warm_up_most_of_the_time() -> None:
    """60 steps, a warm-up of 50: ten raise the rate, as where 10 are asked for."""
    short = recipe(steps=60, warmup=50)
    assert [learning_rate(short, step) for step in range(60)] == [
        learning_rate(recipe(steps=60, warmup=10), step) for step in range(60)
    ]
    assert learning_rate(short, 9) == learning_rate(recipe(steps=60, warmup=0), 9)
    assert learning_rate(recipe(steps=5, warmup=50), 0) == recipe().learning_rate
