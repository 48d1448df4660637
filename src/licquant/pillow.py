"""Pillow reads and writes ``.lic`` files once this is imported.

    import licquant.pillow
    from PIL import Image

    Image.open("in.png").save("out.lic", quality=2)
    picture = Image.open("out.lic")     # size, mode and metadata are known; no model is loaded, nothing decoded
    picture.load()                      # now it is

Pillow has looked for no plugins by itself since 2.1, so this import is what registers the format. Errors are those
that Pillow raises (``OSError``, at opening ``UnidentifiedImageError``) and licquant's in one, with licquant's text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from licquant.codec.files.bitstream import FIELD_KINDS, MAGIC, Bitstream
from licquant.codec.files.extra_fields import from_fields
from licquant.commands.model_choice import Codecs, Encode, encoder
from licquant.commands.model_search import VARIABLE, lookup
from licquant.errors import ArtifactError, BitstreamError, LicquantError
from licquant.images.picture import Extras
from licquant.images.reading import CONVERTIBLE_MODES, Reading, picture_of

__all__ = ["FORMAT", "LicFileError", "LicImageFile", "UnidentifiedLicError", "register"]

FORMAT, SUFFIX, MIME = "LIC", ".lic", "image/x-licquant"
_LARGEST = 1 << 30  # bytes of a file that are read; so for the commands
_TARGETS = ("quality", "target_bpp", "target_psnr")


class LicFileError(LicquantError, OSError):
    """A ``.lic`` file that cannot be decoded or written; ``__cause__`` is licquant's own error."""


class UnidentifiedLicError(LicFileError, UnidentifiedImageError):
    """A file that begins as ``.lic`` files do, and is truncated, damaged or of a version that is not known."""


class LicImageFile(ImageFile.ImageFile):
    """A coded image, decoded when its pixels are first wanted, by the model that it names.

    The model is looked for among the embedded ones, in the files and folders that the environment variable
    ``LICQUANT_MODELS`` lists at that moment, and beside the file. ``mode`` is RGBA where transparency was coded, else
    RGB. ``info`` has what else was coded: icc_profile, exif, xmp, dpi.
    """

    format = FORMAT
    format_description = "licquant coded image"
    _coded: bytes | None = None  # until it is decoded

    def _open(self) -> None:
        assert self.fp is not None
        if not _accept(self.fp.read(len(MAGIC))):
            raise SyntaxError("not a .lic file")
        try:
            self._coded = data = MAGIC + _rest(self.fp)
            stream = Bitstream.from_bytes(data)
            others = {kind: field for kind, field in stream.fields.items() if kind != FIELD_KINDS["alpha"]}
            self.info.update(_info(from_fields(replace(stream, fields=others))))
        except BitstreamError as error:
            raise UnidentifiedLicError(f"{_name(self.filename)}{error}") from error
        self._size = stream.width, stream.height
        self._mode = "RGB" if stream.field("alpha") is None else "RGBA"

    def load(self) -> Any:
        """Pillow's access to the pixels. Raises ``LicFileError`` if they cannot be decoded."""
        if self._coded is not None:
            pixels = self._decoded(self._coded)
            self.load_prepare()
            self.frombytes(pixels)
            self._coded = None
            if self.fp and getattr(self, "_exclusive_fp", False):
                self.fp.close()
            self.fp = None
        return super().load()

    def _decoded(self, data: bytes) -> bytes:
        """Samples, row after row."""
        try:
            codec = _SETTINGS.codecs.of(_model_of(data, Path(_text(self.filename)).parent))
            rgb, alpha = codec.decode(data), codec.extras(data).alpha
        except LicquantError as error:
            raise LicFileError(f"{_name(self.filename)}{error}") from error
        return (rgb if alpha is None else np.dstack([rgb, alpha])).tobytes()


def register(engine: str = "openvino", threads: int | None = None, device: str = "CPU") -> None:
    """What importing this module has done; once more to choose how images are coded from now on.

    engine, threads, device: as ``licquant.load`` has them
    """
    _SETTINGS.codecs = Codecs(engine, threads, device)
    Image.register_open(FORMAT, LicImageFile, _accept)
    Image.register_save(FORMAT, _save)
    Image.register_extension(FORMAT, SUFFIX)
    Image.register_mime(FORMAT, MIME)


