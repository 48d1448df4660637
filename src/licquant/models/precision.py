"""Where bfloat16 saves time: only where a processor multiplies it natively; emulated it takes three times float32's."""

from __future__ import annotations

import platform

import torch

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
