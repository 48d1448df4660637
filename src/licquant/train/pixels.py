"""Every training image decoded once, into one file that is then mapped into memory.

JPEG costs a core several milliseconds an image at every step; a crop from the mapped file, microseconds.

    NAME.u8      samples of image 0 (uint8 H×W×3, row by row), image 1, …
    NAME.jsonl   the images' shapes, how many files could not be read, SHA-256 of the samples

NAME has a hash of the files' contents (``licquant.cache``), so another or a changed folder gets another file, and a
copy of a folder, wherever it lies, the same.
"""

import hashlib
import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from licquant.cache import Entry, name_of
from licquant.digests import contents_sha256, file_sha256
from licquant.errors import DataError, ImageError, LicquantError, TrainingError
from licquant.images import list_images, read_image, utf8


@dataclass(frozen=True)
class Pixels:
    """Decoded images. ``samples``: flat uint8; ``shapes``: (height, width); ``unreadable``: files skipped."""

    samples: NDArray[np.uint8]
    shapes: tuple[tuple[int, int], ...]
    offsets: tuple[int, ...]
    unreadable: int

    def __len__(self) -> int:
        return len(self.shapes)

    def image(self, index: int) -> NDArray[np.uint8]:
        """Image ``index`` as uint8 H×W×3, a view of the mapped file."""
        height, width = self.shapes[index]
        start = self.offsets[index]
        return self.samples[start : start + height * width * 3].reshape(height, width, 3)

    def at_least(self, side: int) -> list[int]:
        """The images that a side×side crop can be taken from."""
        return [index for index, shape in enumerate(self.shapes) if min(shape) >= side]


def names_digest(folder: Path) -> str:
    """A hash of the images' names and sizes in bytes, all that runs of earlier versions say of their images."""
    names = [f"{path.name}:{path.stat().st_size}" for path in list_images(folder)]
    return hashlib.sha256(utf8("\n".join(names))).hexdigest()


def open_pixels(folder: Path, cache: Path, on_image: Callable[[int, int], object] = lambda *_: None) -> Pixels:
    """The images of ``folder``, decoded into ``cache`` unless they are there already, whole and undamaged.

    ``on_image`` is called with (done, total) after each file that is decoded. Unreadable files are skipped
    and counted. Raises ``DataError`` if no image can be read, ``TrainingError`` if they cannot be kept.
    """
    paths = list_images(folder)
    name = name_of("pixels", contents_sha256(paths))
    samples, index = cache / f"{name}.u8", Entry(cache / f"{name}.jsonl")
    try:
        found = [record for record in index.read() if _is_whole(samples, record, index)]
        if not found:
            cache.mkdir(parents=True, exist_ok=True)
            found = [_decode_all(paths, samples, on_image)]
            index.write(*found)  # last, and whole: with it the cache counts as complete
    except (OSError, LicquantError) as error:
        reason = getattr(error, "strerror", None) or error
        raise TrainingError(f"{cache}: decoded images cannot be kept there: {reason}; see --cache") from error
    return _open(samples, found[0], folder)


def _is_whole(samples: Path, record: dict[str, Any], index: Entry) -> bool:
    """Whether the samples are those that the index was written for; if not, that is said."""
    whole = samples.is_file() and file_sha256(samples) == record["sha256"]
    if not whole:
        index.say_damaged()
    return whole


def _decode_all(paths: Sequence[Path], target: Path, on_image: Callable[[int, int], object]) -> dict[str, Any]:
    """Write all samples to ``target``; return what the index file says about them."""
    shapes, digest = [], hashlib.sha256()
    temporary = target.with_name(f".licquant-{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "wb") as file:
            for number, path in enumerate(paths, start=1):
                try:
                    rgb = read_image(path)
                except ImageError:
                    continue
                finally:
                    on_image(number, len(paths))
                file.write(rgb.tobytes())
                digest.update(rgb.tobytes())
                shapes.append(rgb.shape[:2])
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)  # after the rename it is gone already
    return {"shapes": shapes, "unreadable": len(paths) - len(shapes), "sha256": digest.hexdigest()}


def _open(samples: Path, record: dict[str, Any], folder: Path) -> Pixels:
    shapes = tuple((height, width) for height, width in record["shapes"])
    if not shapes:
        raise DataError(f"{folder}: none of its {record['unreadable']} images can be read")
    sizes = [height * width * 3 for height, width in shapes]
    offsets = tuple(int(offset) for offset in np.cumsum([0, *sizes[:-1]]))
    return Pixels(np.memmap(samples, dtype=np.uint8, mode="r"), shapes, offsets, record["unreadable"])
