"""What training minimises: the RD loss (``evaluate/rd.py``), and the auxiliary loss of the coding ranges.

The rate is the estimate -log2 of the likelihoods, per pixel. A likelihood is the difference of two close values of a
distribution function; in bfloat16 little of it is left. So the entropy models leave autocast. And the noise that stands
for rounding is a function of (seed, step, sample in the joint batch) here, not of a running generator: a resumed run
draws what the uninterrupted one drew, two processes draw together what one draws alone.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from compressai.entropy_models import EntropyBottleneck, EntropyModel
from torch import Tensor, nn

from licquant.evaluate.rd import rd_loss
from licquant.train import seeds


class Objective(nn.Module):
    """A CompressAI model together with its losses, so that one backward pass serves both optimizers.

    The auxiliary loss depends on the entropy bottlenecks' quantiles alone, and the rate-distortion loss not
    on them; the gradient of the sum is therefore that of each. One pass also means that every parameter takes
    part in it, as distributed training wants it.
    """

    figures = ("loss", "bpp", "distortion", "auxiliary")

    def __init__(self, model: Any, lmbda: float, metric: str, reduced: bool) -> None:
        """``model``: a CompressAI image model; ``metric`` as in ``Recipe``; ``reduced``: compute in bfloat16."""
        super().__init__()
        self.model, self.lmbda, self.metric = model, lmbda, metric
        self.reduced = reduced

    def forward(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 B×3×H×W → (what is minimised, [4] with the values of ``figures``)."""
        x = samples.float() / 255
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.reduced):
            out = self.model(x)
        pixels = x.shape[0] * x.shape[2] * x.shape[3]
        bpp = sum(-values.float().log2().sum() for values in out["likelihoods"].values()) / pixels
        found = distortion(self.metric, out["x_hat"].float(), x)
        loss, auxiliary = rd_loss(bpp, found, self.lmbda, self.metric), self.model.aux_loss()
        return loss + auxiliary, torch.stack([loss, bpp, found, auxiliary])


def distortion(metric: str, x_hat: Tensor, x: Tensor) -> Tensor:
    """MSE, or 1 - MS-SSIM, of images B×3×H×W in [0, 1]."""
    if metric == "mse":
        return (x_hat - x).square().mean()
    from pytorch_msssim import ms_ssim  # only where it is wanted

    return 1 - ms_ssim(x_hat, x, data_range=1.0)


class Noise:
    """Uniform noise on [-1/2, 1/2), seeded for each sample of the joint batch and each draw of a step."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self.seed = seed
        self.generator = torch.Generator(device)
        self.step = self.first_sample = self.draws = 0

    def begin(self, step: int, first_sample: int) -> None:
        """Start a step; ``first_sample`` is the place in the joint batch of this process's first sample."""
        self.step, self.first_sample, self.draws = step, first_sample, 0

    def like(self, values: Tensor, samples: int, axis: int) -> Tensor:
        """float32 noise like ``values``, whose ``axis`` holds ``samples`` samples after each other."""
        noise = torch.empty(values.shape, device=values.device)
        for index, part in enumerate(noise.chunk(samples, axis)):
            place = self.first_sample + index
            self.generator.manual_seed(seeds.mix(seeds.NOISE, self.seed, self.step, self.draws, place))
            # Filled as its own contiguous tensor: the order of the values must not depend on the others.
            part.copy_(torch.empty(part.shape, device=part.device).uniform_(-0.5, 0.5, generator=self.generator))
        self.draws += 1
        return noise


@contextmanager
def float32_entropy_models(model: nn.Module, noise: Noise) -> Iterator[None]:
    """Within it, the model's entropy models compute in float32 and draw from ``noise``."""
    found = [module for module in model.modules() if isinstance(module, EntropyModel)]
    for module in found:
        # Set on the instance, where they hide the class's methods until they are deleted again.
        forward = partial(_forward, module, module.forward)
        module.forward = forward
        module.quantize = partial(_quantize, module, module.quantize, noise)
    try:
        yield
    finally:
        for module in found:
            del module.__dict__["forward"], module.__dict__["quantize"]


def _forward(module: EntropyModel, forward: Callable[..., Any], *inputs: Tensor, **named: Any) -> Any:
    """``forward`` with its tensors widened, outside of autocast."""
    module.batch_in_use = inputs[0].shape[0]
    named = {name: value.float() if isinstance(value, Tensor) else value for name, value in named.items()}
    with torch.autocast(inputs[0].device.type, enabled=False):
        return forward(*(value.float() for value in inputs), **named)


def _quantize(
    module: EntropyModel,
    quantize: Callable[..., Tensor],
    noise: Noise,
    inputs: Tensor,
    mode: str,
    means: Tensor | None = None,
) -> Tensor:
    """``quantize``, its noise from ``noise``: inputs B×…, or C×1×(B·H·W) inside an entropy bottleneck."""
    if mode != "noise":
        return quantize(inputs, mode, means)
    if isinstance(module, EntropyBottleneck):
        return inputs + noise.like(inputs, module.batch_in_use, axis=-1)
    return inputs + noise.like(inputs, inputs.shape[0], axis=0)
