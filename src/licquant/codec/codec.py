"""Image to bytes and back with a loaded artifact."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from licquant.codec.files.artifact import Artifact, artifact_id, read_artifact_bytes, whole_id
from licquant.codec.files.bitstream import Bitstream
from licquant.codec.files.extra_fields import from_fields, to_fields
from licquant.codec.latents.factorized import NO_Z
from licquant.codec.latents.families import latent_coder
from licquant.codec.latents.hyperprior import GaussianCoder
from licquant.codec.memory import MAX_MEMORY, image_bytes
from licquant.codec.regions import EdgePadded, Regions, packed, regions_for, regions_of, unpacked
from licquant.codec.tiling import TILE_PIXELS, Window
from licquant.codec.transform import DynamicTransform, StaticTransform
from licquant.errors import ArtifactError, BitstreamError, EngineError, ImageError, LoweringError
from licquant.images import RGB, Extras, check_rgb, check_size, crop, pad_to_multiple
from licquant.program.arithmetic import Ints
from licquant.program.chain import Engine
from licquant.program.exact import ExactEngine
from licquant.program.part import Part, Program
from licquant.program.threads import beside, limited_threads
from licquant.ready import Ready

_LOG = logging.getLogger(__name__)
ENGINES = ("openvino", "exact")
_CPU = "CPU"
NO_EXTRAS = Extras()
_PROBE = 1 << 12  # pixels: a size that every stride divides


@dataclass(frozen=True, eq=False)
class Latents:
    """What is coded, e.g. for strides of 16 and 4.

    y: ŷ as g_s reads it, int32 [M, H/16, W/16]: whole symbols if all means are 0, else fixed point
    z: symbols of z, int32 [N, H/64, W/64]; empty where the family has none
    widths: stage of g_a → the width that ``analyse`` chose; empty where none is chosen, and of decoded latents
    """

    y: Ints
    z: Ints
    widths: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Service:
    """ready: where compiled parts may be found, or else are kept;  callers: as in ``load``"""

    ready: Ready = Ready()  # noqa: RUF009 (is frozen)
    callers: int = 1


class Codec:
    """Encodes and decodes images with one artifact.

    artifact: the quantized model;  id: its 8 bytes in every coded image
    stride: pixels, of either side, per position of the latent that is coded first: z where there is one, else y
    """

    def __init__(
        self,
        artifact: Artifact,
        identity: bytes,
        engine: str = "openvino",
        threads: int | None = None,
        max_memory: int = MAX_MEMORY,
        device: str = _CPU,
        service: Service = Service(),
    ) -> None:
        if engine not in ENGINES:
            raise ValueError(f"unknown engine {engine!r}: choose one of {', '.join(ENGINES)}")
        device = _checked_device(engine, device)
        self.artifact, self.id, self._threads = artifact, identity, threads
        self._known_sizes: dict[tuple[Regions, bool], int] = {}  # and whether to encode → bytes of memory
        self._fast, self._max_memory = engine == "openvino", max_memory
        self.coder = latent_coder(artifact.family, artifact.program, artifact.tables)
        program = artifact.program
        run = partial(_engine, engine=engine, threads=threads, device=device, callers=service.callers)
        self._h_a = run(program["h_a"], ready=service.ready.of("h_a")).run if "h_a" in program else None
        self._strides = latent_stride, self.stride = strides_of(program)
        self._g_a, self._g_s = (
            DynamicTransform(artifact.dynamic[name], run, tile)
            if name in artifact.dynamic
            else StaticTransform(program[name], run(program[name], ready=service.ready.of(name)), tile)
            for name, tile in (("g_a", TILE_PIXELS // latent_stride), ("g_s", TILE_PIXELS))
        )

    def encode(self, rgb: RGB, extras: Extras = NO_EXTRAS) -> bytes:
        """The coded image for uint8 H×W×3, H and W ≥ 1; ``ImageError`` for another array, or one too large.

        extras: what is coded beside it, without loss (``licquant.read_picture`` gives both)
        """
        return self.encode_with_widths(rgb, extras)[0]

    def decode(self, data: bytes) -> RGB:
        """The image uint8 H×W×3.

        Raises ``BitstreamError`` if the data is damaged, was coded with another artifact, or claims so large an
        image that decoding it takes more memory than allowed.
        """
        return self.decode_with_widths(data)[0]

    def extras(self, data: bytes) -> Extras:
        """What was coded beside the image; raises ``BitstreamError`` as ``decode`` does."""
        return from_fields(self._parse(data))

    def encode_with_widths(self, rgb: RGB, extras: Extras = NO_EXTRAS) -> tuple[bytes, dict[str, int]]:
        """As ``encode``, with stage of g_a → the width it chose for the image; empty where none is chosen."""
        check_rgb(rgb)
        check_size(rgb.shape[1], rgb.shape[0])
        fields = to_fields(extras, rgb.shape[0], rgb.shape[1])
        with self._within_limits(rgb.shape[0], rgb.shape[1], encode=True):
            y, widths = self._analysed(rgb)
            regions = self._regions(rgb.shape[0], rgb.shape[1])
            coded = [self.coder.encode(*self._latents_of(y, regions, *region)) for region in regions]
        strings, divided = packed(regions, coded, self.stride)
        return Bitstream(self.id, rgb.shape[1], rgb.shape[0], strings, {**fields, **divided}).to_bytes(), widths

    def decode_with_widths(self, data: bytes) -> tuple[RGB, dict[str, int]]:
        """As ``decode``, with stage of g_s → the width it chose; empty where none is chosen."""
        stream = self._parse(data)
        from_fields(stream)  # damaged ones are refused by whoever reads the file
        with self._within_limits(stream.height, stream.width, self._regions_of(stream)):
            with beside(self._g_s.prepare):
                y = self._symbols(stream).y
            return self._synthesised(y, stream.height, stream.width)

    def decode_region(self, data: bytes, x: int, y: int, width: int, height: int) -> RGB:
        """The part of ``decode(data)`` whose left column is x, whose top row is y: uint8 height×width×3.

        All symbols are decoded, of the pixels only the tiles that the part touches. Raises ``BitstreamError`` as
        ``decode``, and for a part that does not lie within the image.
        """
        stream = self._parse(data)
        if min(x, y) < 0 or min(width, height) < 1 or x + width > stream.width or y + height > stream.height:
            wanted = f"{width}×{height} pixels at {x},{y}"
            raise BitstreamError(f"{wanted} do not lie within the image of {stream.width}×{stream.height}")
        with self._within_limits(stream.height, stream.width, self._regions_of(stream)):
            pixels, _ = self._g_s.run(self._symbols(stream).y, Window((y, y + height), (x, x + width)))
            return np.ascontiguousarray(np.moveaxis(pixels, 0, -1).astype(np.uint8, copy=False))

    def decode_symbols(self, data: bytes) -> Latents:
        """The coded latents alone: what must be the same on every machine."""
        stream = self._parse(data)
        with self._within_limits(stream.height, stream.width, self._regions_of(stream)):
            return self._symbols(stream)

    def analyse(self, rgb: RGB) -> Latents:
        """What is coded for an image."""
        with self._within_limits(rgb.shape[0], rgb.shape[1], encode=True):
            y, widths = self._analysed(rgb)
            regions = self._regions(rgb.shape[0], rgb.shape[1])
            latents = [self._latents_of(y, regions, *region) for region in regions]
            y_hat = regions.joined([self.coder.quantize(*of_region) for of_region in latents], regions.ratio)
            return Latents(y_hat, regions.joined([z for _, z in latents], 1), widths)

    def synthesise(self, y: Ints, height: int, width: int) -> RGB:
        """The image of that size for ŷ."""
        return self._synthesised(y, height, width)[0]

    def synthesis_widths(self, y: Ints) -> dict[str, int]:
        """Stage of g_s → the width that is chosen for ŷ (``Latents.y``), the same on every machine."""
        with limited_threads(self._threads):
            return self._g_s.widths(y)

    def entropy_bits(self, latents: Latents) -> float:
        """Ideal code length under the artifact's integer tables."""
        return sum(float(bits.sum()) for bits in self.element_bits(latents))

    def element_bits(self, latents: Latents) -> tuple[np.ndarray, np.ndarray]:
        """The same of every element of y and of z, float64 of their shapes."""
        ratio = self.stride // self._strides[0]
        regions = regions_for((latents.y.shape[1] // ratio, latents.y.shape[2] // ratio), self._strides)
        found = [self.coder.element_bits(regions.of_y(latents.y, *region), latents.z[:, *region]) for region in regions]
        return regions.joined([y for y, _ in found], regions.ratio), regions.joined([z for _, z in found], 1)

    def memory(self, height: int, width: int, *, encode: bool = False) -> int:
        """Bytes that decoding (or encoding) an image of that size takes at most, beside the model (``memory.py``)."""
        return self._bytes(self._regions(height, width), self._fast, encode)

    @contextmanager
    def _within_limits(
        self, height: int, width: int, regions: Regions | None = None, *, encode: bool = False
    ) -> Iterator[None]:
        """For coding an image of that size: on the codec's threads, refused before it takes more memory than allowed.

        regions: of a coded image, else those that an encoder chooses
        Raises ``ImageError`` or ``BitstreamError`` for an image that is too large, ``ArtifactError`` for a model that
        does not fit its size.
        """
        regions = regions or self._regions(height, width)
        needed, error = self._needed(regions, encode), ImageError if encode else BitstreamError
        problem = f"an image of {width}×{height} pixels takes up to {needed / 1e9:.1f} GB of memory with this model"
        if needed > self._max_memory:
            raise error(f"{problem}, more than the {self._max_memory / 1e9:.1f} GB that are allowed (max_memory)")
        try:
            with limited_threads(self._threads):
                yield
        except LoweringError as misfit:
            raise ArtifactError(f"the model cannot code this image: {misfit}") from misfit
        except MemoryError as shortage:
            raise error(f"{problem}, and there is not as much") from shortage

    def _needed(self, regions: Regions, encode: bool) -> int:
        """Memory that is held against the limit; an image that is encoded must be decoded by either engine, too."""
        if (regions, encode) not in self._known_sizes:
            _check_sizes(self.artifact.program, self._strides, regions.size)
            _check_sizes(self.artifact.program, self._strides, regions.largest())
            decoding = [self._bytes(regions, fast, False) for fast in (True, False)]
            needed = self._bytes(regions, self._fast, encode)
            self._known_sizes[regions, encode] = max(needed, *decoding) if encode else needed
        return self._known_sizes[regions, encode]

    def _bytes(self, regions: Regions, fast: bool, encode: bool) -> int:
        stride = self.stride
        size, largest = ((n[0] * stride, n[1] * stride) for n in (regions.size, regions.largest()))
        return image_bytes(self.artifact.program, self._strides, size, largest, fast, encode)

    def _positions(self, height: int, width: int) -> tuple[int, int]:
        """Coded positions of an image of so many pixels."""
        return -(-height // self.stride), -(-width // self.stride)

    def _regions(self, height: int, width: int) -> Regions:
        return regions_for(self._positions(height, width), self._strides)

    def _regions_of(self, stream: Bitstream) -> Regions:
        return regions_of(stream, self._positions(stream.height, stream.width), self._strides)

    def _analysed(self, rgb: RGB) -> tuple[Ints, dict[str, int]]:
        """(y in fixed point, widths that g_a chose) of an image."""
        if self._regions(rgb.shape[0], rgb.shape[1]).side:
            return self._g_a.run(EdgePadded(rgb, self.stride))
        return self._g_a.run(np.moveaxis(pad_to_multiple(rgb, self.stride), -1, 0))

    def _latents_of(self, y: Ints, regions: Regions, rows: slice, columns: slice) -> tuple[Ints, Ints]:
        """(y in fixed point, symbols of z) of a region."""
        part = regions.of_y(y, rows, columns)
        if self._h_a is None:
            return part, NO_Z
        assert isinstance(self.coder, GaussianCoder)
        return part, self.coder.round_hyper(self._h_a(part))

    def _synthesised(self, y: Ints, height: int, width: int) -> tuple[RGB, dict[str, int]]:
        pixels, widths = self._g_s.run(y)
        return crop(np.moveaxis(pixels, 0, -1).astype(np.uint8, copy=False), height, width), widths

    def _parse(self, data: bytes) -> Bitstream:
        stream = Bitstream.from_bytes(data)
        if stream.artifact_id != self.id:
            raise BitstreamError(
                f"coded with another model: it names artifact {stream.artifact_id.hex()}, this one is {self.id.hex()}"
            )
        return stream

    def _symbols(self, stream: Bitstream) -> Latents:
        regions = self._regions_of(stream)
        parts = [
            self.coder.decode(strings, (rows.stop - rows.start, columns.stop - columns.start))
            for (rows, columns), strings in zip(regions, unpacked(regions, stream), strict=True)
        ]
        return Latents(regions.joined([y for y, _ in parts], regions.ratio), regions.joined([z for _, z in parts], 1))


def load(
    path: str | Path,
    *,
    engine: str = "openvino",
    threads: int | None = None,
    max_memory: int = MAX_MEMORY,
    device: str = _CPU,
    cache: Path | None = None,
    callers: int = 1,
) -> Codec:
    """The codec in a ``model.licq`` file.

    engine:  ``"openvino"`` (fast) or ``"exact"`` (slow: exact integers for the free zone too)
    threads: how many OpenVINO and NumPy's BLAS may use; None leaves the choice to them
    max_memory: bytes that one image may take; a larger one is refused (``Codec.memory`` says what it would take)
    device: of OpenVINO, for what need not be exact: ``"CPU"``, ``"GPU"``, ``"NPU"``, or ``"AUTO"`` for the first of
        GPU, NPU and CPU whose kernels compute rightly
    cache: a folder, such as ``licquant.ready.usual_folder()``, in which to keep what makes the next start faster
    callers: how many threads will code images at the same time, each on as many ``threads``

    Raises ``ArtifactError`` for a file that is not an undamaged artifact, ``EngineError`` for a device that is not
    here or fails the self-test.
    """
    data = read_artifact_bytes(path)
    ready = Ready(cache, (whole_id(data),))
    try:
        artifact = Artifact.from_bytes(data, ready)
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {error}") from error
    _LOG.debug("%s: %s, %d bytes, engine %s", path, artifact.family, len(data), engine)
    return Codec(artifact, artifact_id(data), engine, threads, max_memory, device, Service(ready, callers))


def strides_of(program: Program) -> tuple[int, int]:
    """Pixels per element of y, and of the latent that is coded first (z where there is one).

    Raises ``ArtifactError`` unless every synthesis undoes the strides of its analysis.
    """
    try:
        latent = program["g_a"].output_size((_PROBE, _PROBE))
        coded = program["h_a"].output_size(latent) if "h_a" in program else latent
    except LoweringError as error:
        raise ArtifactError(f"the program has no use for images: {error}") from error
    if any(height != width or _PROBE % height for height, width in (latent, coded)) or latent[0] % coded[0]:
        raise ArtifactError("the program's analysis does not divide the sides of an image by a whole number")
    strides = _PROBE // latent[0], _PROBE // coded[0]
    _check_sizes(program, strides, coded)
    return strides


def _check_sizes(program: Program, strides: tuple[int, int], coded: tuple[int, int]) -> None:
    """Raise ``ArtifactError`` unless the parts fit one another for an image of so many positions of the coded latent.

    strides: as ``strides_of`` gives them
    """
    image = coded[0] * strides[1], coded[1] * strides[1]
    latent = image[0] // strides[0], image[1] // strides[0]
    expected = {"g_a": (image, latent), "h_a": (latent, coded), "h_s": (coded, latent), "g_s": (latent, image)}
    try:
        for name, part in program.items():
            size, wanted = expected.get(name, (latent, latent))
            if part.output_size(size) != wanted:
                raise ArtifactError(f"the program's {name} does not fit its other parts for an image of this size")
    except LoweringError as error:
        raise ArtifactError(f"the program does not fit an image of this size: {error}") from error


def _checked_device(engine: str, device: str) -> str:
    if device == _CPU:
        return device
    if engine == "exact":
        raise EngineError(f"device {device[:40]}: the engine exact runs on the CPU alone")
    from licquant.program.openvino_engine import usable_device

    return usable_device(device)


def _engine(
    part: Part,
    engine: str,
    threads: int | None,
    device: str,
    callers: int,
    ready: Ready = Ready(),  # noqa: B008 (is frozen)
) -> Engine:
    if engine == "exact":
        return ExactEngine(part)
    from licquant.program.openvino_engine import OpenVinoEngine  # here, as the exact engine does without OpenVINO

    return OpenVinoEngine(part, threads, device, ready, callers)
