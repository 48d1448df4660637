"""Crop size, batch size and learning rate: pure functions of the recipe and the step, so nothing to save."""

import math
from dataclasses import dataclass

from licquant.train.settings import BaseRecipe


@dataclass(frozen=True)
class Phase:
    """Steps ``start`` to ``stop`` - 1 take ``batch`` crops of ``crop``×``crop`` pixels each."""

    start: int
    stop: int
    crop: int
    batch: int


def phases(recipe: BaseRecipe) -> tuple[Phase, ...]:
    """Small crops first, for many steps in little time; large ones at the end, for borders and long range."""
    turn = round(recipe.large_from * recipe.steps)
    both = (
        Phase(0, turn, recipe.crop, recipe.batch),
        Phase(turn, recipe.steps, recipe.large_crop, recipe.large_batch),
    )
    return tuple(phase for phase in both if phase.stop > phase.start)


def phase_at(recipe: BaseRecipe, step: int) -> Phase:
    """The phase that ``step``, 0 to steps - 1, falls in."""
    return next(phase for phase in phases(recipe) if step < phase.stop)


def learning_rate(recipe: BaseRecipe, step: int) -> float:
    """Linear from 0 over the warm-up, times a half cosine over all steps down to ``final_rate``."""
    warm = min(1.0, (step + 1) / max(1, recipe.warmup))
    cosine = 0.5 * (1 + math.cos(math.pi * step / recipe.steps))
    return recipe.learning_rate * warm * (recipe.final_rate + (1 - recipe.final_rate) * cosine)
