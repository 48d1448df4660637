"""CompressAI's models at full size with seeded random weights whose latents look like a trained model's.

Speed, memory and exactness depend on the architecture and on how widely y and σ spread, not on what the weights
mean. So the channels of y get standard deviations from far below the rounding step to several of it, as in trained
models, where most channels hardly carry bits, and σ follows them. Quality cannot be told from such weights.
"""

from __future__ import annotations

from typing import Any

import torch
from compressai.entropy_models import EntropyBottleneck
from compressai.layers import GDN
from compressai.models.base import CompressionModel
from compressai.registry import MODELS
from torch import Tensor, nn

from licquant.images import RGB
from licquant.quant.calibrate import to_tensor

# Of y's channels, in rounding steps; about one bit for each pixel of the image in all.
_SMALLEST_SPREAD, _LARGEST_SPREAD = 0.05, 4.0
_VARIATION = 0.3  # of σ and μ within a channel, as a share of the channel's standard deviation


def untrained_model(name: str, widths: dict[str, Any], image: RGB, seed: int = 0) -> CompressionModel:
    """A model of CompressAI's, ready to code; image: some photograph, which the spreads are set with."""
    torch.manual_seed(seed)
    model = MODELS[name](**widths).eval()
    liven(model)
    with torch.no_grad():
        x = to_tensor(image)
        _spread_latent(model, x)
        _follow_latent(model, x)
    model.update(force=True)
    return model


def liven(model: Any) -> None:
    """Untrained networks hardly react to their input: weights that keep it alive, biases, full GDN, σ near 4."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                transposed = isinstance(module, nn.ConvTranspose2d)
                taps = module.weight[:, 0].numel() / module.stride[0] ** 2 if transposed else module.weight[0].numel()
                nn.init.normal_(module.weight, std=0.8 / taps**0.5)
                if module.bias is not None:
                    nn.init.normal_(module.bias, std=0.1)
            elif isinstance(module, GDN):
                module.gamma.add_(0.2 * torch.rand_like(module.gamma))
            elif isinstance(module, EntropyBottleneck):
                module.quantiles[:, 0, 1] += 0.3 * torch.randn(len(module.quantiles))
        _scale_output(model.g_a, torch.rand(1, 3, 64, 64), 3.0)
        _scale_output(model.g_s, 3 * torch.randn(1, _convolutions(model.g_s)[0].in_channels, 4, 4), 0.2)
        _convolutions(model.g_s)[-1].bias.fill_(0.5)
        for name, module in model.named_modules():
            if name.rpartition(".")[2] in ("h_s", "entropy_parameters") and _convolutions(module):
                last = _convolutions(module)[-1]
                weight = last.weight.transpose(0, 1) if isinstance(last, nn.ConvTranspose2d) else last.weight
                half = len(weight) // 2
                weight[:half] *= 0.2
                last.bias[:half] += 4


def _scale_output(part: Any, x: Tensor, spread: float) -> None:
    """Scale the last layer (and what little follows it) until the part's output has that standard deviation."""
    for _ in range(4):
        _convolutions(part)[-1].weight.mul_(spread / part(x).std())


def _convolutions(module: Any) -> list[Any]:
    return [m for m in module.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]


def _spread_latent(model: Any, x: Tensor) -> None:
    """Scale the channels of g_a's last layer; all alike where an attention block mixes them afterwards."""
    layers = _convolutions(model.g_a)
    last = [layer for layer in layers if layer.stride[0] > 1][-1]
    wanted = _SMALLEST_SPREAD * (_LARGEST_SPREAD / _SMALLEST_SPREAD) ** torch.linspace(0, 1, len(last.weight))
    for _ in range(6):
        y = model.g_a(x)
        spread = _spread(y).clamp(min=1e-6)
        factor = wanted / spread if last is layers[-1] else (wanted.mean() / spread.mean()).expand_as(spread)
        last.weight.mul_(factor.view(-1, 1, 1, 1))
        last.bias.sub_(y.mean((0, 2, 3))).mul_(factor)


def _follow_latent(model: Any, x: Tensor) -> None:
    """σ around the standard deviation of its channel of y, μ around 0; group after group where there are groups."""
    spread, first = _spread(model.g_a(x)), 0
    for name, part in model.named_modules():
        convolutions = _convolutions(part)
        if name.rpartition(".")[2] != _last_part(model) or not convolutions:
            continue
        layer = convolutions[-1]
        count = layer.out_channels // (1 if _last_part(model) == "h_s" and layer.out_channels == len(spread) else 2)
        own = spread[first : first + count]
        seen: list[Tensor] = []
        handle = layer.register_forward_hook(lambda module, inputs, output, seen=seen: seen.append(output))
        model(x)
        handle.remove()
        output = torch.cat(seen)
        factor = _VARIATION * own.repeat(layer.out_channels // count) / _spread(output).clamp(min=1e-6)
        weight = layer.weight.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else layer.weight
        weight.mul_(factor.view(-1, 1, 1, 1))
        layer.bias.sub_(output.mean((0, 2, 3))).mul_(factor)
        layer.bias[:count] += own
        first += count


def _last_part(model: nn.Module) -> str:
    """The name of the parts that give σ and μ."""
    names = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    return "entropy_parameters" if "entropy_parameters" in names else "h_s"


def _spread(tensor: Tensor) -> Tensor:
    """Standard deviation of every channel, [C]."""
    return tensor.transpose(0, 1).flatten(1).std(1)
