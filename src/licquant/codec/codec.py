"""Image to bytes and back with a loaded artifact."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from licquant.codec.artifact import Artifact, artifact_id, read_artifact_bytes
from licquant.codec.bitstream import Bitstream
from licquant.codec.factorized import NO_Z
from licquant.codec.families import latent_coder
from licquant.codec.hyperprior import GaussianCoder
from licquant.codec.tiling import TILE_PIXELS
from licquant.codec.transform import DynamicTransform, StaticTransform
from licquant.errors import ArtifactError, BitstreamError
from licquant.images import RGB, check_rgb, crop, pad_to_multiple
from licquant.program.arithmetic import Ints
from licquant.program.chain import Engine
from licquant.program.exact import ExactEngine
from licquant.program.part import Part, Program
from licquant.program.threads import limited_threads

ENGINES = ("openvino", "exact")
_PROBE = 1 << 12  # pixels: a size that every stride divides


@dataclass(frozen=True, eq=False)
class Latents:
    """What is coded, e.g. for strides of 16 and 4.

    y: ŷ as g_s reads it, int32 [M, H/16, W/16]: whole symbols if all means are 0, else fixed point
    z: symbols of z, int32 [N, H/64, W/64]; empty where the family has none
    """

    y: Ints
    z: Ints


class Codec:
    """Encodes and decodes images with one artifact.

    artifact: the quantized model;  id: its 8 bytes in every coded image
    """

    def __init__(
        self, artifact: Artifact, identity: bytes, engine: str = "openvino", threads: int | None = None
    ) -> None:
        if engine not in ENGINES:
            raise ValueError(f"unknown engine {engine!r}: choose one of {', '.join(ENGINES)}")
        self.artifact, self.id, self._threads = artifact, identity, threads
        self.coder = latent_coder(artifact.family, artifact.program, artifact.tables)
        program = artifact.program
        run = partial(_engine, engine=engine, threads=threads)
        self._h_a = run(program["h_a"]).run if "h_a" in program else None
        latent_stride, self._coded_stride = _strides(program)
        self._g_a, self._g_s = (
            DynamicTransform(artifact.dynamic[name], run, tile)
            if name in artifact.dynamic
            else StaticTransform(program[name], run(program[name]), tile)
            for name, tile in (("g_a", TILE_PIXELS // latent_stride), ("g_s", TILE_PIXELS))
        )

    def encode(self, rgb: RGB) -> bytes:
        """The coded image for uint8 H×W×3, H and W ≥ 1; ``ImageError`` for another array."""
        check_rgb(rgb)
        with limited_threads(self._threads):
            strings = self.coder.encode(*self._transform(rgb))
        return Bitstream(self.id, rgb.shape[1], rgb.shape[0], strings).to_bytes()

    def decode(self, data: bytes) -> RGB:
        """The image uint8 H×W×3; ``BitstreamError`` if the data is damaged or was coded with another artifact."""
        stream = self._parse(data)
        with limited_threads(self._threads):
            return self.synthesise(self._symbols(stream).y, stream.height, stream.width)

    def decode_symbols(self, data: bytes) -> Latents:
        """The coded latents alone: what must be the same on every machine."""
        with limited_threads(self._threads):
            return self._symbols(self._parse(data))

    def analyse(self, rgb: RGB) -> Latents:
        """What is coded for an image."""
        with limited_threads(self._threads):
            y, z = self._transform(rgb)
            return Latents(self.coder.quantize(y, z), z)

    def synthesise(self, y: Ints, height: int, width: int) -> RGB:
        """The image of that size for ŷ."""
        pixels = self._g_s.run(y)
        return crop(np.moveaxis(pixels, 0, -1).astype(np.uint8, copy=False), height, width)

    def analysis_widths(self, rgb: RGB) -> dict[str, int]:
        """Stage of g_a → the width that ``encode`` chooses for this image; empty where no widths are chosen."""
        check_rgb(rgb)
        with limited_threads(self._threads):
            return self._g_a.widths(self._planes(rgb))

    def synthesis_widths(self, y: Ints) -> dict[str, int]:
        """Stage of g_s → the width that is chosen for ŷ (``Latents.y``), the same on every machine."""
        with limited_threads(self._threads):
            return self._g_s.widths(y)

    def entropy_bits(self, latents: Latents) -> float:
        """Ideal code length under the artifact's integer tables."""
        return self.coder.entropy_bits(latents.y, latents.z)

    def _transform(self, rgb: RGB) -> tuple[Ints, Ints]:
        """(y in fixed point, symbols of z) of an image."""
        y = self._g_a.run(self._planes(rgb))
        if self._h_a is None:
            return y, NO_Z
        assert isinstance(self.coder, GaussianCoder)
        return y, self.coder.round_hyper(self._h_a(y))

    def _planes(self, rgb: RGB) -> Ints:
        """What g_a reads: [3, H, W], padded."""
        return np.moveaxis(pad_to_multiple(rgb, self._coded_stride), -1, 0)

    def _parse(self, data: bytes) -> Bitstream:
        stream = Bitstream.from_bytes(data)
        if stream.artifact_id != self.id:
            raise BitstreamError(
                f"coded with another model: it names artifact {stream.artifact_id.hex()}, this one is {self.id.hex()}"
            )
        return stream

    def _symbols(self, stream: Bitstream) -> Latents:
        size = (-(-stream.height // self._coded_stride), -(-stream.width // self._coded_stride))
        return Latents(*self.coder.decode(stream.strings, size))


def load(path: str | Path, *, engine: str = "openvino", threads: int | None = None) -> Codec:
    """The codec in a ``model.licq`` file.

    engine:  ``"openvino"`` (fast) or ``"exact"`` (slow: exact integers for the free zone too)
    threads: how many OpenVINO and NumPy's BLAS may use; None leaves the choice to them

    Raises ``ArtifactError`` for a file that is not an undamaged artifact.
    """
    data = read_artifact_bytes(path)
    try:
        artifact = Artifact.from_bytes(data)
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {error}") from error
    return Codec(artifact, artifact_id(data), engine, threads)


def _strides(program: Program) -> tuple[int, int]:
    """Pixels per element of y, and of the latent that is coded first (z where there is one).

    Raises ``ArtifactError`` unless every synthesis undoes the strides of its analysis.
    """
    latent = program["g_a"].output_size((_PROBE, _PROBE))
    coded = latent
    if "h_a" in program:
        coded = program["h_a"].output_size(latent)
        if program["h_s"].output_size(coded) != latent:
            raise ArtifactError("the program's hyper synthesis does not undo the strides of its analysis")
    if min(coded) < 1 or program["g_s"].output_size(latent) != (_PROBE, _PROBE):
        raise ArtifactError("the program's synthesis does not undo the strides of its analysis")
    return _PROBE // latent[0], _PROBE // coded[0]


def _engine(part: Part, engine: str, threads: int | None) -> Engine:
    if engine == "exact":
        return ExactEngine(part)
    from licquant.program.openvino_engine import OpenVinoEngine  # here, as the exact engine does without OpenVINO

    return OpenVinoEngine(part, threads)
