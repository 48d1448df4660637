"""Post-training reconstruction: move weights by fractions of their grid steps so that the whole integer codec
loses less, on the calibration images.

Rounding each weight to nearest minimises the error of the weight, not of the image. Here all layers are adjusted
together by gradient descent through the simulated integer network with the rate-distortion loss as objective (the
idea of RDO-PTQ, Shi 2023; that paper goes block by block and anneals the rounding of each weight, here the
straight-through estimator does for all blocks at once, which is minutes instead of hours). The activation ranges
stay as calibrated: learned ones fit the calibration images and clip others, measured on held-out photographs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from licquant.errors import DataError
from licquant.images import RGB
from licquant.models.graph import NORMALIZATION, Step
from licquant.program.arithmetic import FIXED_POINT_BITS, activation_range
from licquant.quant.calibrate import MULTIPLE
from licquant.quant.gradients import Bfloat16Gradients
from licquant.quant.layers import QuantizedTensor
from licquant.quant.network import QuantizedModel, QuantizedPart
from licquant.quant.rd import evaluate_quantized

CROP = 192
BATCH = 2
WEIGHT_RATE = 0.005  # per step, in grid steps of the weight
BIAS_RATE = 0.002  # per step, in units of the layer's typical output step; for GDN's beta, of its logarithm
WARM_UP = 10


def reconstruct(
    quantized: QuantizedModel,
    images: Sequence[RGB],
    lmbda: float,
    steps: int,
    on_step: Callable[[int], None] = lambda _: None,
    seed: int = 0,
) -> None:
    """Adjust the weights and biases of ``quantized`` in place; the grids stay.

    lmbda: of the rate-distortion loss R + λ·255²·MSE;  steps: of ``BATCH`` random crops each; 0 changes nothing
    Raises ``DataError`` if no image is as large as a crop of 64×64.
    """
    crops = Crops(images, seed)
    offsets = _Offsets(quantized)
    optimizer = torch.optim.Adam(offsets.groups(), betas=(0.9, 0.99))
    factor = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _schedule(step, steps))
    for step in range(steps):
        optimizer.zero_grad()
        with Bfloat16Gradients():
            loss = functional_call(_Loss(quantized, lmbda), offsets.parameters(), (crops.draw(),))
            loss.backward()
        optimizer.step()
        factor.step()
        on_step(step + 1)
    offsets.apply()


class _Loss(nn.Module):
    """The loss as a module, so that its parameters can be replaced by expressions with a gradient."""

    def __init__(self, quantized: QuantizedModel, lmbda: float) -> None:
        super().__init__()
        self.quantized, self.lmbda = quantized, lmbda

    def forward(self, x: Tensor) -> Tensor:
        return evaluate_quantized(self.quantized, x).loss(self.lmbda)


class _Offsets:
    """One trainable offset per weight and bias, each in its own natural step."""

    def __init__(self, quantized: QuantizedModel) -> None:
        self.quantized = quantized
        self.weights: dict[str, tuple[Tensor, Tensor, Tensor]] = {}  # name → start, step, offset
        self.biases: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
        self.logarithmic: set[str] = set()
        names = {id(module): name for name, module in quantized.named_modules()}
        for part in quantized.parts.values():
            assert isinstance(part, QuantizedPart)
            for step in part.graph:
                if step.has_weights:
                    self._add(part, step, f"quantized.{names[id(part.layers[step.name])]}")

    def _add(self, part: QuantizedPart, step: Step, path: str) -> None:
        layer = part.layers[step.name]
        weight, bias = layer.weight.detach(), layer.bias.detach()
        grid = layer.rows() / layer.columns(part.weight_scale(step).detach())  # one integer step of each weight
        self.weights[f"{path}.weight"] = weight, grid, torch.zeros_like(weight, requires_grad=True)
        if step.kind == NORMALIZATION:
            self.logarithmic.add(f"{path}.bias")
            size = torch.ones_like(bias)
        else:
            size = _typical_step(part.tensors[step.name])
        self.biases[f"{path}.bias"] = bias, size, torch.zeros_like(bias, requires_grad=True)

    def groups(self) -> list[dict[str, object]]:
        return [
            {"params": [offset for *_, offset in self.weights.values()], "lr": WEIGHT_RATE},
            {"params": [offset for *_, offset in self.biases.values()], "lr": BIAS_RATE},
        ]

    def parameters(self) -> dict[str, Tensor]:
        """Parameter path → start + step · offset; GDN's beta, which must stay positive: start · exp(offset)."""
        moved = {name: start + size * offset for name, (start, size, offset) in self.weights.items()}
        for name, (start, size, offset) in self.biases.items():
            moved[name] = start * offset.exp() if name in self.logarithmic else start + size * offset
        return moved

    def apply(self) -> None:
        """Write the result into the model."""
        own: Mapping[str, Tensor] = {f"quantized.{n}": p for n, p in self.quantized.named_parameters()}
        with torch.no_grad():
            for name, value in self.parameters().items():
                own[name].copy_(value)


def _typical_step(tensor: QuantizedTensor) -> Tensor:
    """A 255th of a tensor's range, whatever its width; a pixel's step for fixed point."""
    if tensor.bits == FIXED_POINT_BITS:
        return torch.full_like(tensor.scale.detach(), 1 / 255)
    return tensor.scale.detach() * (activation_range(tensor.bits)[1] / 255)


class Crops:
    """Random crops of the calibration images, mirrored at random: [BATCH, 3, CROP, CROP] in [0, 1]."""

    def __init__(self, images: Sequence[RGB], seed: int) -> None:
        side = min(CROP, max((min(image.shape[:2]) for image in images), default=0)) // MULTIPLE * MULTIPLE
        self.side = side
        self.images = [image for image in images if min(image.shape[:2]) >= side]
        if not side:
            raise DataError(f"reconstruction needs calibration images of at least {MULTIPLE}x{MULTIPLE}")
        self.random = np.random.default_rng(seed)

    def draw(self) -> Tensor:
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
