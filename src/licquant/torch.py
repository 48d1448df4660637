"""A quantized model as a module of PyTorch, with the methods of CompressAI's models.

    model = licquant.torch.load("model.licq")
    coded = model.compress(x)                                     # x float [B, 3, H, W] in [0, 1]
    x_hat = model.decompress(coded["strings"], coded["shape"])["x_hat"]
    out = model(x)                                                # {"x_hat", "likelihoods": {"y", "z"}}

Scripts that measure CompressAI's models measure it, too: ``compressai.utils.eval_model`` for one. It runs on the CPU
by the codec that ``licquant.load`` gives, so files, pixels and rates are the codec's own; nothing of it is trained.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from licquant import __version__
from licquant.codec.codec import Codec
from licquant.codec.files.artifact import Artifact, artifact_id, read_artifact_bytes
from licquant.codec.files.bitstream import Bitstream
from licquant.errors import ArtifactError, BitstreamError, ImageError, ModelError
from licquant.images import RGB, write_result

__all__ = ["QuantizedModel", "from_pretrained", "load"]

CONFIG, WEIGHTS, MODEL_TYPE = "config.json", "model.licq", "licquant"
_CONFIG_BYTES = 1 << 20  # a config has some hundred


class QuantizedModel(nn.Module):
    """A ``.licq`` file as a module.

    Its parameters are copies of the integer weights, to be counted and looked at: the codec has its own. Tensors may
    be on another device; the images that it gives are on the module's, in its precision (``half``, ``to``).

    artifact_bytes: content of the file;  engine, threads, device: as ``licquant.load`` has them
    Raises ``ArtifactError`` for content that is not an undamaged artifact, ``EngineError`` for a device that it lacks.
    """

    def __init__(
        self, artifact_bytes: bytes, *, engine: str = "openvino", threads: int | None = None, device: str = "CPU"
    ) -> None:
        super().__init__()
        self._made_of = artifact_bytes, engine, threads, device
        self.codec = _codec(*self._made_of)
        # Follows the module to a device and a precision, so that its images are where and what CompressAI's are.
        self.register_buffer("_like", torch.zeros(()), persistent=False)
        self.weights = nn.ParameterDict()
        for name, part in self.codec.artifact.program.items():
            for op in part.operations:
                weight = getattr(op, "weight", None)
                if weight is not None:
                    key = f"{name}_{op.name}".replace(".", "_")
                    self.weights[key] = nn.Parameter(torch.from_numpy(weight.astype(np.int32)), requires_grad=False)

    @torch.no_grad()
    def forward(self, x: Tensor) -> dict[str, Any]:
        """x float [B, 3, H, W] in [0, 1] → ``x_hat`` of that shape, and ``likelihoods`` of every element that is coded.

        ``likelihoods["y"]`` is float [B, M, H', W'], those of ``"z"``, where there is one, [B, N, h, w]: probabilities
        by the integer tables, so that -log2 of them sums to the ideal code length.
        """
        images, bits = [], []
        for rgb in _images(x):
            latents = self.codec.analyse(rgb)
            images.append(self.codec.synthesise(latents.y, *rgb.shape[:2]))
            bits.append(self.codec.element_bits(latents))
        likelihoods = {
            name: torch.from_numpy(np.exp2(-np.stack(of_part)).astype(np.float32)).to(x.device)
            for name, of_part in zip("yz", zip(*bits, strict=True), strict=True)
            if of_part[0].size
        }
        return {"x_hat": self._images_of(images), "likelihoods": likelihoods}

    @torch.no_grad()
    def compress(self, x: Tensor) -> dict[str, Any]:
        """x float [B, 3, H, W] in [0, 1] → ``strings``, one list with a whole .lic file for every image of the batch,
        and ``shape``, (h, w) of the latent that is coded first. Rates count all bytes of a file, as licquant's do.

        Raises ``ImageError`` for another tensor, or an image that is too large.
        """
        strings = [self.codec.encode(rgb) for rgb in _images(x)]
        return {"strings": [strings], "shape": torch.Size(-(-side // self.codec.stride) for side in x.shape[-2:])}

    @torch.no_grad()
    def decompress(self, strings: Sequence[Sequence[bytes]], shape: Sequence[int]) -> dict[str, Any]:
        """``x_hat``, float [B, 3, H, W] in [0, 1], of what ``compress`` gave; H and W are the image's own.

        Raises ``BitstreamError`` for strings that are damaged, of another model, or not of that shape.
        """
        if len(strings) != 1 or not strings[0]:
            raise BitstreamError("strings must be one list with a coded image or more in it, as compress gives it")
        for string in strings[0]:
            stream = Bitstream.from_bytes(string)
            found = tuple(-(-side // self.codec.stride) for side in (stream.height, stream.width))
            if found != tuple(shape):
                raise BitstreamError(f"a coded image has the shape {found}, not {tuple(shape)}")
        images = [self.codec.decode(string) for string in strings[0]]
        if len({image.shape for image in images}) > 1:
            raise BitstreamError("the coded images are of several sizes: decompress them one by one")
        return {"x_hat": self._images_of(images)}

    def update(self, *_: Any, **__: Any) -> bool:
        """False: the coding tables are stored in the file, there is nothing to be made anew."""
        return False

    def load_state_dict(self, *_: Any, **__: Any) -> NoReturn:
        """Raises ``ModelError``: the parameters are copies, which nothing is computed with."""
        raise ModelError("a quantized model is loaded from its .licq file: licquant.torch.load")

    def save_pretrained(self, folder: str | Path) -> None:
        """Write ``config.json`` and ``model.licq``, the layout that ``from_pretrained`` and model hubs know."""
        artifact = self.codec.artifact
        config = {
            "model_type": MODEL_TYPE,
            "architectures": [type(self).__name__],
            "artifact": WEIGHTS,
            "artifact_id": self.codec.id.hex(),
            "family": artifact.family,
            "lmbda": artifact.provenance.get("lmbda"),
            "license": artifact.licence,
            "licquant_version": __version__,
        }
        Path(folder).mkdir(parents=True, exist_ok=True)
        write_result(Path(folder) / WEIGHTS, self._made_of[0])
        write_result(Path(folder) / CONFIG, json.dumps(config, indent=2, ensure_ascii=False).encode() + b"\n")

    def _images_of(self, images: Sequence[RGB]) -> Tensor:
        pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
        return (pixels.float() / 255).to(self.get_buffer("_like"))

    def __getstate__(self) -> dict[str, Any]:
        """Without the codec, which belongs to one process: copies and other processes make their own."""
        return {name: value for name, value in vars(self).items() if name != "codec"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.codec = _codec(*self._made_of)


def load(
    path: str | Path, *, engine: str = "openvino", threads: int | None = None, device: str = "CPU"
) -> QuantizedModel:
    """The module of a ``.licq`` file, ready to evaluate; ``ArtifactError`` for another file.

    engine, threads, device: of the codec, as ``licquant.load`` has them, and its ``EngineError``
    """
    data = read_artifact_bytes(path)
    try:
        return QuantizedModel(data, engine=engine, threads=threads, device=device).eval()
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {error}") from error


def from_pretrained(
    folder: str | Path, *, engine: str = "openvino", threads: int | None = None, device: str = "CPU"
) -> QuantizedModel:
    """The model in a folder with a ``config.json`` that names its ``.licq`` file, as ``save_pretrained`` writes it.

    Nothing is fetched: a model of a hub is downloaded first, with the hub's own client.
    Raises ``ModelError`` for a folder that is none of licquant's, ``ArtifactError`` for a damaged or another artifact
    than its config names.
    """
    if not Path(folder).is_dir():
        raise ModelError(f"{folder}: there is no such folder; a model of a hub must be downloaded first")
    config = _config(Path(folder) / CONFIG)
    name = config.get("artifact", WEIGHTS)
    if not isinstance(name, str) or Path(name).name != name:
        raise ModelError(f"{Path(folder) / CONFIG}: its artifact is not the name of a file beside it")
    model = load(Path(folder) / name, engine=engine, threads=threads, device=device)
    if config.get("artifact_id", model.codec.id.hex()) != model.codec.id.hex():
        raise ArtifactError(f"{Path(folder) / name}: is not the artifact that {CONFIG} names")
    return model


def _config(path: Path) -> Mapping[str, Any]:
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(_CONFIG_BYTES))
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: is not JSON") from error
    if not isinstance(found, dict) or found.get("model_type") != MODEL_TYPE:
        raise ModelError(f"{path}: is not of a licquant model: its model_type is not {MODEL_TYPE!r}")
    return found


def _codec(data: bytes, engine: str, threads: int | None, device: str) -> Codec:
    return Codec(Artifact.from_bytes(data), artifact_id(data), engine, threads, device=device)


def _images(x: Tensor) -> list[RGB]:
    """uint8 H×W×3 of every image of the batch: x·255, rounded."""
    if x.dim() != 4 or x.shape[1] != 3 or not x.is_floating_point() or not x.numel():
        raise ImageError(f"x must be a float tensor [B, 3, H, W] in [0, 1], not {x.dtype} {list(x.shape)}")
    if x.isnan().any():
        raise ImageError("x has values that are no numbers")
    pixels = (x.detach().float() * 255).round().clamp(0, 255).to(torch.uint8)
    return list(np.ascontiguousarray(pixels.permute(0, 2, 3, 1).cpu().numpy()))
