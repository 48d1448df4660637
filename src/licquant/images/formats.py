"""Which kinds of files are read, and what Pillow does not tell of them: a missing plugin, the bits per sample."""

import importlib
import struct
from dataclasses import dataclass
from typing import Any, BinaryIO

from PIL import Image

from licquant.errors import ImageError

# Kinds that people keep pictures in, of Pillow's many: each one more is a further surface for hostile files, and some
# of the others start other programs. The last has no signature.
READ_FORMATS = (
    "PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF", "AVIF", "HEIF", "JXL", "JPEG2000", "QOI", "PPM", "SGI", "PCX", "TGA",
)  # fmt: skip
READ_SUFFIXES = (
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".bmp", ".dib", ".tif", ".tiff", ".webp", ".gif",
    ".avif", ".avifs", ".heic", ".heif", ".hif", ".jxl", ".jp2", ".j2k", ".jpx", ".jpf", ".j2c", ".qoi",
    ".ppm", ".pgm", ".pbm", ".pnm", ".pam", ".sgi", ".pcx", ".tga",
)  # fmt: skip


@dataclass(frozen=True)
class Plugin:
    """What Pillow needs for a kind of file where it cannot read it by itself.

    module:   its import makes the kind known, or offers ``register`` to do so
    register: name of that function, or none
    """

    kind: str
    package: str
    module: str
    register: str = ""


_HEIF = Plugin("HEIC", "pillow-heif", "pillow_heif", "register_heif_opener")
_AVIF = Plugin("AVIF", "pillow-avif-plugin", "pillow_avif")
_JXL = Plugin("JPEG XL", "pillow-jxl-plugin", "pillow_jxl")
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"mif2", b"msf1")
_JXL_STARTS = (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")


def plugin_for(start: bytes) -> Plugin | None:
    """What may be needed for a file that begins so (32 bytes or more); None for kinds that no plugin is known for."""
    if start.startswith(_JXL_STARTS):
        return _JXL
    if start[4:8] != b"ftyp":
        return None
    brands = [start[8:12], *(start[at : at + 4] for at in range(16, 32, 4))]
    if any(brand in (b"avif", b"avis") for brand in brands):
        return _AVIF
    return _HEIF if any(brand in _HEIF_BRANDS for brand in brands) else None


def install(plugin: Plugin) -> None:
    """Make Pillow know the kind; ``ImageError`` that names the package to install if it is not there."""
    try:
        module = importlib.import_module(plugin.module)
        if plugin.register:
            getattr(module, plugin.register)()
    except Exception as error:  # a plugin built for another Pillow raises whatever it likes
        reason = "" if isinstance(error, ModuleNotFoundError) else f" ({type(error).__name__}: {error})"
        raise ImageError(f"a {plugin.kind} file: this needs a plugin, pip install {plugin.package}{reason}") from error


def open_image(file: BinaryIO) -> Image.Image:
    """``Image.open`` without its limit on pixels, which is the whole process's; whoever calls has one of his own.

    Raises ``UnidentifiedImageError``, ``ImageError`` where a plugin is missing, and what Pillow raises for damage.
    """
    start = file.read(64)
    found = _first_that_opens(file, start)
    if found is None and (plugin := plugin_for(start)):
        install(plugin)
        found = _first_that_opens(file, start)
    if found is None:
        raise Image.UnidentifiedImageError
    return found


def _first_that_opens(file: BinaryIO, start: bytes) -> Image.Image | None:
    Image.init()
    for name in READ_FORMATS:
        factory, accept = Image.OPEN.get(name, (None, None))
        accepted: Any = factory is not None and (accept is None or accept(start[:16]))
        if accepted is not True and accepted != 1:  # a text is a remark of a reader that lacks its library
            continue
        file.seek(0)
        try:
            return factory(file, "")  # type: ignore[misc]
        except (SyntaxError, IndexError, TypeError, struct.error):  # as Pillow: another reader may know the file
            continue
    return None


def sample_bits(image: Image.Image, file: BinaryIO) -> int:
    """Bits per sample that the file declares, where Pillow would reduce them to 8 without a word; else 8."""
    if image.format == "TIFF":
        tags: Any = getattr(image, "tag_v2", {})
        return max(tags.get(258, (8,)))  # BitsPerSample, one per channel
    if image.format in ("HEIF", "JXL"):
        declared = image.info.get("bit_depth", 8)
        return declared if isinstance(declared, int) else 8
    at = file.tell()
    file.seek(0)
    head = file.read(1 << 16)
    file.seek(at)
    if image.format == "PNG":
        return head[24]  # signature 8, IHDR length and name 8, width and height 8, bit depth
    if image.format == "AVIF":
        flags = head[head.find(b"av1C") + 6 : head.find(b"av1C") + 7]  # high bit depth, twelve bits
        return 8 if not flags or not flags[0] & 0x40 else 12 if flags[0] & 0x20 else 10
    if image.format == "JPEG2000":
        size = head.find(b"\xff\x4f\xff\x51")  # start of the codestream, then its marker of sizes
        return (head[size + 42] & 0x7F) + 1 if size >= 0 else 8
    return 8
