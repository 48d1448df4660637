"""Convolutions that run forward in float32 and backward in bfloat16, where the processor multiplies it natively.

The forward pass stands for integers and must not be rounded; gradients may be. Backward is two thirds of the work,
so this halves the time of reconstruction.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from licquant.models.kernels import multiplies_bfloat16

Sides = int | tuple[int, int]  # one number for both, or height and width


class Bfloat16Gradients(TorchFunctionMode):
    """While active, every convolution's gradients are computed in bfloat16; elsewhere, and without support, nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.supported = multiplies_bfloat16(torch.device("cpu"))

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if self.supported and func is F.conv2d and args[0].device.type == "cpu":
            return _Convolution.apply(*_plain(*args, **(kwargs or {})))
        if self.supported and func is F.conv_transpose2d and args[0].device.type == "cpu":
            return _Convolution.apply(*_transposed(*args, **(kwargs or {})))
        return func(*args, **(kwargs or {}))


def _plain(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sides = 1,
    padding: Sides = 0,
    dilation: Sides = 1,
    groups: int = 1,
) -> tuple[Any, ...]:
    return x, weight, bias, (_pair(stride), _pair(padding), _pair(dilation), False, [0, 0], groups)


def _transposed(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sides = 1,
    padding: Sides = 0,
    output_padding: Sides = 0,
    groups: int = 1,
    dilation: Sides = 1,
) -> tuple[Any, ...]:
    return x, weight, bias, (_pair(stride), _pair(padding), _pair(dilation), True, _pair(output_padding), groups)


def _pair(sides: Sides) -> list[int]:
    return [sides] * 2 if isinstance(sides, int) else list(sides)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: tuple[Any, ...]) -> Tensor:
        ctx.geometry = geometry
        ctx.save_for_backward(x.bfloat16(), weight.bfloat16())
        return torch.convolution(x, weight, bias, *geometry)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        outputs = gradients[0].shape[1]
        found = torch.ops.aten.convolution_backward(
            gradients[0].bfloat16(),
            x,
            weight,
            [outputs],
            *ctx.geometry,
            [ctx.needs_input_grad[0], ctx.needs_input_grad[1], False],
        )
        bias = gradients[0].sum((0, 2, 3)) if ctx.needs_input_grad[2] else None
        return *(None if g is None else g.float() for g in found[:2]), bias, None
