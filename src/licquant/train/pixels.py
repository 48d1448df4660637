"""Every training image decoded once, into one file that is then mapped into memory.

JPEG costs a core several milliseconds an image at every step; a crop from the mapped file, microseconds.

    KEY.u8     samples of image 0 (uint8 H×W×3, row by row), image 1, …
    KEY.json   the images' shapes and how many files could not be read

KEY is a hash of the files' places, names, sizes and times, so another or a changed folder gets another file.
"""

import hashlib
import json
import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from licquant.errors import DataError, ImageError, LicquantError, TrainingError
from licquant.images import list_images, read_image, utf8, write_atomically

VERSION = 1


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


def default_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "licquant"


def data_digest(folder: Path) -> str:
    """A hash of the images' names and sizes in bytes: the same on every machine that has the same files."""
    names = [f"{path.name}:{path.stat().st_size}" for path in list_images(folder)]
    return hashlib.sha256(utf8("\n".join(names))).hexdigest()


def open_pixels(folder: Path, cache: Path, on_image: Callable[[int, int], object] = lambda *_: None) -> Pixels:
    """The images of ``folder``, decoded into ``cache`` unless they are there already.

    ``on_image`` is called with (done, total) after each file that is decoded. Unreadable files are skipped
    and counted. Raises ``DataError`` if no image can be read, ``TrainingError`` if they cannot be kept.
    """
    paths = list_images(folder)
    stats = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    key = hashlib.sha256(json.dumps([VERSION, stats]).encode()).hexdigest()[:32]
    samples, index = cache / f"{key}.u8", cache / f"{key}.json"
    if not (index.exists() and samples.exists()):
        try:
            cache.mkdir(parents=True, exist_ok=True)
            record = _decode_all(paths, samples, on_image)
            # Last, and whole: with it the cache counts as complete.
            write_atomically(index, json.dumps(record).encode())
        except (OSError, LicquantError) as error:
            reason = getattr(error, "strerror", None) or error
            raise TrainingError(f"{cache}: decoded images cannot be kept there: {reason}; see --cache") from error
    return _open(samples, json.loads(index.read_text(encoding="utf-8")), folder)


def _decode_all(paths: Sequence[Path], target: Path, on_image: Callable[[int, int], object]) -> dict[str, Any]:
    """Write all samples to ``target``; return what the index file says about them."""
    shapes = []
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
                shapes.append(rgb.shape[:2])
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)  # after the rename it is gone already
    return {"shapes": shapes, "unreadable": len(paths) - len(shapes)}


def _open(samples: Path, record: dict[str, Any], folder: Path) -> Pixels:
    shapes = tuple((height, width) for height, width in record["shapes"])
    if not shapes:
        raise DataError(f"{folder}: none of its {record['unreadable']} images can be read")
    sizes = [height * width * 3 for height, width in shapes]
    offsets = tuple(int(offset) for offset in np.cumsum([0, *sizes[:-1]]))
    if samples.stat().st_size != sum(sizes):
        raise TrainingError(f"{samples}: does not have the size its index says; delete it and try again")
    return Pixels(np.memmap(samples, dtype=np.uint8, mode="r"), shapes, offsets, record["unreadable"])
