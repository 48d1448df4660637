"""Which image files are meant: by a folder, by one with all that lie in it, by a list."""

import codecs
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
    an image file:  itself, by its suffix, or by a zero byte early on, as every format that is read has one
    another file:   a list, a path a line, from the list's own folder; empty lines and those that begin with # are not
                    paths. What a list names is not looked at: reading tells
    """
    source = Path(source)
    if source.is_dir():
        return _some(files_below(source, READ_SUFFIXES), source)
    if not source.is_file():
        raise DataError(f"{source}: not a folder, an image or a list of images")
    return _some(listed(source), source) if _is_list(source) else [source]


def files_below(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """The files of these suffixes in the folder and all below it, by path, without hidden ones and hidden folders."""
    found = []
    for at, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(at, name) for name in names if not name.startswith(".")]
    return sorted(path for path in found if path.suffix.lower() in suffixes and path.is_file())


def listed(file: Path) -> list[Path]:
    """What a list names, see ``find_images``; ``DataError`` if it cannot be read."""
    lines = _start(file, _MAX_LIST).removeprefix(codecs.BOM_UTF8).splitlines()
    names = [os.fsdecode(line).strip() for line in lines if b"\0" not in line]
    return [file.parent / name for name in names if name and not name.startswith("#")]


def evenly(items: Sequence[T], count: int) -> Sequence[T]:
    """That many of them, in order and evenly spaced; all of them if there are no more."""
    if len(items) <= count:
        return items
    return [items[n * len(items) // count] for n in range(count)]


def _is_list(file: Path) -> bool:
    return file.suffix.lower() not in READ_SUFFIXES and b"\0" not in _start(file, 512)


def _start(file: Path, size: int) -> bytes:
    try:
        with open(file, "rb") as opened:
            return opened.read(size)
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror or error}") from error


def _is_meant(path: Path) -> bool:
    return path.suffix.lower() in READ_SUFFIXES and not path.name.startswith(".")


def _some(paths: list[Path], source: Path) -> list[Path]:
    if not paths:
        raise DataError(f"{source}: holds no images ({', '.join(READ_SUFFIXES)})")
    return paths
