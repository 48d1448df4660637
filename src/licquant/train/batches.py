"""Random crops: which ones a step sees is a function of (seed, step), not of what was drawn before."""

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from licquant.errors import DataError
from licquant.train import seeds
from licquant.train.pixels import Pixels
from licquant.train.settings import BaseRecipe, phase_at, phases


class Crops:
    """The batches of a training run, for one of ``world`` processes.

    Each phase goes through its images in a new random order every epoch. A process takes its contiguous share
    of each batch, so the processes together see exactly the batch that one alone would.
    """

    def __init__(self, pixels: Pixels, recipe: BaseRecipe, rank: int = 0, world: int = 1) -> None:
        """Raises ``DataError`` if a phase has no image that is large enough, or a batch not to be shared."""
        self.pixels, self.recipe, self.rank, self.world = pixels, recipe, rank, world
        self.usable = {phase.crop: pixels.at_least(phase.crop) for phase in phases(recipe)}
        for phase in phases(recipe):
            if not self.usable[phase.crop]:
                raise DataError(
                    f"no image is as large as the {phase.crop}x{phase.crop} crops: "
                    f"{len(pixels)} are readable but smaller"
                )
            if phase.batch % world:
                raise DataError(f"a batch of {phase.batch} cannot be shared equally by {world} processes")
        # One order at a time is in use; a batch that crosses an epoch needs two.
        self._order = lru_cache(maxsize=4)(self._draw_order)

    def too_small(self) -> dict[int, int]:
        """Crop size → number of readable images that it cannot be taken from."""
        return {crop: len(self.pixels) - len(indices) for crop, indices in self.usable.items()}

    def first_sample(self, step: int) -> int:
        """Position in the joint batch of this process's first crop."""
        return self.rank * phase_at(self.recipe, step).batch // self.world

    def batch(self, step: int) -> Tensor:
        """This process's crops for ``step``: uint8 B×3×crop×crop in channels-last memory layout."""
        phase = phase_at(self.recipe, step)
        share, first = phase.batch // self.world, self.first_sample(step)
        crops = np.empty((share, phase.crop, phase.crop, 3), np.uint8)
        for slot in range(share):
            number = (step - phase.start) * phase.batch + first + slot
            random = np.random.Generator(
                np.random.Philox(key=seeds.mix(seeds.CROPS, self.recipe.seed, step, first + slot))
            )
            crops[slot] = _random_crop(self.pixels.image(self._image(phase.crop, number)), phase.crop, random)
        return torch.from_numpy(crops).permute(0, 3, 1, 2)  # B×H×W×3 → B×3×H×W, memory untouched

    def _image(self, crop: int, number: int) -> int:
        """The image of the phase's crop ``number``."""
        epoch, position = divmod(number, len(self.usable[crop]))
        return self.usable[crop][self._order(crop, epoch)[position]]

    def _draw_order(self, crop: int, epoch: int) -> NDArray[np.int64]:
        key = seeds.mix(seeds.ORDER, self.recipe.seed, crop, epoch)
        return np.random.Generator(np.random.Philox(key=key)).permutation(len(self.usable[crop]))


def _random_crop(rgb: NDArray[np.uint8], side: int, random: np.random.Generator) -> NDArray[np.uint8]:
    """side×side×3 from a uniformly drawn place, mirrored in half of the cases."""
    top = int(random.integers(rgb.shape[0] - side + 1))
    left = int(random.integers(rgb.shape[1] - side + 1))
    crop = rgb[top : top + side, left : left + side]
    return crop[:, ::-1] if random.integers(2) else crop


def ahead(crops: Crops, start: int, stop: int) -> Generator[tuple[int, Tensor], None, None]:
    """(step, batch) for the steps ``start`` to ``stop`` - 1; the next is made while one is in use."""
    if start >= stop:
        return
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="crops") as pool:
        coming = pool.submit(crops.batch, start)
        for step in range(start, stop):
            batch = coming.result()
            if step + 1 < stop:
                coming = pool.submit(crops.batch, step + 1)
            yield step, batch
