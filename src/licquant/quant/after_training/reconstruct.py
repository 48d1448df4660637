"""Post-training reconstruction: move weights by fractions of their grid steps so that the whole integer codec
loses less, on the calibration images.

Rounding each weight to nearest minimises the error of the weight, not of the image. Here all layers are adjusted
together by gradient descent through the simulated integer network with the rate-distortion loss as objective (the
idea of RDO-PTQ, Shi 2023; that paper goes block by block and anneals the rounding of each weight, here the
straight-through estimator does for all blocks at once, which is minutes instead of hours). The activation ranges
stay as calibrated: learned ones fit the calibration images and clip others, measured on held-out photographs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from licquant.config import check_lmbda
from licquant.errors import DataError
from licquant.images import RGB
from licquant.quant.bfloat16_gradients import Bfloat16Gradients
from licquant.quant.calibrate import MULTIPLE
from licquant.quant.natural import only_trained, settle, weights_and_biases
from licquant.quant.network import QuantizedModel
from licquant.quant.rd import evaluate_quantized

CROP = 192
BATCH = 2
WEIGHT_RATE = 0.01  # per step, in grid steps of the weight
BIAS_RATE = 0.002  # per step, in units of the layer's typical output step; for GDN's beta, of its logarithm
WARM_UP = 10


def reconstruct(
    quantized: QuantizedModel,
    images: Sequence[RGB],
    lmbda: float,
    steps: int,
    on_step: Callable[[int], None] = lambda _: None,
) -> None:
    """Adjust the weights and biases of ``quantized`` in place; the grids stay.

    lmbda: of the rate-distortion loss R + λ·255²·MSE;  steps: of ``BATCH`` random crops each; 0 changes nothing
    Raises ``DataError`` if no image is as large as a crop of 64×64.
    """
    check_lmbda(lmbda)
    crops = CalibrationCrops(images, seed=0)
    weights, biases = weights_and_biases(quantized)
    groups = [{"params": weights, "lr": WEIGHT_RATE}, {"params": biases, "lr": BIAS_RATE}]
    optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99))
    factor = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _schedule(step, steps))
    with only_trained(quantized, [*weights, *biases]):
        for step in range(steps):
            optimizer.zero_grad()
            with Bfloat16Gradients():
                loss = evaluate_quantized(quantized, crops.draw()).loss(lmbda)
                loss.backward()
            optimizer.step()
            factor.step()
            on_step(step + 1)
    settle(quantized)


class CalibrationCrops:
    """Random crops of the calibration images, mirrored at random: [BATCH, 3, CROP, CROP] in [0, 1]."""

    def __init__(self, images: Sequence[RGB], seed: int) -> None:
        side = min(CROP, max((min(image.shape[:2]) for image in images), default=0)) // MULTIPLE * MULTIPLE
        self.side = side
        self.images = [image for image in images if min(image.shape[:2]) >= side]
        if not side:
            raise DataError(f"reconstruction needs calibration images of at least {MULTIPLE}x{MULTIPLE}")
        self.random = np.random.default_rng(seed)

    def draw(self) -> Tensor:
        """``BATCH`` crops at random places, half of them mirrored: float32 [B, 3, side, side] in [0, 1]."""
        crops = []
        for index in self.random.integers(len(self.images), size=BATCH):
            image = self.images[index]
            top, left = (int(self.random.integers(n - self.side + 1)) for n in image.shape[:2])
            crop = image[top : top + self.side, left : left + self.side]
            crops.append(crop[:, ::-1] if self.random.random() < 0.5 else crop)
        return torch.from_numpy(np.stack(crops).transpose(0, 3, 1, 2).copy()).float() / 255


def _schedule(step: int, steps: int) -> float:
    """Linear warm-up, then half a cosine to zero."""
    if step < WARM_UP:
        return (step + 1) / WARM_UP
    return 0.5 * (1 + float(np.cos(np.pi * min(1.0, (step - WARM_UP) / max(1, steps - WARM_UP)))))
