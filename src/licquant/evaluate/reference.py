"""The FP32 reference: a CompressAI model through its own ``compress`` and ``decompress``, real strings."""

import struct
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from compressai.latent_codecs import ChannelGroupsLatentCodec, HyperpriorLatentCodec

from licquant.evaluate.codec_results import ImageResult, OnCoded, evaluate_codec
from licquant.evaluate.rd import MSE
from licquant.images import RGB, crop, pad_to_multiple

# What CompressAI's models need: up to six steps of stride 2 (its examples pad to the same).
PADDING = 64
HYPER_STRIDE = 4  # elements of y for each of z, each way

# Width and height of the image, width and height of the latent, number of strings; their lengths (uint32)
# follow.
HEADER = struct.Struct("<4HB")


class ReferenceCodec:
    """A CompressAI model behind licquant's ``encode`` and ``decode``.

    A coded image is a small header (``HEADER``, the strings' lengths) and the model's strings. Images are
    extended at the bottom and the right by repeating the edge, as licquant's own codec does: CompressAI's
    examples pad with black all around, which would cost the reference bits. At multiples of 64 it is all the
    same.
    """

    def __init__(self, model: Any) -> None:
        """``model``: a CompressAI ``CompressionModel`` after ``eval()`` and ``update()``."""
        if model.training:
            raise ValueError("the reference model must be in evaluation mode: call eval() and update() first")
        self.model = model
        self.device = next(model.parameters()).device

    @torch.inference_mode()
    def encode(self, rgb: RGB) -> bytes:
        """uint8 H×W×3 → header and strings."""
        height, width = rgb.shape[:2]
        samples = torch.from_numpy(pad_to_multiple(rgb, PADDING)).to(self.device)
        x = samples.permute(2, 0, 1)[None].contiguous().float() / 255  # H×W×3 → 1×3×H×W, [0, 1]
        coded = self.model.compress(x)
        strings = [batch[0] for batch in coded["strings"]]
        latent_height, latent_width = coded["shape"]["hyper"] if isinstance(coded["shape"], dict) else coded["shape"]
        header = HEADER.pack(width, height, latent_width, latent_height, len(strings))
        lengths = struct.pack(f"<{len(strings)}I", *map(len, strings))
        return b"".join([header, lengths, *strings])

    @torch.inference_mode()
    def decode(self, data: bytes) -> RGB:
        """Header and strings → uint8 H×W×3: clamped to [0, 1], rounded to the nearest of the 256 levels."""
        width, height, latent_width, latent_height, count = HEADER.unpack_from(data)
        lengths = struct.unpack_from(f"<{count}I", data, HEADER.size)
        ends = np.cumsum([HEADER.size + 4 * count, *lengths])
        strings = [[data[start:end]] for start, end in pairwise(ends)]
        x_hat = self.model.decompress(strings, self._shape(latent_height, latent_width))["x_hat"]
        samples = (x_hat[0].clamp(0, 1) * 255).round().to(torch.uint8)
        return crop(samples.permute(1, 2, 0).cpu().numpy(), height, width)  # 3×H×W → H×W×3

    def _shape(self, height: int, width: int) -> Any:
        """What the model's ``decompress`` wants to know, for a z of that size: models with latent codecs also y's."""
        codec = getattr(self.model, "latent_codec", None)
        if not isinstance(codec, HyperpriorLatentCodec):
            return height, width
        size = (HYPER_STRIDE * height, HYPER_STRIDE * width)
        if isinstance(codec.y, ChannelGroupsLatentCodec):
            return {"hyper": (height, width), "y": [(channels, *size) for channels in codec.y.groups]}
        return {"hyper": (height, width), "y": (codec.y.context_prediction.in_channels, *size)}


def string_bytes(data: bytes) -> int:
    """How many bytes of a coded image of ``ReferenceCodec`` are the model's strings, without the header."""
    count = HEADER.unpack_from(data)[-1]
    return len(data) - HEADER.size - 4 * count


def evaluate_reference(
    model: Any,
    image_paths: Iterable[Path],
    lmbda: float,
    *,
    metric: str = MSE,
    on_result: Callable[[ImageResult], object] | None = None,
    on_coded: OnCoded | None = None,
) -> list[ImageResult]:
    """``evaluate_codec`` for a CompressAI model after ``eval()`` and ``update()``; strings alone are rate."""
    return evaluate_codec(
        ReferenceCodec(model),
        image_paths,
        lmbda,
        metric=metric,
        counted_bytes=string_bytes,
        on_result=on_result,
        on_coded=on_coded,
    )
