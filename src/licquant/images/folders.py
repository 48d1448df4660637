"""Which image files are meant: by a folder, by one with all that lie in it, by a list."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from licquant.errors import DataError
from licquant.images.formats import READ_SUFFIXES

T = TypeVar("T")
_MAX_LIST = 1 << 26  # bytes


def list_images(folder: str | Path) -> list[Path]:
    """The image files directly in ``folder``, by suffix, sorted by name; ``DataError`` if there are none."""
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: not a folder")
    return _some(sorted(path for path in folder.iterdir() if _is_meant(path) and path.is_file()), folder)


def find_images(source: str | Path) -> list[Path]:
    """The image files that are meant by ``source``; ``DataError`` if there are none.

    a folder:       those in it and in the folders in it, by suffix, sorted; hidden ones are left out
    an image file:  itself
    another file:   a list, a path a line, from the list's own folder; empty lines and those that begin with # are not
                    paths. What a list names is not looked at: reading tells
    """
    source = Path(source)
    if source.is_dir():
        found = []
        for folder, folders, names in os.walk(source):
            folders[:] = [name for name in folders if not name.startswith(".")]
            found += [path for path in (Path(folder, name) for name in names) if _is_meant(path) and path.is_file()]
        return _some(sorted(found), source)
    if not source.is_file():
        raise DataError(f"{source}: not a folder, an image or a list of images")
    return [source] if source.suffix.lower() in READ_SUFFIXES else _some(_listed(source), source)


def evenly(items: Sequence[T], count: int) -> Sequence[T]:
    """That many of them, in order and evenly spaced; all of them if there are no more."""
    if len(items) <= count:
        return items
    return [items[n * len(items) // count] for n in range(count)]


def _listed(file: Path) -> list[Path]:
    try:
        with open(file, "rb") as opened:
            lines = opened.read(_MAX_LIST).decode("utf-8-sig", "surrogateescape").splitlines()
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror or error}") from error
    if any("\0" in line for line in lines):
        raise DataError(f"{file}: neither an image nor a list of images, a path a line")
    return [file.parent / line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]


def _is_meant(path: Path) -> bool:
    return path.suffix.lower() in READ_SUFFIXES and not path.name.startswith(".")


def _some(paths: list[Path], source: Path) -> list[Path]:
    if not paths:
        raise DataError(f"{source}: holds no images ({', '.join(READ_SUFFIXES)})")
    return paths