class _Settings:
    codecs: Codecs


_SETTINGS = _Settings()


def _accept(start: bytes) -> bool:
    return start.startswith(MAGIC)


def _rest(file: IO[bytes]) -> bytes:
    data = file.read(_LARGEST)
    if file.read(1):
        raise BitstreamError("larger than 1 GiB: not a licquant file")
    return data


def _info(extras: Extras) -> dict[str, Any]:
    """As Pillow's other formats call it."""
    found = {
        "icc_profile": extras.profile,
        "exif": b"Exif\0\0" + extras.exif if extras.exif else b"",
        "xmp": extras.xmp,
        "dpi": extras.density,
    }
    return {name: value for name, value in found.items() if value}


def _model_of(data: bytes, beside: Path) -> Path:
    identity = Bitstream.from_bytes(data).artifact_id
    path = lookup(identity, beside)
    if path is None:
        raise ArtifactError(
            f"coded with the model {identity.hex()}, which is none of those embedded, none beside the file and none "
            f"that the environment variable {VARIABLE} names"
        )
    return path


def _save(image: Image.Image, file: IO[bytes], filename: str | bytes) -> None:
    """``image.save("x.lic", …)`` with these options, all of which may be left out:

    quality:     which of the models, from 1, by bit rate; the middle one if nothing is said
    model:       a .licq file, or a folder of them, instead of the embedded ones
    target_bpp:  the best of the models whose file has at most so many bits per pixel
    target_psnr: the smallest file that has at least so many dB
    icc_profile: else that of ``image.info``; exif, xmp, dpi: kept only if given here

    Raises ``ValueError`` for options that make no sense, ``LicFileError`` where there is no such model, for a picture
    that cannot be coded, and ``OSError`` for a mode that cannot.
    """
    if image.mode not in CONVERTIBLE_MODES:
        raise OSError(f"cannot write mode {image.mode} as {FORMAT}")
    options = image.encoderinfo
    try:
        data = _encoder(options)(picture_of(_with_info(image, options), Reading(metadata=True))).data
    except LicquantError as error:
        raise LicFileError(f"{_name(filename)}{str(error).removeprefix('--')}") from error
    file.write(data)


def _encoder(options: Mapping[str, Any]) -> Encode:
    model = None if options.get("model") is None else Path(options["model"])
    given = [name for name in _TARGETS if options.get(name) is not None]
    if len(given) > 1:
        raise ValueError(f"{given[0]} and {given[1]}: give one of them")
    if given and model is not None and not model.is_dir():
        raise ValueError(f"{given[0]} chooses among models, and model={str(model)!r} is one: name a folder, or neither")
    for name in given:
        value, kinds = options[name], int if name == "quality" else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds) or not value > 0:
            raise ValueError(f"{name} must be a {'whole ' if name == 'quality' else ''}number above 0, not {value!r}")
    return encoder(_SETTINGS.codecs, model, *(options.get(name) for name in _TARGETS))


def _with_info(image: Image.Image, options: Mapping[str, Any]) -> Image.Image:
    """A copy that carries what is to be coded beside the pixels, and nothing else that its file had."""
    copy = image.copy()
    kept: dict[str, Any] = {name: image.info[name] for name in ("icc_profile", "transparency") if name in image.info}
    wanted: dict[str, Any] = {name: options[name] for name in ("icc_profile", "exif", "xmp", "dpi") if name in options}
    if isinstance(wanted.get("exif"), Image.Exif):
        wanted["exif"] = wanted["exif"].tobytes()
    copy.info = dict[str | tuple[int, int], Any]([*kept.items(), *wanted.items()])
    return copy


def _text(name: str | bytes) -> str:
    return name.decode(errors="surrogateescape") if isinstance(name, bytes) else name


def _name(filename: str | bytes) -> str:
    """For the beginning of a message; nothing for what has no name."""
    return f"{_text(filename)}: " if filename else ""


register()
