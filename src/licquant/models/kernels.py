"""Which of PyTorch's kernels are right, and which are fast.

oneDNN (uxlfoundation/oneDNN#6035) writes past a workspace in the gradient of the weights of a 1x1 convolution with
stride 2 or more, 2 to 15 input channels and channels innermost: a crash, or on some machines wrong gradients and
nothing said. Such a convolution reads every stride-th position only. Taking those first and then multiplying with
stride 1 is the same sum, never meets that kernel, and reads no more memory.

bfloat16 saves time only where a processor multiplies it natively; emulated it takes three times float32's.
"""

from __future__ import annotations

import platform

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LAYOUT = "channels_last"  # of ``channels_innermost``, as PyTorch calls it


def conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int = 1, padding: int = 0, groups: int = 1
) -> Tensor:
    """``F.conv2d`` of x [B, I, H, W] with weight [O, I/groups, kh, kw]; 1x1 with a stride as said above."""
    if weight.shape[2:] == (1, 1) and stride > 1:
        x = F.pad(x, [padding] * 4) if padding else x
        return F.conv2d(x[..., ::stride, ::stride], weight, bias, groups=groups)
    return F.conv2d(x, weight, bias, stride, padding, groups=groups)


class StridedPointwise(nn.Conv2d):
    """A 1x1 convolution with a stride, zeros for padding: CompressAI's skip connections."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return conv2d(input, weight, bias, self.stride[0], int(self.padding[0]), self.groups)


def channels_innermost(model: nn.Module) -> None:
    """Lay ``model`` out as ``torch.channels_last``, in which its strided 1x1 convolutions are then right too."""
    model.to(memory_format=torch.channels_last)
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and _is_strided_pointwise(module):
            module.__class__ = StridedPointwise


def _is_strided_pointwise(module: nn.Conv2d) -> bool:
    """One whose own class computes nothing else, with one stride and one padding, filled with zeros."""
    plain = type(module)._conv_forward is nn.Conv2d._conv_forward and type(module).forward is nn.Conv2d.forward
    strides, fills = set(module.stride), {module.padding_mode, *map(str, module.padding)}
    return plain and module.kernel_size == (1, 1) and len(strides) == 1 and strides != {1} and len(fills) == 2


_X86 = ("x86_64", "amd64", "i386", "i686")


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether ``device`` has instructions for products of bfloat16.

    oneDNN's own answer is yes for every x86 processor with AVX-512, since there it can imitate them.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    if platform.machine().lower() in _X86:
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
